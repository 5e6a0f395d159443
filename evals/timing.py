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
from evals import memory, split
from evals.economics import Speed
from evals.meter import Meter, Spent, Window

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from distill.records import Answer, Request

WRITE_EVERY_S = 2.0


class Timed:
    """A provider that is the same in every way, and notes what its calls took."""

    def __init__(self, provider: Any, path: Path, arm: str, held: bool, meter: Meter | None = None):
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
        self._meter, self._window = meter, Window(meter, self._remembered_energy())

    @property
    def plain(self) -> Any:
        """The provider itself: what it is asked is in no measure."""
        return self._provider

    def __getattr__(self, name: str) -> Any:
        return getattr(self._provider, name)

    async def ask(self, requests: Sequence[Request]) -> list[Answer]:
        """What the provider answers."""
        async with self._loading:
            if not self._loaded:
                if self._meter is not None:
                    await asyncio.to_thread(self._meter.settle)  # the machine does nothing yet
                await asyncio.to_thread(getattr, self._provider, "vocab", None)  # loads the weights
                self._loaded = True
                memory.reset_peak()
        if self._in_flight == 0:
            self._since = time.perf_counter()
            self._window.open()
        self._in_flight += 1
        usage: list[Usage] = []
        try:
            answers: list[Answer] = await self._provider.ask(requests)
            usage = [self._provider.parse(answer.raw).usage for answer in answers]
            return answers
        finally:
            self._in_flight -= 1
            self._window.answered(len(usage))
            if self._in_flight == 0:
                self._window.close()
            self._note(usage)

    def _note(self, usage: Sequence[Usage]) -> None:
        now = time.perf_counter()
        total = sum(usage, Usage())
        peak = memory.peak_bytes() if self._local else None
        seconds = now - self._since
        # Calls of an engine in this process follow each other, so that their seconds are their own.
        moments = split.moment(total.prompt, total.completion, seconds) if self._local and usage else ()
        part = Speed(len(usage), total.prompt, total.completion, seconds, int(self.batch_size), peak, moments)
        self._since = now
        self.speed = part if self.speed is None else self.speed + part
        if now - self._written >= WRITE_EVERY_S:
            self._write()

    def _write(self) -> None:
        if self.speed is not None:
            self._window.lap()
            entry: dict[str, Any] = {"of": self._mark, "speed": asdict(self.speed)}
            if self.spent is not None:
                entry["energy"] = self.spent.as_dict()
            write_json(self._path, {**read_object(self._path), self._arm: entry})
        self._written = time.perf_counter()

    @property
    def spent(self) -> Spent | None:
        """The electricity that went with it, where there is a meter."""
        return self._window.spent

    def close(self) -> None:
        """Keep the measure, free what the provider holds."""
        if self._loaded:
            self._write()
        self._provider.close()

    def _remembered(self) -> Speed | None:
        """What an earlier process measured with this engine and this way of asking."""
        entry = read_object(self._path).get(self._arm, {})
        return Speed.read(entry["speed"]) if entry.get("of") == self._mark else None

    def _remembered_energy(self) -> Spent | None:
        entry = read_object(self._path).get(self._arm, {})
        return Spent(**entry["energy"]) if entry.get("of") == self._mark and "energy" in entry else None


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; {} when there is none, or it is broken."""
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError):
        return {}
