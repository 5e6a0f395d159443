"""A loopback batch API: files and batches, scripted endings and faults, and its own log of what it bills.

``ending(nth)`` says how the ``nth`` batch (from 0) goes; ``fault(what, nth)`` names a fault of the ``nth`` call (from
1) of one kind: `upload`, `create`, `list`, `look`, `content`. It runs in a thread, so it survives killed clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import time
from dataclasses import dataclass, field

from distill.costs import cost_nano
from tests.fault.hostile import answer_body, usage_of
from tests.fault.loopback import Loopback


@dataclass
class Ending:
    """How a batch goes. Shares of its requests; ``extra`` lines are added to the output as they are."""

    status: str = "completed"
    answered: float = 1.0
    failed: float = 0.0
    error: dict = field(default_factory=lambda: {"status_code": 500, "body": {"error": {"message": "broke"}}})
    extra: tuple[str, ...] = ()
    files: bool = True
    message: str = ""


@dataclass
class Made:
    """A batch on the server."""

    id: str
    tag: str
    ready: float
    ending: Ending
    lines: list[dict]
    created_at: int
    output: str = ""
    errors: str = ""


class BatchServer(Loopback):
    """See the module. A context manager; ``url`` is its base_url."""

    def __init__(self, ending=lambda nth: Ending(), fault=lambda what, nth: "", after_s=0.02):
        self.ending, self.fault, self.after_s = ending, fault, after_s
        self.files: dict[str, bytes] = {}
        self.made: list[Made] = []
        self.billed: list[tuple[str, object]] = []
        self.calls: list[str] = []
        self._names = itertools.count(1)

    def bill(self, price) -> int:
        """What this endpoint would charge, in nano-EUR, at the batch price."""
        return sum(cost_nano(usage, price, batch=True) for _, usage in self.billed)

    def asked(self) -> list[str]:
        """The text of every request that was worked on, in every batch."""
        return [text for text, _ in self.billed]

    async def _serve(self, reader, writer):
        task = asyncio.current_task()
        self._tasks.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                method, path, _ = head.split(" ", 2)
                what, work = self._route(method, path.removeprefix("/v1"), body)
                self.calls.append(what)
                fault = self.fault(what, self.calls.count(what))
                if fault == "hang":
                    await asyncio.sleep(3600)
                if fault and fault != "lost":
                    reply = {
                        "500": (500, "{}"),
                        "429": (429, '{"error": {"message": "slow"}}'),
                        "html": (200, "<html>"),
                    }
                    await self._reply(writer, *reply.get(fault, (int(fault[:3]) if fault[:3].isdigit() else 500, "{}")))
                    continue
                found = work()
                if fault == "lost":
                    break
                await self._reply(writer, *found)
        self._tasks.discard(task)
        with contextlib.suppress(Exception):
            writer.close()

    async def _reply(self, writer, status, text):
        data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
        await writer.drain()

    def _route(self, method, path, body):
        if (method, path) == ("POST", "/files"):
            return "upload", lambda: self._upload(body)
        if (method, path) == ("POST", "/batches"):
            return "create", lambda: self._create(json.loads(body))
        if path.startswith("/batches?"):
            return "list", lambda: self._list(path)
        if path.startswith("/batches/"):
            return "look", lambda: self._look(path.rsplit("/", 1)[1])
        return "content", lambda: (200, self.files[name]) if (name := path.split("/")[2]) in self.files else (404, "{}")

    def _upload(self, body):
        mark = body.split(b"\r\n", 1)[0]
        part = next(p for p in body.split(mark) if b'name="file"' in p)
        name = f"file-{next(self._names)}"
        self.files[name] = part.split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n")
        return 200, json.dumps({"id": name, "object": "file"})

    def _create(self, wanted):
        ending = self.ending(len(self.made))
        lines = [json.loads(line) for line in self.files[wanted["input_file_id"]].splitlines()]
        tag, ready = wanted["metadata"]["alambic_job"], time.monotonic() + self.after_s
        made = Made(f"batch_{len(self.made)}", tag, ready, ending, lines, int(time.time()))
        self.made.append(made)
        self._work(made)
        return 200, self._told(made)

    def _work(self, made):
        """Answer, fail or leave out each request, and bill what was answered."""
        ending, lines = made.ending, made.lines
        done, bad = round(len(lines) * ending.answered), round(len(lines) * ending.failed)
        output = list(ending.extra)
        for line in lines[:done]:
            text = line["body"]["messages"][-1]["content"]
            usage = usage_of(text)
            self.billed.append((text, usage))
            response = {"status_code": 200, "request_id": "r", "body": answer_body(text, usage)}
            output.append(json.dumps({"custom_id": line["custom_id"], "response": response, "error": None}))
        errors = [
            json.dumps({"custom_id": line["custom_id"], "response": ending.error, "error": None})
            for line in lines[done : done + bad]
        ]
        random.Random(len(lines)).shuffle(output)
        if output and ending.files:
            self.files[name := f"file-{next(self._names)}"] = "\n".join(output).encode() + b"\n"
            made.output = name
        if errors:
            self.files[name := f"file-{next(self._names)}"] = "\n".join(errors).encode() + b"\n"
            made.errors = name

    def _told(self, made):
        ended = time.monotonic() >= made.ready
        value = {
            "id": made.id, "object": "batch", "created_at": made.created_at, "metadata": {"alambic_job": made.tag},
            "status": made.ending.status if ended else "in_progress",
        }  # fmt: skip
        if ended:
            value |= {"output_file_id": made.output or None, "error_file_id": made.errors or None}
            if made.ending.message:
                value["errors"] = {"data": [{"code": "x", "message": made.ending.message}]}
        return json.dumps(value)

    def _look(self, name):
        made = next((m for m in self.made if m.id == name), None)
        return (404, "{}") if made is None or made.ending.status == "vanished" else (200, self._told(made))

    def _list(self, path):
        """Newest first, two a page."""
        rows = list(reversed(self.made))
        if "after=" in path:
            names = [m.id for m in rows]
            rows = rows[names.index(path.split("after=")[1]) + 1 :]
        return 200, json.dumps({"data": [json.loads(self._told(m)) for m in rows[:2]], "has_more": len(rows) > 2})
