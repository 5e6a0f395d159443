"""Electricity of the time in which requests are in flight, as this machine's counters have it.

The counters know the whole machine, not one program: what else runs is in the figure. The idle power, taken once before
the first request, is there to be subtracted in a second figure.
"""

from __future__ import annotations

import ipaddress
import threading
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from distill.catalog.route import route_of
from distill.counters import Counters

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from types import TracebackType

IDLE_S = 5.0


@dataclass(frozen=True, slots=True)
class Spent:
    """Joules of so many requests. ``idle_j``: what the idle machine would have taken meanwhile. None: unknown."""

    requests: int
    seconds: float
    joules: float | None
    idle_j: float | None

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.requests + other.requests,
            self.seconds + other.seconds,
            _sum(self.joules, other.joules),
            _sum(self.idle_j, other.idle_j),
        )

    @property
    def wh_per_1000(self) -> float | None:
        """Wh for a thousand requests."""
        return None if self.joules is None or not self.requests else self.joules / self.requests / 3.6

    @property
    def above_idle_wh_per_1000(self) -> float | None:
        """The same without what the idle machine takes."""
        if self.joules is None or self.idle_j is None or not self.requests:
            return None
        return (self.joules - self.idle_j) / self.requests / 3.6

    @property
    def idle_w(self) -> float | None:
        """Mean power of the idle machine."""
        return None if self.idle_j is None or not self.seconds else self.idle_j / self.seconds

    def as_dict(self) -> dict[str, Any]:
        """The fields."""
        return asdict(self)


def _sum(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other


class Meter:
    """This machine's counters and its idle power. A context manager."""

    def __init__(self, counters: Counters | None = None, idle_s: float = IDLE_S):
        self.counters = Counters() if counters is None else counters
        self.idle_w: float | None = None
        self._idle_s = idle_s
        self._first = threading.Lock()
        self._settled = False

    def __enter__(self) -> Meter:
        self.counters.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.counters.__exit__()

    def settle(self) -> None:
        """Take the idle power, once: blocks for some seconds in which nothing is asked."""
        with self._first:
            if self._settled:
                return
            self._settled = True
            since, before = time.perf_counter(), self.joules()
            if before is None:
                return
            time.sleep(self._idle_s)
            now = self.joules()
            if now is not None:
                self.idle_w = (now - before) / (time.perf_counter() - since)

    def joules(self) -> float | None:
        """Taken so far; None where a part that matters cannot be read."""
        return self.counters.joules() if self.counters.whole else None


class Window:
    """Adds up what was taken while it was open. Without a meter it does nothing."""

    def __init__(self, meter: Meter | None, before: Spent | None = None):
        self._meter, self.spent = meter, before
        self._answered = 0
        self._since: float | None = None
        self._from: float | None = None

    def open(self) -> None:
        """Requests are in flight from now on."""
        if self._meter is not None:
            self._since, self._from = time.perf_counter(), self._meter.joules()

    def answered(self, count: int) -> None:
        """So many requests came back."""
        self._answered += count

    def close(self) -> None:
        """None is in flight any more."""
        if self._meter is None or self._since is None:
            return
        now, seconds = self._meter.joules(), time.perf_counter() - self._since
        joules = None if now is None or self._from is None else now - self._from
        idle = None if self._meter.idle_w is None else self._meter.idle_w * seconds
        part = Spent(self._answered, seconds, joules, idle)
        self.spent = part if self.spent is None else self.spent + part
        self._since, self._answered = None, 0

    def lap(self) -> None:
        """Take into account what there is so far."""
        if self._since is not None:
            self.close()
            self.open()


def opened(wanted: bool) -> AbstractContextManager[Meter | None]:
    """A meter where electricity is to be measured."""
    return Meter() if wanted else nullcontext()


def is_here(settings: Any) -> bool:
    """Whether a provider's model runs on this machine: in this process, or behind a server on loopback."""
    route = route_of(settings)
    if route.kind == "process":
        return True
    try:
        return route.host == "localhost" or ipaddress.ip_address(route.host).is_loopback
    except ValueError:
        return False
