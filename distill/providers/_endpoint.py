"""The settings of an OpenAI-compatible endpoint. No key, and no address that could hold one."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from distill.costs import StatedPrice  # noqa: TC001 - a field's type
from distill.providers._base import ProviderConfig

OURS = frozenset(
    {"model", "messages", "stream", "n", "max_tokens", "max_completion_tokens", "logprobs", "top_logprobs"}
)
SECRET = re.compile(r"\b(sk|pk|rk|hf|gsk|xai)[-_][A-Za-z0-9_\-]{16,}|(?i:\bbearer\s)|\b[A-Za-z0-9]{32,}\b")


class Config(ProviderConfig):
    """An endpoint, its model and how long to wait for it."""

    kind: Literal["openai"] = "openai"
    provider: str = ""
    """Catalogue id (`mistral`, `scaleway` ...): fills in `base_url` and `api_key_env` where they are not given."""
    base_url: str
    """Address up to and including `/v1`. Without TLS only in your own network."""
    api_key_env: str = ""
    """NAME of the environment variable that holds the key. Empty = the endpoint wants none."""
    concurrency: Annotated[int, Field(ge=1, le=4096)] = 16
    """Most requests in flight. Fewer are used when the endpoint says it is too many."""
    timeout_s: Annotated[float, Field(gt=0, le=86_400)] = 120.0
    """Wall time of one send, however slowly the answer trickles in."""
    deadline_s: Annotated[float, Field(gt=0, le=86_400)] = 600.0
    """Wall time of one request over all its attempts; pauses the endpoint asks for are not counted."""
    max_attempts: Annotated[int, Field(ge=1, le=20)] = 4
    """Sends of one request. "Too many requests" does not count, an answer that cannot be read does."""
    constrain: Literal["none", "json_schema", "vllm"] = "none"
    """How answers are held to `choices`, or to the `shape` of a `json_schema` verifier: strict `json_schema`, vLLM's
    `structured_outputs`, or not at all."""
    top_logprobs: Annotated[int, Field(ge=0, le=1024)] = 0
    """Most log-probabilities per token that the endpoint returns."""
    samples_per_request: Annotated[int, Field(ge=1, le=64)] = 1
    """Answers to one prompt that are asked for together (`n`): the prompt is then paid once for all of them."""
    batch: bool = False
    """Ask through the endpoint's batch API (files and batches): hours later, usually at half the price."""
    batch_requests: Annotated[int, Field(ge=1, le=50_000)] = 5_000
    """Requests in one batch."""
    batch_jobs: Annotated[int, Field(ge=1, le=100)] = 4
    """Batches that run at the same time."""
    batch_poll_s: Annotated[float, Field(gt=0, le=3600)] = 30.0
    """Seconds between two looks at a running batch."""
    seed_field: Literal["seed", "random_seed", "none"] = "seed"
    """What the endpoint calls the seed (Mistral: `random_seed`)."""
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the endpoint calls the longest answer (OpenAI's reasoning models: `max_completion_tokens`)."""
    model_drift: Literal["stop", "report"] = "stop"
    """When answers begin to name another model than the first ones did: stop (exit 11), or go on and report it."""
    extra_body: dict[str, Any] = Field(default_factory=dict)
    """More fields of the request body, as they are. Part of the request key."""
    price: StatedPrice | None = None
    """Price per million tokens, when the catalogue does not know it or yours differs."""
    max_cost_eur_per_month: Annotated[float, Field(gt=0)] | None = None
    """Cap, in EUR and per calendar month (UTC), on what all your runs on this machine that state it spend together with
    this key at this address. It holds beside `generate.max_cost_eur`."""

    @model_validator(mode="before")
    @classmethod
    def _from_the_catalogue(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(name := values.get("provider"), str) or not name:
            return values
        from distill import catalog

        row = next((row for row in catalog.providers() if row.id == name), None)
        if row is None:
            known = ", ".join(sorted(r.id for r in catalog.providers() if r.base_url))
            raise ValueError(f"provider {name!r} is not in the catalogue; known: {known}")
        filled = {"base_url": row.base_url, "api_key_env": row.env}
        return {key: value for key, value in filled.items() if value} | values

    @field_validator("api_key_env")
    @classmethod
    def _a_name(cls, value: str) -> str:
        if value and (not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,63}", value) or re.search(r"[A-Z0-9]{20}", value)):
            raise ValueError("expected the NAME of an environment variable, never the key itself")
        return value

    @field_validator("base_url")
    @classmethod
    def _an_origin(cls, value: str) -> str:
        from distill.catalog.route import is_own

        try:
            parts = urlsplit(value)
            host, _ = parts.hostname or "", parts.port
        except ValueError:
            raise ValueError("not an address; for example https://api.mistral.ai/v1") from None
        if parts.scheme not in ("http", "https") or not host:
            raise ValueError("not an address; for example https://api.mistral.ai/v1")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("no user, password, query or fragment here; name the key with api_key_env")
        if parts.scheme == "http" and not is_own(host):
            raise ValueError("http:// only in your own network; use https://")
        return value.rstrip("/")

    @field_validator("extra_body")
    @classmethod
    def _nothing_secret(cls, value: dict[str, Any]) -> dict[str, Any]:
        if SECRET.search(json.dumps(value)):
            raise ValueError("looks like it holds a key; name the key with api_key_env")
        if ours := sorted(OURS & value.keys()):
            raise ValueError(f"{', '.join(ours)} cannot be set here")
        return value
