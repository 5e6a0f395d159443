"""Universal logit distillation: L1 distance of sorted probabilities, for unlike vocabularies (arXiv 2402.12030)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from distill.losses._base import LossConfig

if TYPE_CHECKING:
    from torch import Tensor


class Config(LossConfig):
    """No settings."""

    kind: Literal["uld"] = "uld"


def divergence(student_NV: Tensor, teacher_NV: Tensor, config: Config) -> Tensor:  # noqa: ARG001
    """sum |sorted q - sorted p| [N], in 0..2; the vocabularies may differ in size, the smaller ends in zeros."""
    q_NV, p_NV = (t.exp().sort(-1, descending=True).values for t in (student_NV, teacher_NV))
    both = min(q_NV.shape[-1], p_NV.shape[-1])
    apart_N = (q_NV[..., :both] - p_NV[..., :both]).abs().sum(-1)
    return apart_N + q_NV[..., both:].sum(-1) + p_NV[..., both:].sum(-1)
