"""A loss file: ``Config`` and ``divergence(student_NV, teacher_NV, config) -> per-token divergence [N]``.

Both arguments are finite log-probabilities (the objective floors a probability of 0). Temperature, missing mass,
masking, chunking and reduction are not the loss's business: they live once, in ``distill.train.objective``. Tensor
methods suffice, so a loss needs no torch import and its settings are validated without torch.

A file may also hold ``gradient(student_NV, teacher_NV, config) -> (divergence [N], slope [N, V])`` with the slope
d divergence / d student log-probability (any constant times the student's probabilities may be added: the softmax
removes it). It saves the memory and time of automatic differentiation; without it nothing else changes.

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
    """KL(p || q) per row [N] of two log-probability tensors."""
    return (p_NV.exp() * (p_NV - q_NV)).sum(-1)
