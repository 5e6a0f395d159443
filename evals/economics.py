"""What an answer costs. Self-hosted: measured speed x stated price of the machine. API: what the ledger was billed.

Money is EUR; per-item costs are nano-EUR. Unknown is None and stays None: an unpriced system is never free.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from distill.config import Serving
    from evals.objective import Pace
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
    moments: tuple[float, ...] = ()
    """Sums over calls that did not overlap, to tell reading from writing (evals/split.py); () without such calls."""

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Speed:
        """The speed that ``asdict`` wrote as JSON."""
        return cls(**{**values, "moments": tuple(values.get("moments", ()))})

    def __add__(self, other: Speed) -> Speed:
        moments = tuple(a + b for a, b in zip(self.moments, other.moments, strict=False))
        peaks = [p for p in (self.peak_bytes, other.peak_bytes) if p is not None]
        return Speed(
            self.answers + other.answers,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.seconds + other.seconds,
            other.batch_size,
            max(peaks) if peaks else None,
            moments or self.moments or other.moments,
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
        """The fields and both rates, without the moments."""
        fields = {name: value for name, value in asdict(self).items() if name != "moments"}
        return {**fields, "tokens_per_s": self.tokens_per_s, "answers_per_s": self.answers_per_s}


def nano_per_second(serving: Serving) -> float | None:
    """nano-EUR per second of real work: the price of the machine over the share of the time it works.

    Raises ValueError for a utilisation above 1.
    """
    if serving.eur_per_hour is None:
        return None
    if not 0 < serving.utilisation <= 1:
        raise ValueError(f"utilisation is above 0 and at most 1, not {serving.utilisation}")
    return serving.eur_per_hour * NANO / 3600 / serving.utilisation


def machine_price(serving: Serving) -> str:
    """The stated price of a machine, in words."""
    if serving.eur_per_hour is None:
        return "no price is known"
    stated = f"{serving.eur_per_hour:g} EUR/h, {100 * serving.utilisation:g} % utilised"
    return stated + (f"; {serving.source}" if serving.source else "")


def self_hosted(samples: Sequence[Sample], speed: Speed | Pace | None, serving: Serving) -> tuple[float, ...] | None:
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
