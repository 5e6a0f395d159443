"""What a token read and a token written cost on a machine of one's own: seconds = a x read + b x written.

Least squares over calls or load levels, without a constant: all seconds are shared out, so that it is an allocation
and no law of the engine. It needs calls of different mixes; where they are all alike, no split is claimed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FEWEST = 5
ALIKE = 1e-3
"""Least 1 - r^2 of the two token counts (uncentred): below, every call has the same mix."""
UNSURE = 0.25
"""Largest standard error of either price, as a share of it."""
NOTHING: tuple[float, ...] = (0.0,) * 7


def moment(read: float, written: float, seconds: float) -> tuple[float, ...]:
    """The sums that one call adds: n, read^2, read x written, written^2, read x s, written x s, s^2."""
    return (1.0, read * read, read * written, written * written, read * seconds, written * seconds, seconds * seconds)


def total(moments: Iterable[tuple[float, ...]]) -> tuple[float, ...]:
    """Sums of many calls."""
    found = NOTHING
    for one in moments:
        found = tuple(a + b for a, b in zip(found, one, strict=True))
    return found


def fitted(sums: tuple[float, ...]) -> tuple[float, float] | str:
    """(seconds per token read, seconds per token written), or why they cannot be told apart."""
    n, rr, rw, ww, rs, ws, ss = sums or NOTHING
    if n < FEWEST:
        return f"{n:.0f} calls are too few to tell reading from writing"
    determinant = rr * ww - rw * rw
    if rr <= 0 or ww <= 0 or determinant / (rr * ww) < ALIKE:
        return "every call has the same mix of tokens read and written"
    read, written = (rs * ww - ws * rw) / determinant, (ws * rr - rs * rw) / determinant
    if read <= 0 or written <= 0:
        return "the seconds of the calls do not grow with both the tokens read and the tokens written"
    variance = max(0.0, ss - read * rs - written * ws) / (n - 2)
    errors = math.sqrt(variance * ww / determinant) / read, math.sqrt(variance * rr / determinant) / written
    if max(errors) > UNSURE:
        return f"the seconds of {n:.0f} calls vary too much to tell reading from writing"
    return read, written


def of_levels(levels: Iterable[Mapping[str, Any]]) -> tuple[float, ...]:
    """Sums of the levels of a load sweep whose tokens are known."""
    known = [x for x in levels if x["prompt_tokens"] is not None and x["completion_tokens"] is not None]
    return total(moment(x["prompt_tokens"], x["completion_tokens"], x["seconds"]) for x in known)


def prices(rates: tuple[float, float], read: float, written: float, eur: float) -> dict[str, float]:
    """EUR per million tokens read and written that add up to ``eur`` for ``read`` and ``written`` tokens."""
    a, b = rates
    unit = eur / (a * read + b * written)
    return {"input": a * unit * 1e6, "output": b * unit * 1e6}
