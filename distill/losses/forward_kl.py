"""KL(teacher || student): cover everything the teacher may say (Hinton et al. 2015, arXiv 1503.02531)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from distill.losses._base import LossConfig, kl, mean_gap

if TYPE_CHECKING:
    from torch import Tensor

    from distill.losses._base import Distribution


class Config(LossConfig):
    """No settings."""

    kind: Literal["forward_kl"] = "forward_kl"


def divergence(student_NV: Tensor, teacher_NV: Tensor, config: Config) -> Tensor:  # noqa: ARG001
    """KL(teacher || student) [N]."""
    return kl(teacher_NV, student_NV)


def gradient(student: Distribution, teacher: Distribution, config: Config) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    """Divergence [N] and its slope q - p [N, V]."""
    return mean_gap(teacher, student.log), student.p - teacher.p
