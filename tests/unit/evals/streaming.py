"""A loopback endpoint that streams tokens at a known pace, and counts who is there at the same time."""

from __future__ import annotations

import asyncio
import json

from tests.fault.loopback import Loopback

FIRST_S, NEXT_S, TOKENS = 0.2, 0.1, 5


class Streaming(Loopback):
    """``first_s`` before the first token, ``next_s`` before each further one; or ``script``: raw events and pauses."""

    def __init__(self, first_s=0.0, next_s=0.0, tokens=TOKENS, together=0, broken_every=0, script=None, status=None):
        self.first_s, self.next_s, self.tokens = first_s, next_s, tokens
        self.together, self.broken_every, self.script, self.status = together, broken_every, script, status
        self.bodies, self.heads = [], []
        self.here = self.most = 0
        self._waiting = []

    async def _serve(self, reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                headers = dict(line.lower().split(": ", 1) for line in head.decode().splitlines() if ": " in line)
                self.heads.append(head.decode())
                self.bodies.append(json.loads(await reader.readexactly(int(headers["content-length"]))))
                self.here += 1
                self.most = max(self.most, self.here)
                try:
                    await self._answer(writer, self.bodies[-1], len(self.bodies))
                finally:
                    self.here -= 1
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            pass
        finally:
            writer.close()

    async def _answer(self, writer, body, number):
        if self.together:
            await self._meet()
        if self.status and (refusal := self.status(body)):
            await _whole(writer, *refusal)
        elif self.broken_every and number % self.broken_every == 0:
            await _whole(writer, 500, {"error": {"message": "no"}})
        elif not body.get("stream"):
            await _whole(writer, 200, _plain(self.tokens))
        else:
            await self._stream(writer, body)

    async def _stream(self, writer, body):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for data in self.script if self.script is not None else self._events(body):
            if isinstance(data, float):
                await writer.drain()
                await asyncio.sleep(data)
                continue
            writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    def _events(self, body):
        yield b": welcome\n\n"
        yield event({"choices": [{"delta": {"role": "assistant", "content": ""}}]})
        for number in range(self.tokens):
            yield self.first_s if number == 0 else self.next_s
            yield event({"model": "m", "choices": [{"delta": {"content": f"w{number} "}}]})
        yield event({"choices": [{"delta": {}, "finish_reason": "stop"}]})
        if body.get("stream_options", {}).get("include_usage"):
            yield event({"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": self.tokens}})
        yield b"data: [DONE]\n\n"

    async def _meet(self):
        """Wait until as many are here as should be; a client with fewer in flight waits for ever."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        if len(self._waiting) == self.together:
            waiting, self._waiting = self._waiting, []
            for other in waiting:
                other.set_result(None)
        async with asyncio.timeout(20):
            await turn


def event(value):
    """One server-sent event."""
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def _plain(tokens):
    message = {"role": "assistant", "content": "w " * tokens}
    usage = {"prompt_tokens": 11, "completion_tokens": tokens}
    return {"model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}


async def _whole(writer, status, value):
    raw = json.dumps(value).encode()
    writer.write(
        f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n".encode()
    )
    writer.write(raw)
    await writer.drain()
