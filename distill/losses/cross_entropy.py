"""-sum p log q: cross entropy with the teacher's distribution; with a one-hot teacher, plain likelihood of its text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from distill.losses._base import LossConfig

if TYPE_CHECKING:
    from torch import Tensor


class Config(LossConfig):
    """No settings."""

    kind: Literal["cross_entropy"] = "cross_entropy"


def divergence(student_NV: Tensor, teacher_NV: Tensor, config: Config) -> Tensor:  # noqa: ARG001
    """Cross entropy [N]: forward KL plus the teacher's own entropy, which no student can go below."""
    return -(teacher_NV.exp() * student_NV).sum(-1)


def gradient(student_NV: Tensor, teacher_NV: Tensor, config: Config) -> tuple[Tensor, Tensor]:
    """Cross entropy [N] and its slope -p [N, V]."""
    return divergence(student_NV, teacher_NV, config), teacher_NV.exp().neg_()
