"""Generalised Jensen-Shannon divergence, between forward and reverse KL (Agarwal et al. 2023, arXiv 2306.13649)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from distill.losses._base import LossConfig, kl, log_mixture, mean_gap, through_softmax

if TYPE_CHECKING:
    from torch import Tensor

    from distill.losses._base import Distribution


class Config(LossConfig):
    """How the mixture M = beta * teacher + (1 - beta) * student is weighted."""

    kind: Literal["jsd"] = "jsd"
    beta: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Weight of the teacher in the mixture; near 0 it behaves as forward KL, near 1 as reverse KL."""


def divergence(student_NV: Tensor, teacher_NV: Tensor, config: Config) -> Tensor:
    """beta * KL(teacher || M) + (1 - beta) * KL(student || M) [N]."""
    mixture_NV = _mixture(student_NV, teacher_NV, config.beta)
    return config.beta * kl(teacher_NV, mixture_NV) + (1 - config.beta) * kl(student_NV, mixture_NV)


def gradient(student: Distribution, teacher: Distribution, config: Config) -> tuple[Tensor, Tensor]:
    """Divergence [N] and its slope (1 - beta) q (log q - log M - KL(q || M)) [N, V]: what flows through M cancels."""
    mixture_NV = log_mixture(teacher, student, config.beta)
    slope_NV = (student.log - mixture_NV).mul_(student.p).mul_(1 - config.beta)
    return slope_NV.sum(-1) + config.beta * mean_gap(teacher, mixture_NV), through_softmax(slope_NV, student.p)


def _mixture(student_NV: Tensor, teacher_NV: Tensor, beta: float) -> Tensor:
    return (teacher_NV + math.log(beta)).logaddexp(student_NV + math.log1p(-beta))
