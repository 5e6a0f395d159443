"""KL(student || alpha * student + (1 - alpha) * teacher): reverse KL that stays bounded (arXiv 2402.03898)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from distill.losses._base import LossConfig, kl, log_mixture, through_softmax

if TYPE_CHECKING:
    from torch import Tensor

    from distill.losses._base import Distribution


class Config(LossConfig):
    """How much of the student is mixed into the teacher."""

    kind: Literal["skew_rkl"] = "skew_rkl"
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the student in the mixture; 0 would be reverse KL."""


def divergence(student_NV: Tensor, teacher_NV: Tensor, config: Config) -> Tensor:
    """Skew reverse KL [N]."""
    return kl(student_NV, _mixture(student_NV, teacher_NV, config.alpha))


def gradient(student: Distribution, teacher: Distribution, config: Config) -> tuple[Tensor, Tensor]:
    """Divergence [N] and its slope in log q, q (log q - log M - alpha q / M) [N, V], through the softmax."""
    ratio_NV = student.log - log_mixture(student, teacher, config.alpha)
    value_N = (student.p * ratio_NV).sum(-1)
    slope_NV = ratio_NV.sub_(ratio_NV.exp(), alpha=config.alpha).mul_(student.p)
    return value_N, through_softmax(slope_NV, student.p)


def _mixture(student_NV: Tensor, teacher_NV: Tensor, alpha: float) -> Tensor:
    return (student_NV + math.log(alpha)).logaddexp(teacher_NV + math.log1p(-alpha))
