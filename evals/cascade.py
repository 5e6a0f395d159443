"""Student first, teacher when unsure: quality and cost at every threshold on the student's confidence.

An answer whose confidence lies below the threshold is asked of the teacher as well; then both are paid: cost =
c_student + e * c_teacher for a share e of such requests. An empty answer has a confidence of 0. A call that
broke stays what it is, an error. The threshold that is best on these items is flattered by them: see crossfit.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from evals.samples import SILENT
from evals.stats import Estimate, accuracy, cautious, paired_difference
from evals.verdict import cascade_sentence

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from evals.bootstrap import Draws
    from evals.samples import Sample
    from evals.stats import Outcome

    Floats = NDArray[np.float64]

POINTS = 21
ALWAYS = 1.01
"""Threshold above every confidence: all that is answered goes to the teacher as well."""
Confidence = Literal["logprob", "self_consistency"]


@dataclass(frozen=True)
class Records:
    """What both systems did with the same items, N of them, in one order."""

    student: Floats
    """Score of each answer, [N]."""
    teacher: Floats
    sure: Floats
    """The student's confidence, [N]; NaN for a broken answer."""
    clusters: Sequence[Any]
    asked_in_vain: NDArray[np.bool_]
    """Items at which the teacher's call broke, [N]."""
    own: Floats | None = None
    """nano-EUR of each item, or None when unknown."""
    other: Floats | None = None

    def passed_on(self, threshold: float) -> NDArray[np.bool_]:
        """Which items the teacher is asked as well, [N]."""
        import numpy as np

        with np.errstate(invalid="ignore"):
            return np.asarray(self.sure < threshold)

    def scores(self, passed: NDArray[np.bool_]) -> Floats:
        """Score of each item when these are passed on, [N]."""
        import numpy as np

        return np.where(passed, self.teacher, self.student)

    def costs(self, passed: NDArray[np.bool_]) -> Floats | None:
        """nano-EUR of each item when these are passed on, [N]: a passed one pays both."""
        if self.own is None or self.other is None:
            return None
        return self.own + passed * self.other

    def part(self, index: NDArray[np.int64]) -> Records:
        """These items alone."""
        own, other = (None if c is None else c[index] for c in (self.own, self.other))
        inside = [self.clusters[n] for n in index]
        broken = self.asked_in_vain[index]
        return Records(self.student[index], self.teacher[index], self.sure[index], inside, broken, own, other)

    def outcome(self, scores: Floats, margin: float) -> Outcome:
        """Whether such scores are non-inferior to the teacher's."""
        return cautious(scores, self.teacher, self.asked_in_vain, self.clusters, margin)


def records(
    student: Sequence[Sample],
    teacher: Sequence[Sample],
    clusters: Sequence[Any],
    own: Sequence[float] | None,
    other: Sequence[float] | None,
) -> Records | None:
    """The records as columns; None when an answer that is not broken has no confidence."""
    import numpy as np

    if any(s.confidence is None and s.reject in ("", "truncated") for s in student):
        return None
    sure = np.array([_sure(s) for s in student], float)
    if all(s.confidence is None for s in student):
        return None
    costs = [None if c is None else np.asarray(c, float) for c in (own, other)]
    scores = [np.array([s.correct for s in rows], float) for rows in (student, teacher)]
    broken = np.array([s.broken for s in teacher])
    return Records(scores[0], scores[1], sure, clusters, broken, costs[0], costs[1])


def _sure(sample: Sample) -> float:
    """The confidence; 0 where the model said nothing, NaN where its call broke."""
    if sample.confidence is not None:
        return sample.confidence
    return 0.0 if sample.reject in SILENT else math.nan


def thresholds(sure: Floats) -> list[float]:
    """Up to POINTS thresholds at even shares of requests, from 0 (none is passed on) to ALWAYS.

    Each lies half-way between two confidences that were seen, so that a last digit decides nothing. Answers of the
    same confidence go together.
    """
    import numpy as np

    order = np.sort(sure[~np.isnan(sure)])
    found = [0.0]
    for step in range(1, POINTS):
        count = round(len(order) * step / (POINTS - 1))
        if count == 0:
            continue
        above = order[order > order[count - 1]]
        middle = float((order[count - 1] + above[0]) / 2) if len(above) else ALWAYS
        found.append(middle if not len(above) or middle > order[count - 1] else float(above[0]))
    return list(dict.fromkeys(found))


def columns(found: Records, held_out: NDArray[np.bool_] | None) -> dict[str, Floats]:
    """Score and cost per item at each threshold, and as cross-fitted: drawn with everything else in the report."""
    passed = {f"{number}": found.passed_on(t) for number, t in enumerate(thresholds(found.sure))}
    if held_out is not None:
        passed["held_out"] = held_out
    named = {f"score:cascade:{name}": found.scores(which) for name, which in passed.items()}
    costs = {f"cost:cascade:{name}": found.costs(which) for name, which in passed.items()}
    return named | {name: cost for name, cost in costs.items() if cost is not None}


def curve(found: Records, margin: float, drawn: Draws) -> list[dict[str, Any]]:
    """One row for each threshold, from "the student alone" to "the teacher as well, always"."""
    return [
        {"threshold": t, **judged(found, found.passed_on(t), margin, drawn, str(number))}
        for number, t in enumerate(thresholds(found.sure))
    ]


def judged(found: Records, passed: NDArray[np.bool_], margin: float, drawn: Draws, name: str) -> dict[str, Any]:
    """Quality and cost when these items are passed on; ``name``: that of the columns under which they were drawn."""
    scores = found.scores(passed)
    difference = paired_difference(scores, found.teacher, found.clusters)
    shown = difference if difference.se else Estimate(difference.value, difference.value, difference.value)
    quality = drawn.mean(f"score:cascade:{name}")
    if not quality.low < quality.high:  # all right or all wrong: draws of them say nothing
        quality = accuracy(scores, found.clusters)
    cost = drawn.mean(f"cost:cascade:{name}") if f"cost:cascade:{name}" in drawn.means else None
    return {
        "escalated": float(passed.mean()),
        "accuracy": float(scores.mean()),
        "accuracy_low": max(0.0, quality.low),
        "accuracy_high": min(1.0, quality.high),
        "difference": difference.value,
        "low": shown.low,
        "high": shown.high,
        "outcome": found.outcome(scores, margin),
        "per_1000_requests": per_1000(cost.value if cost else None),
        "cost_low": per_1000(cost.low if cost else None),
        "cost_high": per_1000(cost.high if cost else None),
    }


def per_1000(nano: float | None) -> float | None:
    """EUR per 1,000 requests."""
    return None if nano is None else nano * 1000 / 1e9


def cascade(
    found: Records, margin: float, drawn: Draws, confidence: Confidence, held_out: dict[str, Any] | None
) -> dict[str, Any]:
    """The curve, its first point that is non-inferior, and what is to be expected of such a choice."""
    points = curve(found, margin, drawn)
    best = next((p for p in points if p["outcome"] == "pass"), None)
    return {
        "confidence": confidence,
        "curve": points,
        "best": best,
        "held_out": held_out,
        "sentence": cascade_sentence(best, margin),
    }
