"""What a sweep's timings add up to: percentiles, rates, goodput at an objective. Pure.

TTFT: from the send to the first token. TPOT: (last token - first token) / (tokens - 1). e2e: from the send to the end
of the answer. Goodput: requests per second that met the whole objective (Zhong et al. 2024, arXiv 2401.09670). A
failed request has no latency and never meets it.
"""

from __future__ import annotations

from collections.abc import Sequence  # noqa: TC003 - a dataclass field
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from evals.meter import Spent
from evals.stats import quantile

if TYPE_CHECKING:
    from distill.config import Objective

PERCENTILES = (50, 95, 99)


@dataclass(frozen=True, slots=True)
class Timing:
    """One request. Seconds; None = not known. ``error``: why there is no usable answer, "" when there is."""

    e2e_s: float
    first_s: float | None = None
    last_s: float | None = None
    prompt: int | None = None
    completion: int | None = None
    error: str = ""

    @property
    def tpot_s(self) -> float | None:
        """Seconds per token after the first; None for a single token, and where the tokens are not known."""
        if self.first_s is None or self.last_s is None or self.completion is None or self.completion < 2:
            return None
        return (self.last_s - self.first_s) / (self.completion - 1)


@dataclass(frozen=True, slots=True)
class Level:
    """Everything measured at one concurrency. ``seconds``: from the first counted send to the last counted end."""

    concurrency: int
    seconds: float
    timings: Sequence[Timing]
    spent: Spent | None = None

    def as_dict(self) -> dict[str, Any]:
        """As it is kept on disk."""
        return {
            "concurrency": self.concurrency,
            "seconds": self.seconds,
            "timings": [list(asdict(t).values()) for t in self.timings],
            "spent": self.spent and self.spent.as_dict(),
        }

    @classmethod
    def of(cls, kept: dict[str, Any]) -> Level:
        """Back from :meth:`as_dict`. Raises KeyError or TypeError for anything else."""
        spent = kept["spent"]
        timings = [Timing(*row) for row in kept["timings"]]
        return cls(kept["concurrency"], kept["seconds"], timings, Spent(**spent) if spent else None)


def met(timing: Timing, objective: Objective) -> bool | None:
    """Whether a request met the objective; None where that is not known. A single token has no time between tokens."""
    if timing.error:
        return False
    limits = [(objective.e2e_s, timing.e2e_s), (objective.ttft_s, timing.first_s)]
    if timing.completion != 1:
        limits.append((objective.tpot_s, timing.tpot_s))
    asked = [(most, value) for most, value in limits if most is not None]
    if any(value is not None and value > most for most, value in asked):
        return False
    return None if any(value is None for _, value in asked) else True


def summary(level: Level, objective: Objective) -> dict[str, Any]:
    """One level as the report has it. What is not known of every answered request is null."""
    answered = [t for t in level.timings if not t.error]
    prompt, completion = _total([t.prompt for t in answered]), _total([t.completion for t in answered])
    within = _within(level.timings, objective)
    both = None if prompt is None or completion is None else prompt + completion
    return {
        "concurrency": level.concurrency,
        "requests": len(level.timings),
        "errors": len(level.timings) - len(answered),
        "seconds": level.seconds,
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "ttft": percentiles([t.first_s for t in answered]),
        "tpot": percentiles([t.tpot_s for t in answered if t.completion != 1]),
        "e2e": percentiles([t.e2e_s for t in answered]),
        "requests_per_s": len(answered) / level.seconds,
        "tokens_per_s": None if both is None else both / level.seconds,
        "within": within,
        "goodput_per_s": None if within is None else within * len(level.timings) / level.seconds,
    }


def _within(timings: Sequence[Timing], objective: Objective) -> float | None:
    """Share of all requests that met the objective; None without one, or where one request's is not known."""
    if objective.ttft_s is None and objective.tpot_s is None and objective.e2e_s is None:
        return None
    found = [met(t, objective) for t in timings]
    return None if None in found else sum(map(bool, found)) / len(found)


def percentiles(values: Sequence[float | None]) -> dict[str, float] | None:
    """Inclusive p50, p95, p99; None without values, or where one is not known."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    return {f"p{p}": quantile(known, p / 100) for p in PERCENTILES}


def _total(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known and len(known) == len(counts) else None


def best(levels: Sequence[dict[str, Any]], share: float) -> int | None:
    """Index of the level with the highest goodput among those where ``share`` met the objective; None without one."""
    good = [n for n, level in enumerate(levels) if level["within"] is not None and level["within"] >= share]
    return max(good, key=lambda n: levels[n]["goodput_per_s"], default=None)
