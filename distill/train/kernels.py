"""Other ways to compute the same student: its attention kernel, Liger's fused kernels.

None of them touches the head or the loss: those stay in ``objective``, chunk by chunk.
"""

from __future__ import annotations

import inspect
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch

from distill.config import LIVE_METHODS
from distill.errors import ConfigError, EnvironmentProblem
from distill.models import pick_dtype
from distill.train.student import causal_lm

if TYPE_CHECKING:
    from distill.config import RunConfig

LIGER = {"rope": True, "rms_norm": True, "swiglu": True, "geglu": True}
NOT_LIGER = {"cross_entropy": False, "fused_linear_cross_entropy": False}  # the loss is ours


def check(config: RunConfig) -> None:
    """Refuse what cannot run here, before weights are loaded. Raises ConfigError, EnvironmentProblem."""
    if config.student.attention == "flash_attention_2":
        _check_flash(config)
    if config.train.liger:
        _need_cuda("train.liger", "train.liger=false")
        _need("liger_kernel", "train.liger", "pip install 'alambic[liger]'")


def _check_flash(config: RunConfig) -> None:
    _need_cuda("student.attention flash_attention_2", "student.attention=auto")
    _need("flash_attn", "student.attention flash_attention_2", "pip install flash-attn")
    student, teacher = config.student, config.teacher
    whole = student.adapter.kind == "none" and student.dtype == "auto"
    dtypes = {"student": "float32" if whole else student.dtype}
    if config.train.method in LIVE_METHODS and teacher.kind == "transformers":
        dtypes["teacher"] = teacher.dtype  # type: ignore[attr-defined]
    for who, dtype in dtypes.items():
        if (held := pick_dtype(dtype, "cuda")) != "bfloat16":
            raise ConfigError(
                f"student.attention flash_attention_2 computes in bfloat16, and the {who} would be held in {held}",
                next=f"{who}.dtype=bfloat16, or student.attention=auto",
            )


def _need_cuda(key: str, instead: str) -> None:
    if not torch.cuda.is_available():
        raise EnvironmentProblem(f"{key} needs a CUDA device", next=instead)


def _need(package: str, key: str, command: str) -> None:
    if find_spec(package) is None:
        raise EnvironmentProblem(f"{key} needs the package {package}", next=command)


def fuse(model: Any) -> None:
    """Liger's RMSNorm, rotary positions and gated MLP in place of the model's own (arXiv 2410.10989).

    Weights and their names stay. The rotary function is replaced for all models of this architecture in the process.
    Raises ConfigError for an architecture without such kernels.
    """
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN

    inner = causal_lm(model)
    apply = MODEL_TYPE_TO_APPLY_LIGER_FN.get(inner.config.model_type)
    if apply is None:
        raise ConfigError(
            f"Liger has no kernels for the architecture {inner.config.model_type}", next="train.liger=false"
        )
    known = inspect.signature(apply).parameters
    apply(model=inner, **{name: on for name, on in {**LIGER, **NOT_LIGER}.items() if name in known})
