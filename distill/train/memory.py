"""How much memory a training needs, by one formula: `distill plan` prints it, the trainer asks before it loads.

Sizes are in bytes. No torch here.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distill.config import Adapter, Train

ACTIVATION_BYTES = 34  # per token, layer and hidden unit in bfloat16 (Korthikanti et al. 2022), nothing recomputed
CHECKPOINTED_BYTES = 2  # ... when only the layers' inputs are kept
LORA_PER_RANK = 17.7  # (inputs + outputs of the linear layers of one block) / hidden size, Llama-like
HEAD_BYTES = 128e6  # one chunk of logits, of student and teacher
STATE_BYTES = 16  # of a trained parameter: float32 value, gradient, two moments
QLORA_BYTES = 0.56  # of a frozen weight: 4 bits, and a scale for each 64


def trained(params: float, layers: int, hidden: int, adapter: Adapter) -> float:
    """Parameters that the optimizer sees."""
    return params if adapter.kind == "none" else LORA_PER_RANK * hidden * layers * adapter.r


def micro_tokens(settings: Train, length: float) -> float:
    """Tokens of a micro-batch whose rows have ``length`` tokens."""
    most = settings.micro_batch_size * length
    return max(length, min(most, settings.micro_batch_tokens)) if settings.micro_batch_tokens else most


def needed(
    params: float,
    trainable: float,
    layers: int,
    hidden: int,
    tokens: float,
    *,
    width: float = 2,
    quantised: bool = False,
    checkpointing: bool = False,
    teacher: float = 0,
) -> float:
    """Bytes of weights, optimizer, activations of ``tokens`` tokens in a micro-batch, and a teacher in this process.

    ``width``: bytes of a frozen weight and of an activation (2 = bfloat16, 4 = float32).
    """
    frozen = 0.0 if trainable >= params else (QLORA_BYTES if quantised else width) * params
    kept = CHECKPOINTED_BYTES * layers + ACTIVATION_BYTES if checkpointing else ACTIVATION_BYTES * layers
    return frozen + STATE_BYTES * trainable + width / 2 * kept * tokens * hidden + HEAD_BYTES + width * teacher


def formula(settings: Train, adapter: Adapter, *, teacher: bool) -> str:
    """:func:`needed` in words."""
    frozen = {"none": "", "qlora": f"{QLORA_BYTES} bytes x parameters + "}.get(adapter.kind, "2 bytes x parameters + ")
    kept = (
        f"({CHECKPOINTED_BYTES} x layers + {ACTIVATION_BYTES}) bytes x tokens in a micro-batch x hidden size"
        if settings.gradient_checkpointing
        else f"{ACTIVATION_BYTES} bytes x tokens in a micro-batch x layers x hidden size"
    )
    last = " + 2 bytes x teacher's parameters" if teacher else ""
    return f"memory = {frozen}{STATE_BYTES} bytes x trained parameters + {kept}{last}"


def folder_size(folder: Path) -> tuple[float, int | None, int | None] | None:
    """(parameters, layers, hidden size) of a model's folder; None when it does not say."""
    weights = sum(file.stat().st_size for file in folder.glob("*.safetensors")) if folder.is_dir() else 0
    try:
        settings = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        settings = {}
    if not weights or not isinstance(settings, dict):
        return None
    width = 4 if "float32" in str(settings.get("dtype", settings.get("torch_dtype"))) else 2
    return weights / width, settings.get("num_hidden_layers"), settings.get("hidden_size")


def available() -> float | None:
    """Memory of this machine that is free for us; the control group's limit counts. None when nothing says."""
    found = []
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        found += [float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    except OSError:
        if hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
            found.append(float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")))
    try:
        limit, used = (
            Path("/sys/fs/cgroup", name).read_text("ascii").strip() for name in ("memory.max", "memory.current")
        )
        if limit != "max":
            found.append(float(limit) - float(used))
    except OSError:
        pass
    return min(found) if found else None


def installed() -> float | None:
    """Memory of the card the training would use, or of this machine; None when nothing says."""
    try:
        import torch
    except ImportError:
        pass
    else:
        if torch.cuda.is_available():
            return float(torch.cuda.get_device_properties(0).total_memory)
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:
        return None
    return next((float(line.split()[1]) * 1024 for line in lines if line.startswith("MemTotal:")), None)


def give_back() -> None:
    """Let the system have the pages of what was freed in this process, which glibc's allocator would keep.

    A model's body leaves about as much of them as it holds. Asked between body and head, they never add to the peak.
    """
    if (trim := _malloc_trim()) is not None:
        trim(0)


@functools.cache
def _malloc_trim() -> ctypes._NamedFuncPointer | None:
    """glibc's malloc_trim; None with another library."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None
