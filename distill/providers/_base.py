"""One seam to every model: teacher, student and judge alike.

A provider file holds ``Config`` (a :class:`ProviderConfig`) and ``build(config, context) -> Provider``; heavy
imports go inside ``build``. ``Provider.ask`` returns raw bytes; ``Provider.parse`` reads them afterwards, so
what was paid for is on disk before anything can go wrong.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from pydantic import Field

from distill.plugins import PluginConfig
from distill.records import Answer, Completion, TopLogprobs, Usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distill.records import Request


class NoAnswer(Exception):
    """One send brought no usable response; whether and when it is repeated is decided above the provider.

    ``billed``: False when the call provably did no work, None when nobody knows. ``throttled``: the server wants
    fewer calls, ``retry_after_s`` from now. ``permanent``: the same request will never be served.
    """

    def __init__(
        self,
        reason: str,
        *,
        billed: bool | None = None,
        status: int | None = None,
        throttled: bool = False,
        permanent: bool = False,
        retry_after_s: float | None = None,
        detail: str = "",
    ):
        super().__init__(reason)
        self.reason, self.billed, self.status, self.throttled = reason, billed, status, throttled
        self.permanent, self.retry_after_s, self.detail = permanent, retry_after_s, detail


@dataclass(frozen=True, slots=True)
class Pace:
    """A server's own limit: calls per window, calls left now, and how fast they come back."""

    limit: int
    remaining: int
    per_s: float


class ProviderConfig(PluginConfig):
    """What every provider has."""

    model: str
    """Catalogue name, model id of the endpoint, `hub:ID@REVISION`, `path:DIR` or `package:...#sha256=...`."""
    concurrency: Annotated[int, Field(ge=1, le=4096)] = 1
    """Batches in flight at the same time."""


@dataclass(frozen=True)
class Context:
    """What a provider may need from the run: where relative paths start."""

    folder: Path = Path()


@dataclass(frozen=True)
class Capabilities:
    """What an engine can do. A request that needs more is refused before anything is sent."""

    choices: bool = False
    """Answers can be held to a list of texts."""
    schema: bool = False
    """Answers can be held to a JSON Schema."""
    top_logprobs: int = 0
    """Most log-probabilities per token it returns."""
    samples: int = 1
    """Samples of one prompt that one request can bring."""
    paid: bool = False
    """Calls cost money: a dated price and a cap are needed."""


class Provider(Protocol):
    """A model that can be asked."""

    batch_size: int
    """Requests given to one ``ask``."""
    capabilities: Capabilities

    def identity(self) -> dict[str, Any]:
        """What makes an answer this model's: kind, model, revision or weights hash, endpoint, template. No secrets."""

    async def ask(self, requests: Sequence[Request]) -> list[Answer]:
        """Answers in the order of the requests; one send, no retries. Raises NoAnswer, TeacherRefused, OutOfMemory.

        Samples of one prompt may come back incomplete: then the list is shorter.
        """

    def parse(self, raw: bytes) -> Completion:
        """Read raw bytes. Never raises on what a server may send: a bad answer has a ``reject`` reason."""

    def close(self) -> None:
        """Free what it holds."""


