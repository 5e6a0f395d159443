"""Intervals and tests for paired, clustered records: closed forms. Pure functions of arrays; see also bootstrap.py.

Scores are per item, 0..1. Clusters name what was sampled together (a document, a package in five languages): an
interval that ignores them is too narrow. Formulas: Miller 2024 (arXiv 2411.00640), Fieller 1954, Fagerland 2013.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

Outcome = Literal["pass", "fail", "inconclusive"]
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its interval. ``se`` and ``df`` are None where the method has none."""

    value: float
    low: float
    high: float
    se: float | None = None
    df: int | None = None

    def as_dict(self) -> dict[str, float]:
        """`{"value", "low", "high"}`."""
        return {"value": self.value, "low": self.low, "high": self.high}

    def finite(self) -> dict[str, float | None]:
        """The same for JSON, which has no infinity: an open end is None."""
        return {name: value if math.isfinite(value) else None for name, value in self.as_dict().items()}


def z(confidence: float = CONFIDENCE) -> float:
    """Two-sided normal quantile."""
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def t(df: int, confidence: float = CONFIDENCE) -> float:
    """Two-sided Student quantile."""
    from scipy.special import stdtrit

    return float(stdtrit(df, 0.5 + confidence / 2))


def wilson(correct: float, n: float, confidence: float = CONFIDENCE, quantile: float | None = None) -> Estimate:
    """Score interval of a share (Wilson 1927). Good for small n and for shares near 0 or 1."""
    if n <= 0:
        raise ValueError("no items")
    k = quantile if quantile is not None else z(confidence)
    p = correct / n
    centre = (p + k * k / (2 * n)) / (1 + k * k / n)
    half = k / (1 + k * k / n) * math.sqrt(p * (1 - p) / n + k * k / (4 * n * n))
    # The exact ends at 0 and 1: rounding must not leave the share outside its own interval.
    return Estimate(p, 0.0 if p == 0 else max(0.0, centre - half), 1.0 if p == 1 else min(1.0, centre + half))


def cluster_codes(clusters: Sequence[Any]) -> tuple[NDArray[np.int64], int]:
    """(code 0..C-1 of each item, C), in order of first appearance."""
    import numpy as np

    seen: dict[Any, int] = {}
    codes = np.fromiter((seen.setdefault(name, len(seen)) for name in clusters), dtype=np.int64, count=len(clusters))
    return codes, len(seen)


def cluster_sums(values: ArrayLike, codes: NDArray[np.int64], count: int) -> Floats:
    """Sum of ``values`` in each cluster: shape [C]."""
    import numpy as np

    sums = np.bincount(codes, weights=np.asarray(values, dtype=np.float64), minlength=count)
    return sums.astype(np.float64)


def clustered_mean(values: ArrayLike, clusters: Sequence[Any], confidence: float = CONFIDENCE) -> Estimate:
    """Mean with clustered standard error, t with C-1 degrees of freedom. One cluster: infinite interval."""
    import numpy as np

    values = np.asarray(values, dtype=np.float64)
    n = len(values)
    if n == 0:
        raise ValueError("no items")
    codes, count = cluster_codes(clusters)
    mean = float(values.mean())
    if count < 2:
        return Estimate(mean, -math.inf, math.inf, math.inf, 0)
    residuals = cluster_sums(values - mean, codes, count)
    se = math.sqrt(float(residuals @ residuals) * count / (count - 1)) / n
    half = t(count - 1, confidence) * se
    return Estimate(mean, mean - half, mean + half, se, count - 1)


def accuracy(scores: ArrayLike, clusters: Sequence[Any], confidence: float = CONFIDENCE) -> Estimate:
    """Mean score with a Wilson interval on the effective number of items (Korn and Graubard 1998).

    The design effect is clustered variance over binomial variance. All right or all wrong: the clusters are the n.
    Scores between 0 and 1 vary less than right and wrong do, so that their effective number may exceed n.
    """
    import numpy as np

    scores = np.asarray(scores, dtype=np.float64)
    mean = clustered_mean(scores, clusters, confidence)
    n, count = len(scores), len(set(clusters))
    p = min(1.0, max(0.0, mean.value))
    if count < 2:
        return Estimate(p, 0.0, 1.0, mean.se, mean.df)
    most = n if bool(np.all((scores == 0) | (scores == 1))) else math.inf
    effective = min(p * (1 - p) / mean.se**2, most) if mean.se and 0 < p < 1 else float(count)
    interval = wilson(p * effective, effective, confidence, quantile=t(count - 1, confidence))
    return Estimate(p, interval.low, interval.high, mean.se, mean.df)


def paired_difference(
    candidate: ArrayLike, reference: ArrayLike, clusters: Sequence[Any], confidence: float = CONFIDENCE
) -> Estimate:
    """Mean of candidate - reference on the same items, clustered, inside -1..1 (infinite for one cluster).

    A paired design: far tighter than two intervals. When no cluster differs from another, the standard error is 0 and
    says nothing: then the interval holds what as many clusters could have missed (exact binomial, none of C seen).
    """
    import numpy as np

    found = clustered_mean(np.asarray(candidate, float) - np.asarray(reference, float), clusters, confidence)
    if not math.isfinite(found.low):
        return found
    half = found.high - found.value
    if found.se == 0 and found.df is not None:
        half = 1 - ((1 - confidence) / 2) ** (1 / (found.df + 1))
    return Estimate(found.value, max(-1.0, found.value - half), min(1.0, found.value + half), found.se, found.df)


