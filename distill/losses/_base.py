"""A loss file: ``Config`` and ``divergence(student_NV, teacher_NV, config) -> per-token divergence [N]``.

Both arguments are log-probabilities in float32. Temperature, missing mass, masking, chunking and reduction are
not the loss's business: they live once, in ``distill.train.objective``. Tensor methods suffice, so a loss needs no
torch import and its settings are validated without torch.

Shapes: N completion positions, V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill.plugins import PluginConfig

if TYPE_CHECKING:
    from torch import Tensor


class LossConfig(PluginConfig):
    """Base of a loss's settings."""


def kl(p_NV: Tensor, q_NV: Tensor) -> Tensor:
    """KL(p || q) per row [N] of two log-probability tensors; a probability of 0 in p adds 0."""
    return (p_NV.exp() * (p_NV - q_NV)).nan_to_num(nan=0.0).sum(-1)
