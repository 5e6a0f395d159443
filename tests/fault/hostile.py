"""A teacher that misbehaves: raw asyncio sockets on loopback, scripted faults, its own log of billable calls.

It runs in a thread of the test process, so it survives the client processes that a test kills. ``script(text, nth)``
names the fault for the ``nth`` call (from 1) whose last message is ``text``. The log is what a provider would bill.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import socket
import struct
import time
from dataclasses import dataclass, field

from distill.costs import cost_nano
from distill.records import Usage
from tests.fault.loopback import Loopback


@dataclass
class Call:
    """One request as the server saw it. ``billed``: this call costs money. ``written``: the answer left in full."""

    text: str
    fault: str
    billed: bool
    usage: Usage
    at: float = field(default_factory=time.monotonic)
    written: bool = False
    body: dict = field(default_factory=dict)


UNBILLED = {"429", "429_date", "429_ms", "500", "503", "401", "403", "404", "400", "quota", "redirect", "reset_before"}
STATUS = {
    "429": (429, {"Retry-After": "0.2"}, {"error": {"message": "too many requests", "type": "rate_limit"}}),
    "429_ms": (429, {"Retry-After-Ms": "150"}, {"error": {"message": "too many requests"}}),
    "429_silent": (429, {}, {"error": {"message": "too many requests"}}),
    "429_long": (429, {"Retry-After": "86400"}, {"error": {"message": "come back tomorrow"}}),
    "429_past": (429, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, {"error": {"message": "too many requests"}}),
    "quota": (429, {}, {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}),
    "500": (500, {}, {"error": {"message": "internal"}}),
    "502": (502, {}, "<html>bad gateway</html>"),
    "503": (503, {}, {"error": {"message": "overloaded"}}),
    "400": (400, {}, {"error": {"message": "context too long"}}),
    "404": (404, {}, {"error": {"message": "no such model"}}),
    "redirect": (307, {"Location": "http://127.0.0.1:1/v1/chat/completions"}, ""),
}
UNBILLED |= {name for name, (status, _, _) in STATUS.items() if status != 502}


def usage_of(text: str) -> Usage:
    """A plausible usage, below what the client reserves."""
    return Usage(prompt=len(text.encode()) // 4 + 5, completion=7)


def answer_body(text: str, counted: Usage, **changes) -> dict:
    """A normal chat completion for ``text``."""
    body = {
        "id": "x",
        "object": "chat.completion",
        "model": "hostile-1",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": f"answer to {text}"}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": counted.prompt, "completion_tokens": counted.completion},
    }
    body["choices"][0] |= changes.pop("choice", {})
    return body | changes


BODIES = {
    "error_body": lambda t, u, k: json.dumps({"error": {"message": f"oops {k}"}}),
    "html": lambda t, u, k: "<!DOCTYPE html><html>proxy</html>",
    "truncated_json": lambda t, u, k: json.dumps(answer_body(t, u))[:60],
    "empty_body": lambda t, u, k: "",
    "a_list": lambda t, u, k: "[1, 2]",
    "deep": lambda t, u, k: "[" * 100_000,
    "no_choices": lambda t, u, k: json.dumps(answer_body(t, u, choices=[])),
    "choices_null": lambda t, u, k: json.dumps(answer_body(t, u, choices=None)),
    "null_content": lambda t, u, k: json.dumps(answer_body(t, u, choice={"message": {"content": None}})),
    "empty_text": lambda t, u, k: json.dumps(answer_body(t, u, choice={"message": {"content": " \n"}})),
    "length": lambda t, u, k: json.dumps(answer_body(t, u, choice={"finish_reason": "length"})),
    "content_filter": lambda t, u, k: json.dumps(answer_body(t, u, choice={"finish_reason": "content_filter"})),
    "no_usage": lambda t, u, k: json.dumps(answer_body(t, u, usage=None)),
    "negative_usage": lambda t, u, k: json.dumps(
        answer_body(t, u, usage={"prompt_tokens": -5, "completion_tokens": -5})
    ),
    "text_usage": lambda t, u, k: json.dumps(
        answer_body(t, u, usage={"prompt_tokens": "NaN", "completion_tokens": []})
    ),
    "huge_usage": lambda t, u, k: json.dumps(
        answer_body(t, u, usage={"prompt_tokens": 10**9, "completion_tokens": 10**9})
    ),
    "tenfold_usage": lambda t, u, k: json.dumps(
        answer_body(t, u, usage={"prompt_tokens": 2 * len(t.encode()), "completion_tokens": 7})
    ),
    "nan_logprobs": lambda t, u, k: json.dumps(
        answer_body(
            t, u, choice={"logprobs": {"content": [{"token": "a", "logprob": float("nan"), "top_logprobs": []}]}}
        )
    ),
    "surrogate": lambda t, u, k: json.dumps(answer_body(t, u)).replace("answer to", "\\ud800 \\u0000 answer to"),
    "echo_key": lambda t, u, k: json.dumps(answer_body(t, u, choice={"message": {"content": f"your key is {k}"}})),
    "an_object": lambda t, u, k: json.dumps(answer_body(t, u, choice={"message": {"content": '{"answer": "yes"}'}})),
    "other_model": lambda t, u, k: json.dumps(answer_body(t, u, model="hostile-2")),
    "one_choice": lambda t, u, k: json.dumps(answer_body(t, u, choice={"message": {"content": "red"}})),
    "big": lambda t, u, k: " " * (20 * 1024 * 1024),
}


class HostileTeacher(Loopback):
    """See the module. A context manager; ``url`` is its base_url."""

    backlog = 4096

    def __init__(self, script=lambda text, nth: "ok", latency_s=0.0, key=None, port=0, able=None):
        self.script, self.latency_s, self.key, self.port = script, latency_s, key, port
        self.able = {"n": True, "seed": True, "schema": False, "top_logprobs": 0} | (able or {})
        self.calls: list[Call] = []
        self.in_flight = self.most_in_flight = 0
        self.limiter = None
        self._counts: dict[str, int] = {}

    async def _serve(self, reader, writer):
        task = asyncio.current_task()
        self._tasks.add(task)
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, TimeoutError):
            pass
        finally:
            self._tasks.discard(task)
            with contextlib.suppress(Exception):
                writer.close()

    async def _one(self, reader, writer) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        headers = {
            name.lower(): value for name, value in (line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
        }
        body = json.loads(await reader.readexactly(int(headers["content-length"])))
        text = body["messages"][-1]["content"]
        self._counts[text] = nth = self._counts.get(text, 0) + 1
        fault = self.script(text, nth)
        if self.limiter is not None and fault == "ok" and not self.limiter.take():
            fault = "429_limit"
        if self.key is not None and headers.get("authorization") != f"Bearer {self.key}":
            fault = "401"
        usage = usage_of(text)
        if fault == "ok" and self._cannot(body):
            fault = "400"
        if (wanted := body.get("n", 1)) > 1 and fault != "ignores_n" and self.able["n"]:
            usage = Usage(usage.prompt, wanted * usage.completion)
        call = Call(text, fault, fault not in UNBILLED and fault != "429_limit", usage, body=body)
        self.calls.append(call)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return await self._answer(call, writer, headers.get("authorization", "").removeprefix("Bearer "))
        finally:
            self.in_flight -= 1

    async def _answer(self, call, writer, key) -> bool:
        text, fault, usage = call.text, call.fault, call.usage
        if fault == "reset_before":
            return _reset(writer)
        if self.latency_s:
            await asyncio.sleep(self.latency_s)
        if fault == "hang":
            await asyncio.sleep(3600)
        if fault == "reset":
            return _reset(writer)
        if fault == "429_limit":
            return await _send(
                writer, 429, self.limiter.headers() | {"Retry-After": "1"}, {"error": {"message": "slow"}}
            )
        if fault in (endings := STATUS | _echoes(key)):
            status, extra, body = endings[fault]
            return await _send(writer, status, extra, body)
        content = BODIES[fault](text, usage, key) if fault in BODIES else json.dumps(self._body(call))
        data = content.encode("utf-8", "surrogatepass")
        if fault == "gzip_bomb":
            data = gzip.compress(b" " * (64 * 1024 * 1024), 1)
            return await _send(writer, 200, {"Content-Encoding": "gzip"}, data)
        if fault == "short_body":
            writer.write(_head(200, {}, len(data) + 50) + data)
            await writer.drain()
            return False
        if fault == "slow_loris":
            writer.write(_head(200, {}, len(data)))
            for byte in data:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.2)
            return True
        extra = self.limiter.headers() if self.limiter is not None else {}
        if fault == "echo_head":
            extra = {"x-request-id": f"id-of-{key}", "x-ratelimit-limit": key}
        kept = await _send(writer, 200, extra, data)
        call.written = True
        return kept

    def _cannot(self, body) -> bool:
        """True for a request that this teacher refuses, as some do, rather than ignore the part they lack."""
        if not self.able.get("strict"):
            return False
        return (
            body.get("top_logprobs", 0) > self.able["top_logprobs"]
            or ("seed" in body and not self.able["seed"])
            or ("response_format" in body and not self.able["schema"])
        )

    def _body(self, call) -> dict:
        """A good answer, as far as this teacher is able."""
        body, asked = answer_body(call.text, call.usage), call.body
        choice = body["choices"][0]
        if "response_format" in asked and self.able["schema"]:
            shape = asked["response_format"]["json_schema"]["schema"]["properties"]
            value = {name: part.get("enum", ["x"])[0] for name, part in shape.items()}
            choice["message"] = choice["message"] | {"content": json.dumps(value)}
        if k := min(asked.get("top_logprobs", 0), self.able["top_logprobs"]):
            tops = [{"token": f"t{n}", "logprob": -0.1 - n} for n in range(k)]
            choice["logprobs"] = {"content": [{"token": "t0", "logprob": -0.1, "top_logprobs": tops}]}
        if (wanted := asked.get("n", 1)) > 1 and call.fault != "ignores_n" and self.able["n"]:
            wanted -= call.fault == "one_too_few"
            body["choices"] = [choice | {"index": number} for number in range(wanted)]
        return body

    # -- what the test compares -----------------------------------------------------------------------------

    def sends(self, text: str | None = None) -> int:
        """Calls seen, all or for one text."""
        return len([c for c in self.calls if text is None or c.text == text])

    def bill(self, price) -> int:
        """What this teacher would charge, in nano-EUR."""
        return sum(cost_nano(call.usage, price) for call in self.calls if call.billed)


class Limiter:
    """A token bucket that tells its state in x-ratelimit headers."""

    def __init__(self, per_minute: int, burst: int):
        self.per_minute, self.burst = per_minute, burst
        self.tokens, self.at = float(burst), time.monotonic()

    def take(self) -> bool:
        now = time.monotonic()
        self.tokens = min(self.burst, self.tokens + (now - self.at) * self.per_minute / 60)
        self.at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True

    def headers(self) -> dict:
        return {
            "x-ratelimit-limit-requests": str(self.per_minute),
            "x-ratelimit-remaining-requests": str(int(self.tokens)),
        }


def _echoes(key) -> dict:
    """Refusals that repeat the key they were sent."""
    body = {"error": {"message": f"Incorrect API key provided: Bearer {key}"}}
    codes = {"401": 401, "400_echo": 400, "500_echo": 500, "redirect_echo": 307}
    return {name: (code, {"Location": f"http://x/{key}"}, body) for name, code in codes.items()}


def _reset(writer) -> bool:
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False


def _head(status, headers, length) -> bytes:
    lines = [f"HTTP/1.1 {status} X", "Content-Type: application/json", f"Content-Length: {length}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def _send(writer, status, headers, body) -> bool:
    data = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
    writer.write(_head(status, headers, len(data)) + data)
    await writer.drain()
    return True
