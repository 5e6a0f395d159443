"""What a chosen threshold does to items it was not chosen on: two halves, each judged by the other's threshold.

Two-fold cross-fitting (Stone 1974; Chernozhukov et al. 2018). The estimate is of thresholds chosen on half as many
items, whose non-inferiority is harder to show: they pass a little more on than one chosen on all of them.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from evals.cascade import ALWAYS, Records, judged, thresholds

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from evals.bootstrap import Draws

FEWEST = 4
"""Clusters: two in each half."""


def halves(clusters: Sequence[Any], seed: int) -> NDArray[np.int64]:
    """0 or 1 for each item: whole clusters, by the rank of their names' hash. The order of the items is nothing."""
    import numpy as np

    order = sorted(set(clusters), key=lambda name: hashlib.sha256(f"{seed}:{name}".encode("utf-8", "replace")).digest())
    half = {name: int(2 * rank >= len(order)) for rank, name in enumerate(order)}
    return np.array([half[name] for name in clusters], dtype=np.int64)


def chosen(found: Records, margin: float) -> float | None:
    """The least threshold that is non-inferior on these items; None when there is none."""
    for threshold in thresholds(found.sure):
        scores = found.scores(found.passed_on(threshold))
        if found.outcome(scores, margin) == "pass":
            return threshold
    return None


def fitted(found: Records, margin: float, seed: int) -> tuple[list[float | None], NDArray[np.bool_]] | None:
    """(threshold chosen on each half, which items the other half's threshold passes on); None for few clusters.

    A half that finds no threshold asks the teacher always.
    """
    import numpy as np

    if len(set(found.clusters)) < FEWEST:
        return None
    half = halves(found.clusters, seed)
    picked: list[float | None] = []
    passed = np.zeros(len(half), dtype=bool)
    for number in (0, 1):
        here, there = np.flatnonzero(half == number), np.flatnonzero(half != number)
        threshold = chosen(found.part(here), margin)
        picked.append(threshold)
        passed[there] = found.part(there).passed_on(ALWAYS if threshold is None else threshold)
    return picked, passed


def held_out(
    found: Records, fit: tuple[list[float | None], NDArray[np.bool_]] | None, margin: float, drawn: Draws
) -> dict[str, Any] | None:
    """Quality and cost of the cross-fitted choice, with intervals; `thresholds`: null where none was found."""
    if fit is None:
        return None
    picked, passed = fit
    return {"thresholds": picked, **judged(found, passed, margin, drawn, "held_out")}
