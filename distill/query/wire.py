"""A teacher on loopback that keeps its own bill, and the provider that asks it: the other side of the crash test.

The teacher runs in the process that kills, so its log outlives every client. One connection per client, one JSON line
per call: ``[number, text]`` out, ``[number, answer]`` back.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from distill.providers._base import Capabilities, NoAnswer, chat_json, parse_chat
from distill.records import Answer, Completion, Usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distill.records import Request

LINE = 2**24


def usage_of(text: str) -> Usage:
    """What the teacher counts for ``text``: below what the client reserves, different from text to text."""
    return Usage(prompt=len(text.encode()) // 4 + 5, completion=24 + len(text) % 5)


@dataclass(frozen=True, slots=True)
class Call:
    """A call that the teacher bills: its text, and in which life of the client it came."""

    text: str
    life: int


class Teacher:
    """A context manager; ``port`` is where it listens, ``calls`` what it bills. ``life`` is set by who kills."""

    def __init__(self, latency_s: float = 0.004, answer_bytes: int = 200):
        self.latency_s, self.answer_bytes = latency_s, answer_bytes
        self.calls: list[Call] = []
        self.life = 0
        self._ready = threading.Event()

    def __enter__(self) -> Teacher:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=LINE)
        self.port: int = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        life = self.life
        answers: set[asyncio.Task[None]] = set()
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            while line := await reader.readline():
                number, text = json.loads(line)
                self.calls.append(Call(text, life))
                task = asyncio.create_task(self._answer(writer, number, text))
                answers.add(task)
                task.add_done_callback(answers.discard)
        for task in answers:
            task.cancel()
        writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, number: int, text: str) -> None:
        await asyncio.sleep(self.latency_s)
        body = chat_json(f"answer to {text} ".ljust(self.answer_bytes, "x"), usage_of(text), "wire-1").decode()
        if not writer.is_closing():  # its client may be dead
            writer.write(json.dumps([number, body]).encode() + b"\n")


class Wire:
    """The provider: a paid model behind one socket."""

    batch_size = 1
    capabilities = Capabilities(paid=True)

    def __init__(self, port: int, concurrency: int = 16):
        self.config = SimpleNamespace(model="wire-1", concurrency=concurrency)
        self._port = port
        self._writer: asyncio.StreamWriter | None = None
        self._waiting: dict[int, asyncio.Future[str]] = {}
        self._number = 0
        self._opening = asyncio.Lock()

    def identity(self) -> dict[str, Any]:
        """The same on every port: a teacher that comes back elsewhere is the same teacher."""
        return {"kind": "wire", "model": "wire-1"}

    async def ask(self, requests: Sequence[Request]) -> list[Answer]:
        """One line out, one line back."""
        (request,) = requests
        async with self._opening:
            if self._writer is None:
                reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=LINE)
                self._reading = asyncio.create_task(self._read(reader))
        self._number += 1
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting[self._number] = future
        self._writer.write(json.dumps([self._number, request.messages[-1].content]).encode() + b"\n")
        return [Answer((await future).encode(), 200, None, "")]

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            number, body = json.loads(line)
            self._waiting.pop(number).set_result(body)
        for future in self._waiting.values():
            future.set_exception(NoAnswer("connection_lost"))

    def parse(self, raw: bytes) -> Completion:
        """A chat completion."""
        return parse_chat(raw)

    async def aclose(self) -> None:
        """Close the connection of this event loop."""
        if self._writer is not None:
            self._reading.cancel()
            self._writer.close()
            self._writer = None

    def close(self) -> None:
        """Nothing is left open."""
