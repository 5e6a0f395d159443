"""How hard a teacher is asked: one lane per endpoint, with AIMD concurrency, pauses, pacing and circuit breakers.

Only monotonic time is used: nothing here reads the wall clock.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distill.providers._base import Pace


OUTAGE = 10  # failures in a row that are the endpoint's, not the request's


@dataclass(frozen=True)
class Policy:
    """Retries and limits. Seconds are wall time."""

    max_attempts: int = 4
    """Sends per request that were answered with a failure, or not at all."""
    timeout_s: float | None = None
    """One send may take this long, however slowly bytes trickle in. None: an engine in this process."""
    deadline_s: float | None = None
    """First send to last answer of one request, pauses of the whole lane not counted."""
    retry_uncertain: int = 1
    """Sends repeated although the first may be billed (no answer came)."""
    backoff_s: float = 0.5
    """Wait before the second attempt; doubled each time, drawn at random below that."""
    backoff_cap_s: float = 30.0
    """Longest such wait."""
    retry_after_cap_s: float = 600.0
    """A teacher that asks for a longer pause is unavailable."""
    patience_s: float = 120.0
    """A lane without any answer for this long, though asked, is unavailable."""
    throttle_limit_s: float = 900.0
    """The same, pauses that the teacher asked for included."""
    grace_s: float = 20.0
    """After SIGTERM: how long calls in flight may still end."""
    breaker_window: int = 200
    """A paid teacher is judged by this many last answers ..."""
    breaker_rate: float = 0.8
    """... and stopped when more than this share of them is unusable."""
    breaker_failures: int = 25
    """Sends in a row without an answer, each perhaps billed, that stop the run."""

    @classmethod
    def of(cls, config: Any) -> Policy:
        """The defaults, with what the provider's configuration says."""
        named = ("max_attempts", "timeout_s", "deadline_s")
        return replace(cls(), **{name: getattr(config, name) for name in named if hasattr(config, name)})

    def backoff(self, attempt: int) -> float:
        """Seconds before attempt ``attempt`` + 1, with full jitter."""
        return random.uniform(0, min(self.backoff_cap_s, self.backoff_s * 2 ** (attempt - 1)))


class Lane:
    """What is allowed to be in flight to one endpoint now."""

    def __init__(self, most: int, policy: Policy):
        self.most, self.policy = most, policy
        self.limit = float(most)
        self.in_flight = 0
        self.scouting = False
        """One at a time until the first usable answer."""
        self.paused_until = 0.0
        self.paused_s = 0.0
        self.failures = 0
        self.throttled = 0
        self._cut_at = 0.0
        self._waiting_since: float | None = None
        self._paused_before = 0.0
        self._last: deque[bool] = deque(maxlen=policy.breaker_window)
        self._pace: Pace | None = None
        self._pace_at = 0.0
        self._tokens = 0.0
        self._bucket = 1
        self._left: deque[float] = deque(maxlen=most)
        """When the last calls left."""

    # -- may a call leave? --------------------------------------------------------------------------------

    def wait_s(self, now: float) -> float | None:
        """0.0 = a call may leave now; seconds until one may; None = when a call in flight has ended."""
        if self.in_flight >= (1 if self.scouting else max(1, int(self.limit))):
            return None
        if now < self.paused_until:
            return self.paused_until - now
        return self._pace_wait(now)

    def leave(self, now: float) -> None:
        """A call leaves."""
        self.in_flight += 1
        self._left.append(now)
        self._tokens -= 1

    def back(self) -> None:
        """It ended."""
        self.in_flight -= 1

    # -- what came back -----------------------------------------------------------------------------------

    def answered(self, usable: bool) -> None:
        """An answer came: one more may be in flight for each full round of answers."""
        self.limit = min(float(self.most), self.limit + 1 / max(self.limit, 1.0))
        self.failures = 0
        self._waiting_since = None
        self._last.append(usable)

    def failed(self, now: float) -> bool:
        """A call failed or brought no answer. From OUTAGE in a row on the lane pauses; True when that begins."""
        self.failures += 1
        self._silent(now)
        if self.failures >= OUTAGE:
            self.paused_until = max(self.paused_until, now + self.policy.backoff(min(self.failures - OUTAGE + 1, 8)))
        return self.failures == OUTAGE

    def _silent(self, now: float) -> None:
        if self._waiting_since is None:
            self._waiting_since, self._paused_before = now, self.paused_s

    def throttle(self, wait: float | None, now: float) -> None:
        """The server said "too many": the whole lane pauses, and concurrency is cut once per pause."""
        self.throttled += 1
        self._silent(now)
        if now >= self._cut_at:
            self.limit = max(1.0, min(self.limit, float(self.in_flight)) * 0.7)
            self._cut_at = now + max(wait or 0.0, 1.0)
        self.pause(wait if wait is not None else self.policy.backoff(min(self.throttled, 6)), now)

    def pause(self, seconds: float, now: float) -> None:
        """Nothing leaves for ``seconds``; they do not count against any request's deadline."""
        until = now + seconds
        self.paused_s += max(0.0, until - max(self.paused_until, now))
        self.paused_until = max(self.paused_until, until)

    # -- breakers -----------------------------------------------------------------------------------------

    def silent_s(self, now: float) -> float:
        """Seconds since the first of the failures that no answer has interrupted."""
        return now - self._waiting_since if self._waiting_since is not None else 0.0

    def gone(self, now: float) -> bool:
        """True when the teacher has been silent for too long; pauses it asked for have their own limit."""
        silent = self.silent_s(now)
        if silent > self.policy.throttle_limit_s:
            return True
        return silent - (self.paused_s - self._paused_before if silent else 0.0) > self.policy.patience_s

    def unusable(self) -> float:
        """Share of unusable answers among the last ones; 0 until half the window is full."""
        if len(self._last) * 2 < self.policy.breaker_window:
            return 0.0
        return 1 - sum(self._last) / len(self._last)

    # -- pacing by what the server says is left ------------------------------------------------------------

    def told(self, pace: Pace | None, now: float, took: float) -> None:
        """The server's own count of what is left, with an answer that ``took`` so many seconds.

        At first, calls may be on their way that are not in it yet, those of the last half of that time: they are taken
        off. (Taking off all that are in flight would leave a whole round of the server's allowance unused.)
        No more is saved up while nothing leaves than the server ever said was left: its bucket may be small.
        """
        if pace is None:
            return
        if self._pace is not None and self._pace.limit == pace.limit:
            self._refill(now)
            self._tokens = min(self._tokens, float(pace.remaining))
        else:
            self._tokens = float(pace.remaining - sum(left > now - took / 2 for left in self._left))
            self._bucket = 1
        self._pace, self._pace_at = pace, now
        self._bucket = max(self._bucket, pace.remaining)

    def _refill(self, now: float) -> None:
        assert self._pace is not None
        self._tokens = min(self._tokens + (now - self._pace_at) * self._pace.per_s, float(self._bucket))
        self._pace_at = now

    def _pace_wait(self, now: float) -> float:
        if self._pace is None:
            return 0.0
        self._refill(now)
        return 0.0 if self._tokens >= 1 else (1 - self._tokens) / max(self._pace.per_s, 1e-6)
