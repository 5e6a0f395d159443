"""KL(teacher || alpha * teacher + (1 - alpha) * student): forward KL that stays bounded (arXiv 2402.03898)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from distill.losses._base import LossConfig, kl, log_mixture, mean_gap, through_softmax

if TYPE_CHECKING:
    from torch import Tensor

    from distill.losses._base import Distribution


class Config(LossConfig):
    """How much of the teacher is mixed into the student."""

    kind: Literal["skew_kl"] = "skew_kl"
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the teacher in the mixture; 0 would be forward KL."""


def divergence(student_NV: Tensor, teacher_NV: Tensor, config: Config) -> Tensor:
    """Skew KL [N]."""
    return kl(teacher_NV, _mixture(student_NV, teacher_NV, config.alpha))


def gradient(student: Distribution, teacher: Distribution, config: Config) -> tuple[Tensor, Tensor]:
    """Divergence [N] and its slope in log q, -(1 - alpha) q p / M [N, V], through the softmax."""
    mixture_NV = log_mixture(teacher, student, config.alpha)
    value_N = mean_gap(teacher, mixture_NV)
    slope_NV = (teacher.log - mixture_NV).exp_().mul_(student.p).mul_(config.alpha - 1)
    return value_N, through_softmax(slope_NV, student.p)


def _mixture(student_NV: Tensor, teacher_NV: Tensor, alpha: float) -> Tensor:
    return (teacher_NV + math.log(alpha)).logaddexp(student_NV + math.log1p(-alpha))
