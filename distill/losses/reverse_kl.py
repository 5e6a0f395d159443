"""KL(student || teacher): say only what the teacher would say (Gu et al. 2023, MiniLLM, arXiv 2306.08543)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from distill.losses._base import LossConfig, kl

if TYPE_CHECKING:
    from torch import Tensor


class Config(LossConfig):
    """No settings."""

    kind: Literal["reverse_kl"] = "reverse_kl"


def divergence(student_NV: Tensor, teacher_NV: Tensor, config: Config) -> Tensor:  # noqa: ARG001
    """KL(student || teacher) [N]."""
    return kl(student_NV, teacher_NV)


def gradient(student_NV: Tensor, teacher_NV: Tensor, config: Config) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    """Divergence [N] and its slope q (log q - log p) [N, V]; the remaining q is removed by the softmax."""
    slope_NV = (student_NV - teacher_NV).mul_(student_NV.exp())
    return slope_NV.sum(-1), slope_NV
