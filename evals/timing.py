"""How fast an engine in this process answers: measured batch by batch, kept on disk for the process that resumes."""

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

    from distill.providers._base import Provider
    from distill.records import Answer, Request


class Timed:
    """A provider that is the same in every way, and notes what each batch took. Loading the weights is not counted."""

    def __init__(self, provider: Provider, path: Path, arm: str, held: bool):
        self._provider, self._path, self._arm = provider, path, arm
        self._mark = hashlib.sha256(canonical_json([provider.identity(), held])).hexdigest()
        self._loaded = False
        self.speed = self._remembered()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._provider, name)

    async def ask(self, requests: Sequence[Request]) -> list[Answer]:
        """What the provider answers."""
        if not self._loaded:
            await asyncio.to_thread(getattr, self._provider, "vocab", None)  # loads the weights
            self._loaded = True
            memory.reset_peak()
        started = time.perf_counter()
        answers = await self._provider.ask(requests)
        self._note(time.perf_counter() - started, [self._provider.parse(answer.raw).usage for answer in answers])
        return answers

    def _note(self, seconds: float, usage: Sequence[Usage]) -> None:
        total = sum(usage, Usage())
        part = Speed(
            len(usage), total.prompt, total.completion, seconds, int(self._provider.batch_size), memory.peak_bytes()
        )
        self.speed = part if self.speed is None else self.speed + part
        write_json(self._path, {**_read(self._path), self._arm: {"of": self._mark, "speed": asdict(self.speed)}})

    def _remembered(self) -> Speed | None:
        """What an earlier process measured with this engine and this way of asking."""
        entry = _read(self._path).get(self._arm, {})
        return Speed(**entry["speed"]) if entry.get("of") == self._mark else None


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError):
        return {}
