"""What crosses a stage: prompts, requests, completions, usage. Plain frozen dataclasses, no dependencies."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant"]
KEY_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Message:
    """One chat turn."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """One thing to ask. ``cluster`` names what must stay together in a split and in an interval."""

    id: str
    messages: tuple[Message, ...]
    cluster: str = ""
    lang: str = ""
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to sample. Every field is part of the request key, also the ones left at their default."""

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """One answer wanted from one model.

    ``choices``: the answer must be one of these texts (empty = free). ``sample``: index among the answers
    wanted for the same prompt. ``top_logprobs``: how many log-probabilities per token to ask for (0 = none).
    ``schema``: JSON Schema, as text, that the answer is held to (empty = free).
    """

    messages: tuple[Message, ...]
    sampling: Sampling = Sampling()
    choices: tuple[str, ...] = ()
    top_logprobs: int = 0
    sample: int = 0
    schema: str = ""

    def key(self, provider: dict[str, Any]) -> str:
        """SHA-256 (hex) of the canonical request: the provider's identity and every field of this request."""
        return hashlib.sha256(self.canonical(provider)).hexdigest()

    def canonical(self, provider: dict[str, Any]) -> bytes:
        """The canonical JSON that the key is the hash of."""
        request = _fields(self)
        request["messages"] = [_fields(message) for message in self.messages]
        request["sampling"] = _fields(self.sampling)
        if not self.schema:  # younger than the first stores: requests without it keep their key
            del request["schema"]
        return canonical_json({"schema": KEY_SCHEMA, "provider": provider, "request": request})


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one answer. ``cached`` is a part of ``prompt``; ``reasoning`` is a part of ``completion``."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    reasoning: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt + other.prompt,
            self.completion + other.completion,
            self.cached + other.cached,
            self.reasoning + other.reasoning,
        )


@dataclass(frozen=True, slots=True)
class TopLogprobs:
    """Per completion token: its text, its log-probability, and the alternatives as (text, log-probability)."""

    tokens: tuple[str, ...]
    logprobs: tuple[float, ...]
    top: tuple[tuple[tuple[str, float], ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a provider hands back, before anything is parsed: the raw bytes and how the call went.

    ``status`` is the HTTP status, or 200 for an engine in this process. ``latency_s`` is None where it has no
    meaning (an item of a batch). ``first_s``, ``last_s``: seconds from the send to the first and the last token, where
    the engine sees them come.
    """

    raw: bytes
    status: int = 200
    latency_s: float | None = None
    request_id: str = ""
    first_s: float | None = None
    last_s: float | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """A parsed answer. ``reject`` is empty, or the typed reason why the answer cannot be used."""

    text: str
    finish: str = "stop"
    reasoning: str = ""
    usage: Usage = Usage()
    model: str = ""
    logprobs: TopLogprobs | None = None
    reject: str = ""


def _fields(record: Any) -> dict[str, Any]:
    """Every field of a flat record: ``dataclasses.asdict`` without its copies."""
    return {name: getattr(record, name) for name in record.__slots__}


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_json(value: Any) -> bytes:
    """UTF-8 JSON with sorted keys and no spaces: equal values give equal bytes. NaN and infinity are refused."""
    return _CANONICAL.encode(value).encode("utf-8", "surrogatepass")
