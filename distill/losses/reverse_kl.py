"""KL(student || teacher): say only what the teacher would say (Gu et al. 2023, MiniLLM, arXiv 2306.08543)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from distill.losses._base import LossConfig, kl, through_softmax

if TYPE_CHECKING:
    from torch import Tensor

    from distill.losses._base import Distribution


class Config(LossConfig):
    """No settings."""

    kind: Literal["reverse_kl"] = "reverse_kl"


def divergence(student_NV: Tensor, teacher_NV: Tensor, config: Config) -> Tensor:  # noqa: ARG001
    """KL(student || teacher) [N]."""
    return kl(student_NV, teacher_NV)


def gradient(student: Distribution, teacher: Distribution, config: Config) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    """Divergence [N] and its slope q (log q - log p - divergence) [N, V]."""
    slope_NV = (student.log - teacher.log).mul_(student.p)
    return slope_NV.sum(-1), through_softmax(slope_NV, student.p)
