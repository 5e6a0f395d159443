"""What an HTTP server says about waiting: ``Retry-After`` in all its forms, and the x-ratelimit headers."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from distill.providers._base import Pace

if TYPE_CHECKING:
    from collections.abc import Mapping


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds a server asks us to wait: `retry-after-ms`, `retry-after` in seconds or as a date; None = unsaid.

    A date in the past, a negative or an unreadable value is None: the caller backs off by itself.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after")
    seconds = _number(value)
    if seconds is not None or value is None:
        return seconds
    try:
        wait = parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return wait if wait > 0 else None


def duration(value: str | None) -> float | None:
    """Seconds in `1.5`, `20ms`, `1m30s`, `2h` (the forms of x-ratelimit-reset headers); None when unreadable."""
    if (plain := _number(value)) is not None or value is None:
        return plain
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
    total, number, rest = 0.0, "", value.strip().lower()
    while rest:
        if rest[0].isdigit() or rest[0] == ".":
            number, rest = number + rest[0], rest[1:]
            continue
        unit = "ms" if rest.startswith("ms") else rest[0]
        amount = _number(number)
        if unit not in units or amount is None:
            return None
        total, number, rest = total + amount * units[unit], "", rest[len(unit) :]
    return total if not number else None


def _number(value: str | None) -> float | None:
    try:
        number = float(value) if value is not None else -1.0
    except ValueError:
        return None
    return number if 0 <= number < 1e9 else None


def pace(headers: Mapping[str, str]) -> Pace | None:
    """The request limit a server reports, or None. Without a reset time the limit is taken as one per minute."""
    limit = _number(headers.get("x-ratelimit-limit-requests") or headers.get("x-ratelimit-limit"))
    left = _number(headers.get("x-ratelimit-remaining-requests") or headers.get("x-ratelimit-remaining"))
    if not limit or left is None:
        return None
    reset = duration(headers.get("x-ratelimit-reset-requests") or headers.get("x-ratelimit-reset"))
    missing = limit - left
    per_s = missing / reset if reset and missing >= 1 and reset < 86_400 else limit / 60
    return Pace(int(limit), int(left), per_s)
