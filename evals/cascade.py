"""Student first, teacher when unsure: quality and cost at every threshold on the student's confidence.

An escalated request pays both: cost = c_student + e * c_teacher for a share e of escalations. Confidence is the
geometric mean probability of the answer's tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evals.stats import non_inferiority, paired_difference
from evals.verdict import euros, percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evals.samples import Sample

POINTS = 21


def cascade(
    student: Sequence[Sample],
    teacher: Sequence[Sample],
    clusters: Sequence[str],
    margin: float,
    own: Sequence[float] | None,
    other: Sequence[float] | None,
) -> dict[str, Any] | None:
    """The curve and its first point that is non-inferior; None when an answer has no confidence.

    ``own``, ``other``: nano-EUR of each item, or None when unknown.
    """
    if any(s.confidence is None for s in student):
        return None
    order = sorted(range(len(student)), key=lambda i: (student[i].confidence or 0.0, i))
    curve = []
    for step in range(POINTS):
        count = round(len(order) * step / (POINTS - 1))
        curve.append(_point(order[:count], student, teacher, clusters, margin, own, other))
    best = next((p for p in curve if p["outcome"] == "pass"), None)
    return {"curve": curve, "best": best, "sentence": _sentence(best, margin)}


def _point(
    escalated: Sequence[int],
    student: Sequence[Sample],
    teacher: Sequence[Sample],
    clusters: Sequence[str],
    margin: float,
    own: Sequence[float] | None,
    other: Sequence[float] | None,
) -> dict[str, Any]:
    """Ask the teacher for these items as well."""
    asked = set(escalated)
    scores = [t.correct if i in asked else s.correct for i, (s, t) in enumerate(zip(student, teacher, strict=True))]
    difference = paired_difference(scores, [t.correct for t in teacher], clusters)
    cost = None
    if own is not None and other is not None:
        cost = (sum(own) + sum(other[i] for i in asked)) / len(student) * 1000 / 1e9
    threshold = max((student[i].confidence or 0.0 for i in asked), default=0.0)
    return {
        "threshold": threshold,
        "escalated": len(asked) / len(student),
        "accuracy": sum(scores) / len(scores),
        "difference": difference.value,
        "low": difference.low if difference.se else difference.value,
        "high": difference.high if difference.se else difference.value,
        "outcome": non_inferiority(difference, margin),
        "per_1000_requests": cost,
    }


def _sentence(best: dict[str, Any] | None, margin: float) -> str:
    limit = f"{100 * margin:g} points"
    if best is None:
        return f"No threshold keeps the loss under {limit} with these items."
    if best["escalated"] == 0:
        return f"The student alone already keeps the loss under {limit}; asking the teacher as well is not needed."
    cost = best["per_1000_requests"]
    money = "" if cost is None else f", for {euros(cost)} per 1,000 requests"
    return (
        f"Passing the {percent(best['escalated'])} least certain requests on to the teacher keeps the loss under "
        f"{limit}: {percent(best['accuracy'])}{money}."
    )
