"""What an answer costs. Self-hosted: measured speed x stated price of the machine. API: what the ledger was billed.

Money is EUR; per-item costs are nano-EUR. Unknown is None and stays None: an unpriced system is never free.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from distill.costs import HOURS_PER_MONTH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distill.config import Serving
    from evals.samples import Sample

NANO = 1e9


@dataclass(frozen=True, slots=True)
class Speed:
    """Answers that were really computed, and the seconds that took. Stored answers are not part of it."""

    answers: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    batch_size: int = 1
    peak_bytes: int | None = None

    def __add__(self, other: Speed) -> Speed:
        peaks = [p for p in (self.peak_bytes, other.peak_bytes) if p is not None]
        return Speed(
            self.answers + other.answers,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.seconds + other.seconds,
            other.batch_size,
            max(peaks) if peaks else None,
        )

    @property
    def tokens_per_s(self) -> float | None:
        """Prompt and completion tokens per second."""
        tokens = self.prompt_tokens + self.completion_tokens
        return tokens / self.seconds if self.seconds > 0 and tokens > 0 else None

    @property
    def answers_per_s(self) -> float | None:
        """Answers per second."""
        return self.answers / self.seconds if self.seconds > 0 and self.answers > 0 else None

    def as_dict(self) -> dict[str, Any]:
        """The fields and both rates."""
        return {**asdict(self), "tokens_per_s": self.tokens_per_s, "answers_per_s": self.answers_per_s}


def nano_per_second(serving: Serving) -> float | None:
    """nano-EUR per second of real work: the price of the machine over the share of the time it works."""
    if serving.eur_per_hour is None:
        return None
    return serving.eur_per_hour * NANO / 3600 / serving.utilisation


def self_hosted(samples: Sequence[Sample], speed: Speed | None, serving: Serving) -> tuple[float, ...] | None:
    """nano-EUR of each item: its tokens at the measured speed (its share of the seconds where tokens are unknown)."""
    rate = nano_per_second(serving)
    if rate is None or speed is None or not speed.answers_per_s:
        return None
    tokens = [s.tokens for s in samples]
    known = [n for n in tokens if n is not None]
    if speed.tokens_per_s and len(known) == len(tokens):
        return tuple(rate * n / speed.tokens_per_s for n in known)
    return (rate / speed.answers_per_s,) * len(samples)


def billed(samples: Sequence[Sample]) -> tuple[float, ...] | None:
    """nano-EUR of each item as billed, or None when one of the answers has no known price."""
    costs = [s.cost_nano for s in samples if s.cost_nano is not None]
    return tuple(float(c) for c in costs) if len(costs) == len(samples) else None


def break_even(
    one_off_eur: float | None,
    api_eur: float | None,
    own_eur: float | None,
    serving: Serving,
    answers_per_s: float | None,
) -> dict[str, Any]:
    """Requests that pay the one-off bill back, and requests per month that pay an always-on machine.

    ``api_eur``, ``own_eur``: per request. `requests` = one-off / (api - own). `per_month` = (730 h x price + one-off /
    months) / api, None when `never`; more than one machine can answer in a month means never.
    """
    answer: dict[str, Any] = {"requests": None, "per_month": None, "capacity_per_month": None, "ending": "unknown"}
    if answers_per_s:
        answer["capacity_per_month"] = answers_per_s * 3600 * HOURS_PER_MONTH
    if one_off_eur is None or api_eur is None or own_eur is None:
        return answer
    if api_eur <= own_eur:
        return {**answer, "ending": "never"}
    answer |= {"ending": "after", "requests": math.ceil(one_off_eur / (api_eur - own_eur))}
    if serving.eur_per_hour is not None and answer["capacity_per_month"]:
        monthly = serving.eur_per_hour * HOURS_PER_MONTH + one_off_eur / serving.amortise_months
        needed = math.ceil(monthly / api_eur)
        answer["per_month"] = needed if needed <= answer["capacity_per_month"] else None
    return answer


def shocks(api_eur: float | None, own_eur: float | None, utilisation: float) -> list[dict[str, Any]]:
    """EUR per 1,000 requests of both systems when one assumption moves. Empty when a cost is unknown."""
    if api_eur is None or own_eur is None:
        return []
    half, more = own_eur / 0.5, own_eur / min(1.5, 1 / utilisation)
    cases = [
        ("as measured", api_eur, own_eur),
        ("reference price -50 %", api_eur * 0.5, own_eur),
        ("machine price +25 %", api_eur, own_eur * 1.25),
        ("utilisation -50 %", api_eur, half),
        ("utilisation +50 %", api_eur, more),
        ("speed -50 %", api_eur, own_eur / 0.5),
    ]
    return [
        {"case": name, "reference": a * 1000, "candidate": o * 1000, "times": a / o if o > 0 else None}
        for name, a, o in cases
    ]
