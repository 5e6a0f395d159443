"""Answers received and not yet committed: unsynced bytes beside the store, which outlive the process.

A commit waits some milliseconds for the disk, and the next calls leave meanwhile. Each answer is written here first,
before anything else is done with it, so a killed process loses no more answers than it had calls in flight. Against a
power cut this promises nothing: what that takes was never acknowledged.

Two files take turns, each overwritten from its start once all of it is committed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from distill.query.attempts import Received

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

HEAD = struct.Struct("<4sQ32s")  # magic, length and SHA-256 of what follows
MAGIC = b"Almb"
TURN = 8 * 1024 * 1024  # bytes after which the other file takes over


@dataclass(slots=True)
class _File:
    handle: int
    end: int = 0
    waiting: set[int] = field(default_factory=set)


class Spool:
    """See the module. ``found``: (request key, time, answer) of everything readable that an earlier process left."""

    def __init__(self, path: Path):
        self._paths = [path.with_name(f"{path.name}-spool{number}") for number in range(2)]
        self.found: list[tuple[str, float, Received]] = []
        for file in self._paths:
            if file.exists():
                self.found += records(file.read_bytes())
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._files = [_File(os.open(file, flags, 0o600)) for file in self._paths]

    def clear(self) -> None:
        """Forget what was found: it is committed."""
        self.found = []
        for file in self._files:
            os.ftruncate(file.handle, 0)

    def keep(self, answers: Sequence[tuple[str, Received]]) -> None:
        """Write down answers with their request keys. A full disk is not told here: the commit will meet it."""
        data = b"".join(_record(key, answer) for key, answer in answers)
        file = self._turn()
        with contextlib.suppress(OSError):
            if os.pwrite(file.handle, data, file.end) == len(data):
                file.end += len(data)
                file.waiting.update(answer.attempt for _, answer in answers)

    def _turn(self) -> _File:
        file, other = self._files
        if not file.waiting:
            file.end = 0
        elif file.end > TURN and not other.waiting:
            self._files.reverse()
            other.end = 0
            return other
        return file

    def committed(self, attempts: Sequence[int]) -> None:
        """These answers are durable elsewhere. Called from the writer's thread; sets make that safe."""
        for file in self._files:
            file.waiting.difference_update(attempts)

    def close(self) -> None:
        """Close the files; they go when nothing in them is waiting."""
        for file, path in zip(self._files, self._paths, strict=True):
            os.close(file.handle)
            if not any(other.waiting for other in self._files):
                path.unlink(missing_ok=True)


def _record(key: str, answer: Received) -> bytes:
    facts = json.dumps([key, time.time(), answer.attempt, answer.status, answer.latency_s, answer.request_id]).encode()
    body = facts + b"\n" + answer.raw
    return HEAD.pack(MAGIC, len(body), hashlib.sha256(body).digest()) + body


def records(data: bytes) -> list[tuple[str, float, Received]]:
    """The whole records at the start of ``data``; what comes after a torn or older one is ignored."""
    found, at = [], 0
    while at + HEAD.size <= len(data):
        magic, length, digest = HEAD.unpack_from(data, at)
        body = data[at + HEAD.size : at + HEAD.size + length]
        if magic != MAGIC or len(body) != length or hashlib.sha256(body).digest() != digest:
            break
        facts, _, raw = body.partition(b"\n")
        key, received, attempt, status, latency, request_id = json.loads(facts)
        found.append((key, received, Received(attempt, raw, status, latency, None, request_id)))
        at += HEAD.size + length
    return found
