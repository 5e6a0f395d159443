"""When the one-off bill is paid back: in requests, and in requests a month on machines that are always on.

Money is EUR, prices are per request. Unknown stays None; `never` is said, not implied by a missing number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill.costs import HOURS_PER_MONTH

if TYPE_CHECKING:
    from evals.stats import Estimate

POINTS = 41
REACH = 3.0
"""The curve ends at this many times the break-even."""


@dataclass(frozen=True, slots=True)
class Hosting:
    """Machines of one's own that are paid whether they work or not. None = unknown."""

    eur_per_hour: float | None
    answers_per_s: float | None
    """Of one machine, where it works without a pause."""
    amortise_months: int = 12

    @property
    def monthly_eur(self) -> float | None:
        """EUR a month for one machine."""
        return None if self.eur_per_hour is None else self.eur_per_hour * HOURS_PER_MONTH

    @property
    def capacity(self) -> float | None:
        """Answers a month of one machine."""
        return self.answers_per_s * 3600 * HOURS_PER_MONTH if self.answers_per_s else None


@dataclass(frozen=True, slots=True)
class Volume:
    """Requests a month from which ``machines`` always-on machines pay, and from which they pay at every volume."""

    requests: int
    machines: int
    steady: int | None
    """Just above a full machine the next one is nearly idle: between `requests` and this it may not pay."""


def replicas(requests_per_month: float, capacity: float) -> int:
    """Whole machines for a month's requests: max(1, ceil(demand / capacity))."""
    return max(1, math.ceil(requests_per_month / capacity))


def payback(one_off: float | None, other: float | None, own: float | None) -> tuple[str, int | None]:
    """(`after` | `never` | `unknown`, requests): one-off bill / (price of the other - own price), rounded up."""
    if one_off is None or other is None or own is None:
        return "unknown", None
    if other <= own:
        return "never", None
    return "after", math.ceil(one_off / (other - own))


def volume(one_off: float | None, other: float | None, hosting: Hosting) -> Volume | None:
    """The least v with other x v >= replicas(v) x monthly + one-off / months; None when unknown or never.

    n machines pay within what they can answer when n x (other x capacity - monthly) >= one-off / months, so that the
    least such n holds the least v.
    """
    monthly, capacity = hosting.monthly_eur, hosting.capacity
    if one_off is None or other is None or monthly is None or not capacity:
        return None
    share, saved = one_off / hosting.amortise_months, other * capacity - monthly
    if saved <= 0:
        return None
    machines = max(1, math.ceil(share / saved))
    found = _needed(machines, share, other, monthly)
    if found > machines * capacity:  # a whole request more than the machines can answer
        machines += 1
        found = _needed(machines, share, other, monthly)
        if found > machines * capacity:
            return None
    full = max(machines, math.ceil((monthly + share) / saved))
    while full > machines and _needed(full, share, other, monthly) <= math.floor((full - 1) * capacity) + 1:
        full -= 1  # requests are whole: the first one of the next machine already pays for it
    steady = max(found, _needed(full, share, other, monthly))
    return Volume(found, machines, steady if steady <= full * capacity else None)


def _needed(machines: int, share: float, other: float, monthly: float) -> int:
    return math.ceil((machines * monthly + share) / other)


def utilisation(other: float | None, hosting: Hosting) -> float | None:
    """The share of its time a machine must work to cost no more than the other: above 1 it never does."""
    monthly, capacity = hosting.monthly_eur, hosting.capacity
    if monthly is None or not capacity or not other:
        return None
    return monthly / (capacity * other)


def curve(one_off: float | None, other: float | None, own: float | None) -> dict[str, list[float]] | None:
    """What both have cost after so many requests, to three times the break-even; where there is none, to where the
    other has cost three times the one-off bill. None when a part is unknown."""
    if one_off is None or other is None or own is None or (other <= 0 and own <= 0):
        return None
    _, found = payback(one_off, other, own)
    end = found or math.ceil(one_off / max(other, own)) or 1000
    requests = [round(REACH * end * step / (POINTS - 1)) for step in range(POINTS)]
    return {
        "requests": [float(count) for count in requests],
        "own_eur": [one_off + own * count for count in requests],
        "other_eur": [other * count for count in requests],
    }


def entry(
    against: str,
    one_off: float | None,
    other: float | None,
    own: float | None,
    hosting: Hosting,
    interval: Estimate | None,
) -> dict[str, Any]:
    """One break-even as the report has it. ``other``, ``own``: EUR per request; ``interval``: of the requests."""
    ending, requests = payback(one_off, other, own)
    pays, least = volume(one_off, other, hosting), utilisation(other, hosting)
    return {
        "against": against,
        "api_eur_per_1000": None if other is None else other * 1000,
        "own_eur_per_1000": None if own is None else own * 1000,
        "requests": requests,
        "requests_low": _finite(interval.low) if interval else None,
        "requests_high": _finite(interval.high) if interval else None,
        "ending": ending,
        "per_month": pays.requests if pays else None,
        "machines": pays.machines if pays else None,
        "steady_per_month": pays.steady if pays else None,
        "capacity_per_month": hosting.capacity,
        "utilisation": least,
        "curve": curve(one_off, other, own),
    }


def _finite(value: float) -> float | None:
    """JSON has no infinity: an end that reaches `never` is null."""
    return value if math.isfinite(value) else None
