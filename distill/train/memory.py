"""How much memory a training needs, by one formula: `distill plan` prints it, the trainer asks before it loads.

Sizes are in bytes. No torch here.
"""

from __future__ import annotations

import os
from pathlib import Path

ACTIVATION_BYTES = 34  # per token, layer and hidden unit in bfloat16 (Korthikanti et al. 2022), nothing recomputed
CHECKPOINTED_BYTES = 2  # ... when only the layers' inputs are kept
LORA_PER_RANK = 17.7  # (inputs + outputs of the linear layers of one block) / hidden size, Llama-like
HEAD_BYTES = 32e6  # one chunk of logits
STATE_BYTES = 16  # of a trained parameter: float32 value, gradient, two moments
QLORA_BYTES = 0.56  # of a frozen weight: 4 bits, and a scale for each 64


def trained(params: float, layers: int, hidden: int, adapter: str, rank: int) -> float:
    """Parameters that the optimizer sees."""
    return params if adapter == "none" else LORA_PER_RANK * hidden * layers * rank


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
