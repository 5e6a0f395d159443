"""What a judge's verdicts are worth: agreement with people, a rate corrected for its errors, the pull of length.

Cohen 1960 (kappa); Rogan and Gladen 1978 (corrected rate); a logistic regression on the difference in length as in
Dubois et al. 2024 (arXiv 2404.04475), fitted here. Shapes: B draws, C clusters, N items.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evals.bootstrap import bootstrap, percentile, resamples
from evals.stats import Estimate, cluster_codes

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

ENOUGH = 100
"""Fewer double-judged answers than this calibrate nothing."""
RIDGE = 1.0
"""Holds the effect of length finite where few items tell it; in items."""


def kappa(judge: Sequence[float], human: Sequence[float], draws: int, seed: int) -> Estimate | None:
    """Agreement beyond chance with its bootstrap interval; None where one of them always says the same."""
    import numpy as np

    labels = sorted({*judge, *human})
    if len(set(judge)) < 2 or len(set(human)) < 2:
        return None
    j, h = np.asarray(judge), np.asarray(human)
    columns: dict[str, Any] = {"same": j == h}
    for n, label in enumerate(labels):
        columns |= {f"j{n}": j == label, f"h{n}": h == label}

    def beyond_chance(mean: Any) -> Any:
        chance = sum(mean[f"j{n}"] * mean[f"h{n}"] for n in range(len(labels)))
        return (mean["same"] - chance) / (1 - chance)

    return bootstrap(columns, range(len(j)), draws, seed).of(beyond_chance)


def corrected_rate(
    verdicts: ArrayLike,
    clusters: Sequence[Any],
    judge: ArrayLike,
    human: ArrayLike,
    draws: int,
    seed: int,
) -> Estimate | None:
    """Share of right answers when the judge's errors on answers that people judged are taken out; all 0/1.

    None when the judge may be no better than chance there: sensitivity + specificity - 1 reaches 0. Both samples are
    drawn again, on their own.
    """
    import numpy as np

    j, h = np.asarray(judge, float), np.asarray(human, float)
    if not 0 < h.mean() < 1:
        return None
    seen = bootstrap({"q": verdicts}, clusters, draws, seed)
    checked = bootstrap({"hit": j * h, "right": h, "pass": (1 - j) * (1 - h)}, range(len(j)), draws, seed + 1)

    def power(mean: Any) -> Any:
        return mean["hit"] / mean["right"] + mean["pass"] / (1 - mean["right"]) - 1

    if checked.of(power).low <= 0:
        return None

    def rate(q: Any, mean: Any) -> Any:
        return np.clip((q + mean["pass"] / (1 - mean["right"]) - 1) / power(mean), 0, 1)

    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = rate(seen.means["q"], checked.means)
    point = float(rate(seen.point["q"], checked.point))
    return percentile(point, drawn, min(seen.clusters, checked.clusters))


def length_controlled(
    preference: ArrayLike, extra: ArrayLike, clusters: Sequence[Any], draws: int, seed: int
) -> Estimate | None:
    """Win rate at equal length. ``preference`` 0..1 per item, ``extra`` characters more than the other answer.

    The regression is logit P(preferred) = a + b * tanh(extra / sd), the estimate its value where ``extra`` is 0; None
    when all answers are equally long, or all verdicts the same.
    """
    import numpy as np

    y, extra = np.asarray(preference, float), np.asarray(extra, float)
    if y.std() == 0 or extra.std() == 0:
        return None
    x = np.tanh(extra / extra.std())
    codes, count = cluster_codes(clusters)
    point = fit(y, x, np.ones((1, len(y))))[0]
    drawn = np.concatenate([fit(y, x, counts_BC[:, codes]) for counts_BC in resamples(count, draws, seed)])
    return percentile(_share(point), _share(drawn), count)


def fit(y: Floats, x: Floats, weights_BN: ArrayLike, steps: int = 12) -> Floats:
    """The intercept of each weighted logistic regression, [B]: Newton steps, a ridge on the slope."""
    import numpy as np

    w = np.asarray(weights_BN, float)
    a, b = np.zeros(len(w)), np.zeros(len(w))
    for _ in range(steps):
        p = _share(a[:, None] + b[:, None] * x)
        error, curve = w * (y - p), w * p * (1 - p)
        ga, gb = error.sum(1), error @ x - RIDGE * b
        aa, ab, bb = curve.sum(1) + 1e-9, curve @ x, curve @ (x * x) + RIDGE
        det = aa * bb - ab * ab
        a = np.clip(a + (bb * ga - ab * gb) / det, -15, 15)
        b = np.clip(b + (aa * gb - ab * ga) / det, -15, 15)
    return a


def _share(logit: Any) -> Any:
    import numpy as np

    return 1 / (1 + np.exp(-logit))
