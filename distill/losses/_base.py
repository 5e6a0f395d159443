"""A loss file: ``Config`` and ``divergence(student_NV, teacher_NV, config) -> per-token divergence [N]``.

Both arguments are finite log-probabilities (the objective floors a probability of 0). Temperature, missing mass,
masking, chunking and reduction are not the loss's business: they live once, in ``distill.train.objective``. Tensor
methods suffice, so a loss needs no torch import and its settings are validated without torch.

A file may also hold ``gradient(student, teacher, config) -> (divergence [N], slope [N, V])`` of two
:class:`Distribution`, with the slope d divergence / d student logit. It saves the memory and most of the time of
automatic differentiation, above all exponentials; without it nothing else changes.

Shapes: N completion positions, V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from distill.plugins import PluginConfig

if TYPE_CHECKING:
    from torch import Tensor


TINY = 1.2e-38  # least mixture of two probabilities: below it both are 0 and so is what stands before its logarithm


class Distribution(NamedTuple):
    """What a model says: log-probabilities and probabilities [N, V]. Not the loss's to change."""

    log: Tensor
    p: Tensor


class LossConfig(PluginConfig):
    """Base of a loss's settings."""


def kl(p_NV: Tensor, q_NV: Tensor) -> Tensor:
    """KL(p || q) per row [N] of two log-probability tensors."""
    return (p_NV.exp() * (p_NV - q_NV)).sum(-1)


def mean_gap(p: Distribution, log_NV: Tensor) -> Tensor:
    """Sum of p (log p - log) per row [N]."""
    return (p.log - log_NV).mul_(p.p).sum(-1)


def log_mixture(one: Distribution, other: Distribution, weight: float) -> Tensor:
    """log(weight * one + (1 - weight) * other) [N, V], without an exponential."""
    return other.p.lerp(one.p, weight).clamp_(min=TINY).log_()


def through_softmax(slope_NV: Tensor, p_NV: Tensor) -> Tensor:
    """d / d logit of what has this slope in the log-probabilities; in place."""
    return slope_NV.addcmul_(p_NV, slope_NV.sum(-1, keepdim=True), value=-1)
