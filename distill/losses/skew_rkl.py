"""KL(student || alpha * student + (1 - alpha) * teacher): reverse KL that stays bounded (arXiv 2402.03898)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from distill.losses._base import LossConfig, kl

if TYPE_CHECKING:
    from torch import Tensor


class Config(LossConfig):
    """How much of the student is mixed into the teacher."""

    kind: Literal["skew_rkl"] = "skew_rkl"
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the student in the mixture; 0 would be reverse KL."""


def divergence(student_NV: Tensor, teacher_NV: Tensor, config: Config) -> Tensor:
    """Skew reverse KL [N]."""
    return kl(student_NV, _mixture(student_NV, teacher_NV, config.alpha))


def gradient(student_NV: Tensor, teacher_NV: Tensor, config: Config) -> tuple[Tensor, Tensor]:
    """Divergence [N] and its slope q (log q - log M - alpha q / M) [N, V]; the remaining q the softmax removes."""
    ratio_NV = student_NV - _mixture(student_NV, teacher_NV, config.alpha)
    q_NV = student_NV.exp()
    value_N = (q_NV * ratio_NV).sum(-1)
    return value_N, q_NV.mul_(ratio_NV - ratio_NV.exp().mul_(config.alpha))


def _mixture(student_NV: Tensor, teacher_NV: Tensor, alpha: float) -> Tensor:
    return (student_NV + math.log(alpha)).logaddexp(teacher_NV + math.log1p(-alpha))
