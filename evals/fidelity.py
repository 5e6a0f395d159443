"""What the student took over from its teacher, item by item: the distillation loss statement.

Agreement as in Stanton et al. 2021 (arXiv 2106.05945); errors that both make alike are copied errors.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from evals.language_confusion import confusion
from evals.refusals import refusals
from evals.stats import accuracy, cluster_codes, cluster_sums, clustered_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evals.samples import Sample

CELLS = ("both_right", "lost", "gained", "copied", "both_wrong")


def cell(candidate: Sample, reference: Sample) -> str:
    """One of CELLS. `copied`: both wrong with the same legal answer."""
    right_c, right_r = candidate.correct >= 0.5, reference.correct >= 0.5
    if right_c and right_r:
        return "both_right"
    if right_r:
        return "lost"
    if right_c:
        return "gained"
    return "copied" if candidate.predicted and candidate.predicted == reference.predicted else "both_wrong"


def statement(
    candidate: Sequence[Sample], reference: Sequence[Sample], clusters: Sequence[Any], texts: Sequence[str] = ()
) -> dict[str, Any]:
    """Cell counts, agreement (also where the reference is right, and where it is wrong), Cohen's kappa.

    ``texts``: the tasks whose answers are text; of them also refusals and answers in another language than asked for.
    """
    pairs = list(zip(candidate, reference, strict=True))
    counts = dict.fromkeys(CELLS, 0)
    for c, r in pairs:
        counts[cell(c, r)] += 1
    agree = [bool(c.predicted) and c.predicted == r.predicted for c, r in pairs]
    right = [n for n, (_, r) in enumerate(pairs) if r.correct >= 0.5]
    wrong = [n for n, (_, r) in enumerate(pairs) if r.correct < 0.5]
    return {
        "cells": counts,
        "agreement": agreement(agree, clusters),
        "agreement_teacher_right": agreement([agree[n] for n in right], [clusters[n] for n in right]),
        "agreement_teacher_wrong": agreement([agree[n] for n in wrong], [clusters[n] for n in wrong]),
        "kappa": kappa([c.predicted for c, _ in pairs], [r.predicted for _, r in pairs]),
        "refusals": refusals(candidate, reference, clusters, texts),
        "languages": confusion(candidate, reference, clusters, texts),
    }


def agreement(same: Sequence[bool], clusters: Sequence[Any]) -> dict[str, Any] | None:
    """Share of equal answers with its interval over clusters, and ``n``; None without items."""
    return {**accuracy(same, clusters).as_dict(), "n": len(same)} if len(same) else None


def kappa(first: Sequence[str], second: Sequence[str]) -> float | None:
    """Agreement beyond chance (Cohen 1960); None when chance alone explains everything."""
    n = len(first)
    observed = sum(a == b for a, b in zip(first, second, strict=True)) / n
    expected = sum((first.count(x) / n) * (second.count(x) / n) for x in set(first) | set(second))
    return None if expected >= 1 else (observed - expected) / (1 - expected)


def calibration(samples: Sequence[Sample], clusters: Sequence[Any], bins: int = 10) -> dict[str, Any] | None:
    """How far confidence is from the share of right answers; None when an answer has no confidence.

    `gap`: mean confidence minus mean score, above 0 for a system that is too sure of itself, with its clustered
    interval. `ece`: expected calibration error over equal-width bins (Naeini et al. 2015). It is an average of
    absolute values, so it is above 0 for a perfectly calibrated system too: `ece_by_chance` is about what noise alone
    gives with so many items. An interval of `ece` would inherit that bias (Bröcker 2012), so there is none.
    """
    if not samples or any(s.confidence is None for s in samples):
        return None
    groups: dict[int, list[int]] = {}
    sure = [s.confidence or 0.0 for s in samples]
    for number, confidence in enumerate(sure):
        groups.setdefault(min(bins - 1, int(confidence * bins)), []).append(number)
    rows, chance = [], 0.0
    for index in sorted(groups):
        group = groups[index]
        confidence = sum(sure[n] for n in group) / len(group)
        rows.append(
            {"n": len(group), "confidence": confidence, "accuracy": sum(samples[n].correct for n in group) / len(group)}
        )
        chance += _noise([sure[n] - samples[n].correct for n in group], [clusters[n] for n in group]) / len(samples)
    return {
        "ece": sum(r["n"] * abs(r["confidence"] - r["accuracy"]) for r in rows) / len(samples),
        "ece_by_chance": chance,
        "gap": clustered_mean([c - s.correct for c, s in zip(sure, samples, strict=True)], clusters).finite(),
        "bins": rows,
    }


def _noise(gaps: Sequence[float], clusters: Sequence[Any]) -> float:
    """Mean absolute value of the sum of a bin's gaps if their true mean is 0: sqrt(2 / pi) standard deviations.

    Whole clusters vary together; the deviation is theirs, around the bin's own mean.
    """
    codes, count = cluster_codes(clusters)
    mean = sum(gaps) / len(gaps)
    sums = cluster_sums([gap - mean for gap in gaps], codes, count)
    unbiased = count / (count - 1) if count > 1 else 1.0
    return math.sqrt(2 / math.pi * unbiased * float(sums @ sums))


def listed(candidate: Sequence[Sample], reference: Sequence[Sample], limit: int) -> dict[str, list[dict[str, Any]]]:
    """The first ``limit`` lost, gained and copied items with both answers."""
    lists: dict[str, list[dict[str, Any]]] = {name: [] for name in ("lost", "gained", "copied")}
    for c, r in zip(candidate, reference, strict=True):
        rows = lists.get(cell(c, r))
        if rows is not None and len(rows) < limit:
            rows.append(
                {
                    "id": c.id,
                    "task": c.task,
                    "lang": c.lang,
                    "prompt": _short(c.prompt, 1200),
                    "gold": _short(c.gold, 400),
                    "candidate": _short(c.text, 600),
                    "reference": _short(r.text, 600),
                }
            )
    return lists


def _short(text: str, limit: int) -> str:
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= limit else text[: limit - 1] + "…"
