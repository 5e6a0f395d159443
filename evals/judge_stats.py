"""What a judge's verdicts are worth: agreement with people, a rate corrected for its errors, the pull of length.

Closed forms. Kappa: Cohen 1960, its error Fleiss, Cohen and Everitt 1969. Corrected rate: Rogan and Gladen 1978, its
interval Lang and Reiczigel 2014. Length: a logistic regression as in Dubois et al. 2024 (arXiv 2404.04475), fitted
here, with a clustered sandwich error. Shapes: C clusters, N items.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from evals.stats import Estimate, cluster_codes, cluster_sums, clustered_mean, t, z

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

ENOUGH = 100
"""Fewer answers that people judged too calibrate nothing."""
RIDGE = 0.1
"""Holds the effect of length finite where few items tell it; in items."""


def kappa(judge: Sequence[float], human: Sequence[float]) -> Estimate | None:
    """Agreement beyond chance; None where one of them always says the same."""
    import numpy as np

    labels = sorted({*judge, *human})
    if len(set(judge)) < 2 or len(set(human)) < 2:
        return None
    place = {label: n for n, label in enumerate(labels)}
    n = len(judge)
    p = np.zeros((len(labels), len(labels)))
    for a, b in zip(judge, human, strict=True):
        p[place[a], place[b]] += 1 / n
    rows, columns = p.sum(1), p.sum(0)
    same, chance = float(np.trace(p)), float(rows @ columns)
    found = (same - chance) / (1 - chance)
    margins = columns[:, None] + rows[None, :]
    own, apart = np.diag(p), p * (1 - np.eye(len(p)))
    spread = (
        float(own @ ((1 - chance) - np.diag(margins) * (1 - same)) ** 2)
        + (1 - same) ** 2 * float((apart * margins**2).sum())
        - (same * chance - 2 * chance + same) ** 2
    )
    se = math.sqrt(max(0.0, spread) / n) / (1 - chance) ** 2
    half = t(n - 1) * se
    return Estimate(found, max(-1.0, found - half), min(1.0, found + half), se, n - 1)


def corrected_rate(
    verdicts: ArrayLike, clusters: Sequence[Any], judge: Sequence[float], human: Sequence[float]
) -> Estimate | None:
    """Share of right answers when the judge's errors on answers that people judged are taken out; all 0/1.

    None when the judge may be no better than chance: the interval of sensitivity + specificity - 1 reaches 0.
    """
    right = [j for j, h in zip(judge, human, strict=True) if h]
    wrong = [j for j, h in zip(judge, human, strict=True) if not h]
    if not right or not wrong:
        return None
    sensitivity, specificity = sum(right) / len(right), 1 - sum(wrong) / len(wrong)
    # One answer more of each kind, as in Lang and Reiczigel: a judge without a mistake is not a perfect judge.
    se, n_se = (sum(right) + 1) / (len(right) + 2), len(right) + 2
    sp, n_sp = (len(wrong) - sum(wrong) + 1) / (len(wrong) + 2), len(wrong) + 2
    var_se, var_sp = se * (1 - se) / n_se, sp * (1 - sp) / n_sp
    power = se + sp - 1
    if power - z() * math.sqrt(var_se + var_sp) <= 0:
        return None
    seen = clustered_mean(verdicts, clusters)
    if not seen.se or not math.isfinite(seen.se):
        return None
    point = min(1.0, max(0.0, (seen.value + specificity - 1) / (sensitivity + specificity - 1)))
    k = t(seen.df or 1)
    effective = max(1.0, seen.value * (1 - seen.value) / seen.se**2)
    q = (seen.value * effective + k * k / 2) / (effective + k * k)
    q_var = q * (1 - q) / (effective + k * k)
    rate = (q + sp - 1) / power
    shift = 2 * k * k * (rate * var_se - (1 - rate) * var_sp)
    half = k * math.sqrt(q_var + rate**2 * var_se + (1 - rate) ** 2 * var_sp) / power
    low, high = (min(1.0, max(0.0, rate + shift + side * half)) for side in (-1, 1))
    return Estimate(point, min(low, point), max(high, point))


def length_controlled(preference: ArrayLike, extra: ArrayLike, clusters: Sequence[Any]) -> Estimate | None:
    """Win rate at equal length. ``preference`` 0..1 per item, ``extra`` characters more than the other answer.

    The regression is logit P(preferred) = a + b * tanh(extra / sd), the estimate its value where ``extra`` is 0; None
    when all answers are equally long, all verdicts the same, or there are too few clusters.
    """
    import numpy as np

    y, extra = np.asarray(preference, float), np.asarray(extra, float)
    codes, count = cluster_codes(clusters)
    if y.std() == 0 or extra.std() == 0 or count < 3:
        return None
    x = np.tanh(extra / extra.std())
    found = fit(y, x)
    design = np.stack([np.ones_like(x), x], axis=1)
    p = _share(design @ found)
    bread = np.linalg.inv((design * (p * (1 - p))[:, None]).T @ design + np.diag([0.0, RIDGE]))
    pull = np.stack([cluster_sums(design[:, k] * (y - p), codes, count) for k in (0, 1)], axis=1)
    cover = bread @ (pull.T @ pull) @ bread * count / (count - 1)
    se = math.sqrt(float(cover[0, 0]))
    half = t(count - 2) * se
    low, value, high = (float(_share(found[0] + side * half)) for side in (-1, 0, 1))
    return Estimate(value, low, high)


def fit(y: Any, x: Any, steps: int = 25) -> Any:
    """Intercept and slope of the logistic regression of ``y`` on ``x``: Newton steps, a ridge on the slope."""
    import numpy as np

    design, found = np.stack([np.ones_like(x), x], axis=1), np.zeros(2)
    ridge = np.array([0.0, RIDGE])
    for _ in range(steps):
        p = _share(design @ found)
        curve = (design * (p * (1 - p))[:, None]).T @ design + np.diag(ridge + 1e-9)
        step = np.linalg.solve(curve, design.T @ (y - p) - ridge * found)
        found = np.clip(found + step, -15, 15)
        if float(np.abs(step).max()) < 1e-9:
            break
    return found


def _share(logit: Any) -> Any:
    import numpy as np

    return 1 / (1 + np.exp(-logit))
