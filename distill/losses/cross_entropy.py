"""-sum p log q: cross entropy with the teacher's distribution; with a one-hot teacher, plain likelihood of its text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from distill.losses._base import LossConfig

if TYPE_CHECKING:
    from torch import Tensor

    from distill.losses._base import Distribution


class Config(LossConfig):
    """No settings."""

    kind: Literal["cross_entropy"] = "cross_entropy"


def divergence(student_NV: Tensor, teacher_NV: Tensor, config: Config) -> Tensor:  # noqa: ARG001
    """Cross entropy [N]: forward KL plus the teacher's own entropy, which no student can go below."""
    return -(teacher_NV.exp() * student_NV).sum(-1)


def gradient(student: Distribution, teacher: Distribution, config: Config) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    """Cross entropy [N] and its slope q - p [N, V]."""
    return (teacher.p * student.log).sum(-1).neg_(), student.p - teacher.p