@dataclass(frozen=True, slots=True)
class McNemar:
    """``lost``: only the reference is right. ``gained``: only the candidate is right. Two-sided p-values."""

    lost: int
    gained: int
    exact: float
    mid: float


def mcnemar(lost: int, gained: int) -> McNemar:
    """Exact and mid-p McNemar test of equal accuracy (Fagerland 2013). Not valid when clusters matter."""
    n, k = lost + gained, min(lost, gained)
    if n == 0:
        return McNemar(0, 0, 1.0, 1.0)
    at = math.comb(n, k) / 2**n
    tail = sum(math.comb(n, i) for i in range(k + 1)) / 2**n
    exact = min(1.0, 2 * tail)
    mid = 1.0 - at if lost == gained else 2 * tail - at
    return McNemar(lost, gained, exact, min(1.0, mid))


def p_value(difference: Estimate) -> float:
    """Two-sided t-test that the difference is 0; a sign test over clusters when they all differ alike."""
    from scipy.special import stdtr

    if not difference.df or difference.se is None or not math.isfinite(difference.se):
        return 1.0
    if difference.se == 0:
        return 1.0 if difference.value == 0 else 2 * 0.5 ** (difference.df + 1)
    return min(1.0, 2 * float(stdtr(difference.df, -abs(difference.value / difference.se))))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the given order (Holm 1979): family-wise error is held without independence."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def fieller(
    numerator: ArrayLike, denominator: ArrayLike, clusters: Sequence[Any], confidence: float = CONFIDENCE
) -> Estimate | None:
    """Ratio of two paired means (Fieller 1954), or None when the denominator is not clearly above 0: unbounded."""
    import numpy as np

    a, b = np.asarray(numerator, float), np.asarray(denominator, float)
    codes, count = cluster_codes(clusters)
    if count < 2:
        return None
    s, m = float(a.mean()), float(b.mean())
    ra, rb = cluster_sums(a - s, codes, count), cluster_sums(b - m, codes, count)
    scale = count / (count - 1) / len(a) ** 2
    vs, vm, cov = float(ra @ ra) * scale, float(rb @ rb) * scale, float(ra @ rb) * scale
    k = t(count - 1, confidence) ** 2
    if m <= 0 or m * m <= k * vm:
        return None
    A, B, C = m * m - k * vm, s * m - k * cov, s * s - k * vs
    root = math.sqrt(max(0.0, B * B - A * C))
    return Estimate(s / m, (B - root) / A, (B + root) / A, None, count - 1)


def non_inferiority(difference: Estimate, margin: float) -> Outcome:
    """`pass`: the whole interval lies above -margin. `fail`: it lies below. Else `inconclusive`: ask more items.

    With a 95 % interval this is a one-sided test at 2.5 %: what the picture shows is what is decided.
    """
    if difference.low > -margin:
        return "pass"
    return "fail" if difference.high < -margin else "inconclusive"


def cautious(
    candidate: ArrayLike, reference: ArrayLike, broken: ArrayLike, clusters: Sequence[Any], margin: float
) -> Outcome:
    """Non-inferiority that broken calls of the reference cannot bring about.

    They count as wrong, which flatters the candidate: a `pass` must hold had the reference been right there.
    """
    import numpy as np

    outcome = non_inferiority(paired_difference(candidate, reference, clusters), margin)
    if outcome != "pass" or not np.any(broken):
        return outcome
    had = np.where(np.asarray(broken, bool), 1.0, np.asarray(reference, float))
    found = non_inferiority(paired_difference(candidate, had, clusters), margin)
    return "pass" if found == "pass" else "inconclusive"


def superiority(difference: Estimate) -> Outcome:
    """`pass`: the whole interval lies above 0. `fail`: it lies below. Else `inconclusive`."""
    return non_inferiority(difference, 0.0)


def detectable(se: float, power: float = 0.8, confidence: float = CONFIDENCE) -> float:
    """Smallest true difference found with this power, given the standard error of the difference."""
    return (z(confidence) + NormalDist().inv_cdf(power)) * se


def detectable_before(n: int, discordant: float, power: float = 0.8, confidence: float = CONFIDENCE) -> float:
    """Smallest detectable difference of ``n`` independent binary pairs when a share ``discordant`` of them differs.

    Solves delta = k * sqrt((discordant - delta^2) / n), k = z + z_power.
    """
    k = z(confidence) + NormalDist().inv_cdf(power)
    return math.sqrt(k * k * discordant / (n + k * k))


def items_needed(
    margin: float, discordant: float, true_difference: float = 0.0, power: float = 0.8, confidence: float = CONFIDENCE
) -> int | None:
    """Independent pairs needed to show non-inferiority, or None when the true difference is beyond the margin."""
    distance = margin + true_difference
    if distance <= 0:
        return None
    k = z(confidence) + NormalDist().inv_cdf(power)
    return math.ceil(k * k * max(discordant - true_difference**2, 0.0) / distance**2)


def quantile(values: Sequence[float], share: float) -> float:
    """Inclusive quantile: never outside the values seen."""
    import numpy as np

    return float(np.quantile(np.asarray(values, dtype=np.float64), share, method="linear"))
