"""The seeded cluster bootstrap: one set of draws for quality, cost, retention and gap, so that intervals cohere.

Whole clusters are drawn with replacement; every quantity of a draw is a function of the same resampled sums.
Efron 1979; Davison and Hinkley 1997, section 3.8. Shapes: B draws, C clusters, K columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from evals.stats import CONFIDENCE, Estimate, cluster_codes, cluster_sums, t

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

BLOCK = 4_000_000  # cluster numbers drawn at once: 32 MB


@dataclass(frozen=True)
class Draws:
    """Resampled means of named per-item columns. ``means[name]`` has shape [B]; ``point[name]`` is the plain mean."""

    means: Mapping[str, Floats]
    point: Mapping[str, float]
    clusters: int

    def mean(self, name: str, confidence: float = CONFIDENCE) -> Estimate:
        """Mean of a column."""
        return self._interval(self.point[name], self.means[name], confidence)

    def difference(self, candidate: str, reference: str) -> Estimate:
        """Mean of one column minus another."""
        point = self.point[candidate] - self.point[reference]
        return self._interval(point, self.means[candidate] - self.means[reference])

    def ratio(self, numerator: str, denominator: str, offset: float = 0.0) -> Estimate | None:
        """Ratio of two means, both reduced by ``offset`` (chance level).

        None when the denominator's interval reaches 0: the ratio is then unbounded.
        """
        below = self._interval(self.point[denominator] - offset, self.means[denominator] - offset)
        if below.low <= 0:
            return None
        point = (self.point[numerator] - offset) / (self.point[denominator] - offset)
        return self._interval(point, _divided(self.means[numerator] - offset, self.means[denominator] - offset))

    def recovered_gap(self, student: str, base: str, teacher: str) -> Estimate | None:
        """(student - base) / (teacher - base), or None when the gap's interval contains 0 or lies below."""
        gap = self.difference(teacher, base)
        if gap.low <= 0:
            return None
        point = (self.point[student] - self.point[base]) / gap.value
        gaps = self.means[teacher] - self.means[base]
        return self._interval(point, _divided(self.means[student] - self.means[base], gaps))

    def of(self, quantity: Callable[[Mapping[str, Any]], Any]) -> Estimate:
        """Any function of the means, under the same draws."""
        import numpy as np

        with np.errstate(divide="ignore", invalid="ignore"):
            return self._interval(float(quantity(self.point)), quantity(self.means))

    def _interval(self, point: float, draws: Floats, confidence: float = CONFIDENCE) -> Estimate:
        return percentile(point, draws, self.clusters, confidence)


def _divided(numerator: Floats, denominator: Floats) -> Floats:
    """The quotient of each draw; a draw that divides by 0 is infinite."""
    import numpy as np

    with np.errstate(divide="ignore", invalid="ignore"):
        return numerator / denominator


def percentile(point: float, draws: ArrayLike, clusters: int, confidence: float = CONFIDENCE) -> Estimate:
    """Percentile interval, widened for few clusters (Hesterberg 2015, section 5.3): plain ones are then too narrow.

    A draw that divides by 0 counts as infinite, so it can only widen the interval.
    """
    import numpy as np

    if clusters < 2:
        return Estimate(float(point), -math.inf, math.inf)
    tail = NormalDist().cdf(-math.sqrt(clusters / (clusters - 1)) * t(clusters - 1, confidence))

    values = np.asarray(draws, dtype=np.float64)
    values = np.where(np.isnan(values), np.inf, values)
    low, high = np.quantile(values, [tail, 1 - tail], method="inverted_cdf")
    return Estimate(float(point), float(low), float(high))


def bootstrap(columns: Mapping[str, ArrayLike], clusters: Sequence[Any], draws: int = 10_000, seed: int = 0) -> Draws:
    """Resample whole clusters ``draws`` times; every column is read under the same draws.

    ``columns``: name -> one number per item, all of the length of ``clusters``. Same seed, same draws.
    """
    import numpy as np

    codes, count = cluster_codes(clusters)
    names = list(columns)
    arrays = [np.asarray(columns[name], dtype=np.float64) for name in names]
    if any(len(array) != len(codes) for array in arrays):
        raise ValueError("columns and clusters differ in length")
    sums_CK = np.stack([cluster_sums(a, codes, count) for a in [np.ones(len(codes)), *arrays]], axis=1)
    totals_BK = resampled_totals(sums_CK, draws, seed)
    means = {name: totals_BK[:, k + 1] / totals_BK[:, 0] for k, name in enumerate(names)}
    point = {name: float(array.mean()) for name, array in zip(names, arrays, strict=True)}
    return Draws(means, point, count)


def resampled_totals(sums_CK: Floats, draws: int, seed: int) -> Floats:
    """Column totals of each draw, shape [B, K]."""
    import numpy as np

    return np.concatenate([counts_BC @ sums_CK for counts_BC in resamples(len(sums_CK), draws, seed)])


def resamples(clusters: int, draws: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """How often each draw has each cluster, [B, C] in blocks of draws: memory does not grow with B x C."""
    import numpy as np

    rng = np.random.Generator(np.random.PCG64(seed))
    step = max(1, BLOCK // clusters)
    for start in range(0, draws, step):
        b = min(step, draws - start)
        picked = rng.integers(0, clusters, size=(b, clusters))
        flat = (picked + np.arange(b)[:, None] * clusters).ravel()
        yield np.bincount(flat, minlength=b * clusters).reshape(b, clusters)
