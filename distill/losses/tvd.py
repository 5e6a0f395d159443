"""Total variation distance: half the L1 distance of the probabilities (Wen et al. 2023, arXiv 2307.15190)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from distill.losses._base import LossConfig, through_softmax

if TYPE_CHECKING:
    from torch import Tensor

    from distill.losses._base import Distribution


class Config(LossConfig):
    """No settings."""

    kind: Literal["tvd"] = "tvd"


def divergence(student_NV: Tensor, teacher_NV: Tensor, config: Config) -> Tensor:  # noqa: ARG001
    """Half of sum |q - p| [N], in 0..1."""
    return (student_NV.exp() - teacher_NV.exp()).abs().sum(-1).mul(0.5)


def gradient(student: Distribution, teacher: Distribution, config: Config) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    """Distance [N] and its slope in log q, sign(q - p) q / 2 [N, V], through the softmax."""
    apart_NV = student.p - teacher.p
    value_N = apart_NV.abs().sum(-1).mul_(0.5)
    return value_N, through_softmax(apart_NV.sign_().mul_(student.p).mul_(0.5), student.p)