def chat_json(text: str, usage: Usage, model: str, finish: str = "stop", logprobs: TopLogprobs | None = None) -> bytes:
    """The raw bytes an in-process engine stores: the shape of an OpenAI chat completion, so one parser reads all."""
    choice: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    if logprobs is not None:
        tops = logprobs.top or ((),) * len(logprobs.tokens)
        choice["logprobs"] = {
            "content": [
                {"token": t, "logprob": p, "top_logprobs": [{"token": a, "logprob": q} for a, q in top]}
                for t, p, top in zip(logprobs.tokens, logprobs.logprobs, tops, strict=True)
            ]
        }
    body = {
        "object": "chat.completion",
        "model": model,
        "choices": [choice],
        "usage": {
            "prompt_tokens": usage.prompt,
            "completion_tokens": usage.completion,
            "prompt_tokens_details": {"cached_tokens": usage.cached},
        },
    }
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def parse_chat(raw: bytes) -> Completion:
    """A chat completion's bytes as a Completion; every hostile shape has its own ``reject`` reason."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        head = raw.lstrip()[:15].lower()
        return _bad("html" if head.startswith((b"<!doctype", b"<html")) else "not_json")
    if not isinstance(body, dict):
        return _bad("not_an_object")
    if body.get("error"):
        return _bad("error_body")
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return _bad("no_choices")
    choice = choices[0]
    message = choice.get("message")
    content = message.get("content") if isinstance(message, dict) else None
    finish = str(choice.get("finish_reason") or "unknown")
    usage = _usage(body.get("usage"))
    model = str(body.get("model") or "")
    if finish == "content_filter":
        return Completion("", finish, usage=usage, model=model, reject="content_filter")
    if not isinstance(content, str):
        return Completion("", finish, usage=usage, model=model, reject="null_content")
    reasoning, text = split_reasoning(content)
    explicit = (message.get("reasoning_content") or message.get("reasoning")) if isinstance(message, dict) else None
    if isinstance(explicit, str) and explicit:
        reasoning = explicit
    reject = "truncated" if finish == "length" else "empty" if not text.strip() else ""
    broken = [part for part in (text, reasoning, finish, model) if not _is_unicode(part)]
    if broken:  # half a character: no file can hold it, so it is shown as what it is and not used
        text, reasoning, finish, model = (_mended(part) for part in (text, reasoning, finish, model))
        reject = "bad_unicode"
    return Completion(text, finish, reasoning, usage, model, _logprobs(choice.get("logprobs")), reject)


def split_reasoning(text: str) -> tuple[str, str]:
    """(reasoning, answer) of a text that may begin with a ``<think>`` block, whose first tag the template may hold."""
    stripped = text.lstrip()
    if not stripped.startswith("<think>") and ("<think>" in text or "</think>" not in text):
        return "", text
    thought, closed, answer = stripped.removeprefix("<think>").partition("</think>")
    return (thought.strip(), answer.lstrip()) if closed else (thought.strip(), "")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _mended(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _bad(reason: str) -> Completion:
    return Completion("", "error", reject=reason)


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**40 else 0


def _usage(value: Any) -> Usage:
    """Token counts in any of the shapes endpoints report: cached tokens are always a part of the prompt's here.

    OpenAI counts them into the prompt. Anthropic's input leaves out what was read from or written to the cache; what
    was written (asked for by no request of ours) counts as plain input.
    """
    if not isinstance(value, dict):
        return Usage()
    prompt, completion = (_count(value.get(f"{kind}_tokens")) for kind in ("prompt", "completion"))
    cached = _part(value.get("prompt_tokens_details"), "cached_tokens") or _count(value.get("prompt_cache_hit_tokens"))
    reasoning = _part(value.get("completion_tokens_details"), "reasoning_tokens")
    if "prompt_tokens" not in value and "input_tokens" in value:
        apart = _count(value.get("cache_read_input_tokens"))
        prompt = _count(value["input_tokens"]) + apart + _count(value.get("cache_creation_input_tokens"))
        cached = apart or _part(value.get("input_tokens_details"), "cached_tokens")
        completion = _count(value.get("output_tokens"))
        reasoning = _part(value.get("output_tokens_details"), "reasoning_tokens")
    return Usage(prompt, completion, min(cached, prompt), min(reasoning, completion))


def _part(details: Any, name: str) -> int:
    return _count(details.get(name)) if isinstance(details, dict) else 0


def _logprobs(value: Any) -> TopLogprobs | None:
    """Log-probabilities, or None when any of them is not a finite number <= 0 (a tiny positive is rounding)."""
    content = value.get("content") if isinstance(value, dict) else None
    if not isinstance(content, list) or not content:
        return None
    tokens, logprobs, tops = [], [], []
    for item in content:
        if not isinstance(item, dict) or not _is_logprob(item.get("logprob")) or not isinstance(item.get("token"), str):
            return None
        alternatives = item.get("top_logprobs") or []
        if not all(isinstance(a, dict) and _is_logprob(a.get("logprob")) for a in alternatives):
            return None
        if not _is_unicode(item["token"] + "".join(str(a.get("token")) for a in alternatives)):
            return None
        tokens.append(item["token"])
        logprobs.append(float(item["logprob"]))
        tops.append(tuple((str(a.get("token")), float(a["logprob"])) for a in alternatives))
    return TopLogprobs(tuple(tokens), tuple(logprobs), tuple(tops))


def _is_logprob(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value <= 1e-6
