"""What a person sees while it works: rich bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from distill.errors import struck

if TYPE_CHECKING:
    from collections.abc import Iterator

PLAIN_EVERY_S = 10.0


def say(line: str) -> None:
    """One line on stderr, flushed. Results go to stdout; what happens on the way goes here."""
    if os.environ.get("RANK", "0") == "0":  # of several processes, the first speaks
        print(struck(line), file=sys.stderr, flush=True)  # noqa: T201


class Progress:
    """A running count. ``advance`` may carry facts to show, for example ``loss=0.412``."""

    every_s = PLAIN_EVERY_S

    def __init__(self, title: str, total: float | None, unit: str):
        self.title, self.total, self.unit = title, total, unit
        self.done = 0.0
        self.started = time.monotonic()
        self._said = self.started
        self._first = 0.0

    def due(self, amount: float = 1) -> bool:
        """True when the next ``advance`` is shown: only then are its facts worth working out."""
        ends = self.total is not None and self.done + amount >= self.total
        return ends or time.monotonic() - self._said >= self.every_s

    def advance(self, amount: float = 1, **facts: object) -> None:
        """Count ``amount`` more units."""
        due = self.due(amount)
        self.done += amount
        if due:
            self._said = time.monotonic()
            self._show(facts)

    def _show(self, facts: dict[str, object]) -> None:
        say(f"{self.title}: {self.status(facts)}")

    def resume_at(self, done: float) -> None:
        """Start the count at ``done``: work that an earlier process did is not part of the rate."""
        self.done = self._first = done

    def status(self, facts: dict[str, object]) -> str:
        """`120/400 prompts, 3.1/s, 90 s left, loss 0.41`."""
        elapsed = max(time.monotonic() - self.started, 1e-9)
        rate = (self.done - self._first) / elapsed
        shown = f"{self.done:g}/{self.total:g}" if self.total is not None else f"{self.done:g}"
        parts = [f"{shown} {self.unit}", f"{rate:.3g}/s"]
        if self.total is not None and rate > 0 and self.done < self.total:
            parts.append(f"{(self.total - self.done) / rate:.0f} s left")
        parts += [f"{name} {value}" for name, value in facts.items()]
        return ", ".join(parts)


class _RichProgress(Progress):
    every_s = 0.1

    def __init__(self, title: str, total: float | None, unit: str, bar: object, task: object):
        super().__init__(title, total, unit)
        self._bar, self._task = bar, task

    def _show(self, facts: dict[str, object]) -> None:
        self._bar.update(self._task, completed=self.done, status=self.status(facts))  # type: ignore[attr-defined]

    def resume_at(self, done: float) -> None:
        super().resume_at(done)
        self._bar.update(self._task, completed=done)  # type: ignore[attr-defined]


@contextmanager
def progress(title: str, total: float | None, unit: str) -> Iterator[Progress]:
    """Count something to ``total`` (None = unknown) in ``unit``."""
    if not sys.stderr.isatty():
        yield Progress(title, total, unit)
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar
    from rich.table import Column

    # A narrow terminal loses the bar first, then the end of the line, never the title.
    columns = (
        TextColumn("{task.description}", table_column=Column(no_wrap=True, min_width=len(title))),
        BarColumn(bar_width=None, table_column=Column(max_width=28, ratio=1)),
        TextColumn("{task.fields[status]}", table_column=Column(no_wrap=True)),
    )
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total, status="")
        yield _RichProgress(title, total, unit, bar, task)
