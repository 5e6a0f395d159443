"""One chat completion as a stream of server-sent events, with the moments at which its tokens arrived.

For measuring: what came is noted chunk by chunk and read only afterwards, so that reading delays nothing. The raw bytes
handed back are one chat completion, so the same parser reads it.

Format: WHATWG HTML, "Server-sent events"; OpenAI's `stream: true` and `stream_options: {include_usage: true}`.
"""

from __future__ import annotations

import json
import time
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from distill.errors import struck
from distill.providers._base import NoAnswer
from distill.records import Answer, canonical_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from distill.providers.openai import OpenAIProvider
    from distill.records import Request

DONE = b"[DONE]"


@dataclass
class Arrivals:
    """(bytes so far, seconds on the monotonic clock) of each chunk."""

    ends: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def add(self, end: int) -> None:
        """A chunk came; ``end``: all bytes so far."""
        self.ends.append(end)
        self.times.append(time.perf_counter())

    def at(self, end: int) -> float:
        """When the first ``end`` bytes had all come."""
        return self.times[min(bisect_left(self.ends, end), len(self.times) - 1)]


async def streamed(provider: OpenAIProvider, request: Request) -> Answer:
    """The answer with `latency_s`, `first_s` and `last_s`. A server that does not stream: without the last two.

    Raises NoAnswer (also for a stream that breaks off), TeacherRefused, Refused.
    """
    arrivals = Arrivals()
    started = time.perf_counter()
    headers, raw = await _sent(provider, request, arrivals)
    latency = time.perf_counter() - started
    name = struck(headers.get("x-request-id", ""))[:200]
    if not _is_stream(headers, raw):
        return Answer(raw, 200, latency, name)
    body, moments = assembled(raw, arrivals)
    first, last = (moments[0] - started, moments[-1] - started) if moments else (None, None)
    return Answer(canonical_json(body), 200, latency, name, first, last)


async def _sent(provider: OpenAIProvider, request: Request, arrivals: Arrivals) -> tuple[Mapping[str, str], bytes]:
    """Headers and bytes. An endpoint that does not know `stream_options` is asked without, from then on."""
    body = {**provider.body(request), "stream": True}
    if provider.streams_usage:
        try:
            wanted = {**body, "stream_options": {"include_usage": True}}
            return await provider.send("POST", "/chat/completions", json.dumps(wanted).encode(), arrivals=arrivals)
        except NoAnswer as failure:
            if failure.status not in (400, 422) or "stream_options" not in failure.detail:
                raise
        provider.streams_usage = False
    return await provider.send("POST", "/chat/completions", json.dumps(body).encode(), arrivals=arrivals)


def _is_stream(headers: Mapping[str, str], raw: bytes) -> bool:
    return "event-stream" in headers.get("content-type", "") or raw.lstrip()[:5] in (b"data:", b"event")


def events(raw: bytes) -> Iterator[tuple[bytes, int]]:
    """(data, bytes up to its end) of each event; comments and other fields are left out."""
    data: list[bytes] = []
    end = 0
    for line in raw.splitlines(keepends=True):
        end += len(line)
        bare = line.rstrip(b"\r\n")
        if bare.startswith(b"data:"):
            data.append(bare[5:].removeprefix(b" "))
        elif not bare and data:
            yield b"\n".join(data), end
            data = []
    if data:
        yield b"\n".join(data), end


def assembled(raw: bytes, arrivals: Arrivals) -> tuple[dict[str, Any], Sequence[float]]:
    """(the chat completion that the events add up to, when each piece with text came).

    An error event is an error body. Raises NoAnswer for a stream without an end: it was cut.
    """
    text, thought, finish, usage, model = list[str](), list[str](), None, None, ""
    moments = []
    done = False
    for data, end in events(raw):
        done = done or data.strip() == DONE
        event = _object(data)
        if event.get("error"):
            return {"error": event["error"]}, ()
        usage, model = event.get("usage") or usage, event.get("model") or model
        choice = _first(event.get("choices"))
        delta = _object_or_empty(choice.get("delta"))
        said, thinks = delta.get("content"), delta.get("reasoning_content") or delta.get("reasoning")
        text += [said] if isinstance(said, str) else []
        thought += [thinks] if isinstance(thinks, str) else []
        if said or thinks:
            moments.append(arrivals.at(end))
        finish = choice.get("finish_reason") or finish
    if finish is None and not done:
        raise NoAnswer("stream_cut", detail=f"after {len(raw):,} bytes")
    message = {"role": "assistant", "content": "".join(text)} | ({"reasoning": "".join(thought)} if thought else {})
    answer = {"index": 0, "message": message, "finish_reason": finish}
    return {"object": "chat.completion", "model": model, "choices": [answer], "usage": usage}, moments


def _object(data: bytes) -> dict[str, Any]:
    try:
        return _object_or_empty(json.loads(data))
    except (ValueError, RecursionError):
        return {}


def _object_or_empty(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _first(choices: Any) -> dict[str, Any]:
    """The first choice; the event with the usage has none."""
    return _object_or_empty(choices[0]) if isinstance(choices, list) and choices else {}
