"""How fast an engine answers: measured call by call, kept on disk for the process that resumes.

Time in which at least one call is in flight counts once, however many there are. Loading weights does not count.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from distill.artifacts import write_json
from distill.records import Usage, canonical_json
from evals import memory
from evals.economics import Speed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from distill.records import Answer, Request

WRITE_EVERY_S = 2.0


class Timed:
    """A provider that is the same in every way, and notes what its calls took."""

    def __init__(self, provider: Any, path: Path, arm: str, held: bool):
        self._provider, self._path, self._arm = provider, path, arm
        self.batch_size: int = provider.batch_size
        self.capabilities = provider.capabilities
        self._mark = hashlib.sha256(canonical_json([provider.identity(), held])).hexdigest()
        self._loading = asyncio.Lock()
        self._loaded = False
        self._local = hasattr(type(provider), "vocab")  # weights in this process
        self._in_flight = 0
        self._since = self._written = 0.0
        self.speed = self._remembered()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._provider, name)

    async def ask(self, requests: Sequence[Request]) -> list[Answer]:
        """What the provider answers."""
        async with self._loading:
            if not self._loaded:
                await asyncio.to_thread(getattr, self._provider, "vocab", None)  # loads the weights
                self._loaded = True
                memory.reset_peak()
        if self._in_flight == 0:
            self._since = time.perf_counter()
        self._in_flight += 1
        usage: list[Usage] = []
        try:
            answers: list[Answer] = await self._provider.ask(requests)
            usage = [self._provider.parse(answer.raw).usage for answer in answers]
            return answers
        finally:
            self._in_flight -= 1
            self._note(usage)

    def _note(self, usage: Sequence[Usage]) -> None:
        now = time.perf_counter()
        total = sum(usage, Usage())
        peak = memory.peak_bytes() if self._local else None
        part = Speed(len(usage), total.prompt, total.completion, now - self._since, int(self.batch_size), peak)
        self._since = now
        self.speed = part if self.speed is None else self.speed + part
        if now - self._written >= WRITE_EVERY_S:
            self._write()

    def _write(self) -> None:
        if self.speed is not None:
            write_json(self._path, {**_read(self._path), self._arm: {"of": self._mark, "speed": asdict(self.speed)}})
        self._written = time.perf_counter()

    def close(self) -> None:
        """Keep the measure, free what the provider holds."""
        if self._loaded:
            self._write()
        self._provider.close()

    def _remembered(self) -> Speed | None:
        """What an earlier process measured with this engine and this way of asking."""
        entry = _read(self._path).get(self._arm, {})
        return Speed(**entry["speed"]) if entry.get("of") == self._mark else None


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError):
        return {}
