"""How sure a system is of an answer, by what it says of its tokens. The router of a bundle computes the same."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def mean_probability(logprobs: Sequence[float] | None) -> float | None:
    """Geometric mean of the tokens' probabilities, 0..1; 0 for an answer without tokens; None when nothing is said."""
    if logprobs is None:
        return None
    return min(1.0, math.exp(sum(logprobs) / len(logprobs))) if logprobs else 0.0
