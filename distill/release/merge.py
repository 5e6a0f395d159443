"""A low-rank adapter added into its base weights, one tensor at a time (Hu et al. 2021; DoRA: Liu et al. 2024).

The arithmetic is peft's own, operation by operation, so that the float32 result has the same bits.
"""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

from distill.errors import DataError, IntegrityError
from distill.release import tensors

if TYPE_CHECKING:
    from pathlib import Path

    from distill.release.tensors import Tensor

PREFIX = "base_model.model."
PARTS = re.compile(r"^(?P<module>.+)\.(?P<part>lora_A\.weight|lora_B\.weight|lora_magnitude_vector(\.weight)?)$")


class Adapter:
    """An adapter folder in peft's format. Raises DataError for a kind of adapter that cannot be merged here."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.config: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text("utf-8"))
        if self.config.get("peft_type") != "LORA" or self.config.get("bias", "none") != "none":
            raise DataError("only LoRA and DoRA adapters without bias are merged", where=str(folder))
        self.modules: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.read_index(folder).items():
            found = PARTS.match(name.removeprefix(PREFIX))
            if found is None:
                raise DataError(f"{name} is not a part of a LoRA adapter that can be merged", where=str(folder))
            part = found["part"].removesuffix(".weight").removeprefix("lora_")
            self.modules.setdefault(found["module"], {})[part] = tensor

    def scaling(self, module: str, rank: int) -> float:
        """alpha / r, or alpha / sqrt(r) for rank-stabilised LoRA (Kalajdzievski 2023)."""
        alpha = self.config["lora_alpha"]
        for pattern, value in (self.config.get("alpha_pattern") or {}).items():
            if re.match(rf"(.*\.)?({pattern})$", module):
                alpha = value
                break
        return float(alpha / math.sqrt(rank) if self.config.get("use_rslora") else alpha / rank)

    def check_against(self, base: dict[str, Tensor]) -> None:
        """IntegrityError unless every module of the adapter has its weight, of the right shape, in ``base``."""
        for module, parts in self.modules.items():
            weight = base.get(f"{module}.weight")
            if weight is None or not {"A", "B"} <= set(parts):
                raise IntegrityError(f"the adapter's {module} has no counterpart in the base", where=str(self.folder))
            shape = (parts["B"].shape[0], parts["A"].shape[1])
            wanted = shape[::-1] if self.config.get("fan_in_fan_out") else shape
            if weight.shape != wanted:
                raise IntegrityError(f"{module} is {weight.shape}, the adapter wants {wanted}", where=str(self.folder))

    def merged(self, weight: Tensor) -> Any | None:
        """The merged torch tensor in the base's type, or None when the adapter does not touch this weight."""
        import torch

        module = weight.name.removesuffix(".weight")
        parts = self.modules.get(module)
        if parts is None or not weight.name.endswith(".weight"):
            return None
        low, high = tensors.load(parts["A"]).float(), tensors.load(parts["B"]).float()
        turn = bool(self.config.get("fan_in_fan_out"))
        delta = high @ low
        delta = (delta.T if turn else delta) * self.scaling(module, low.shape[0])
        base = tensors.load(weight)
        if "magnitude_vector" not in parts:
            base += delta
            return base
        total = base + delta
        norm = torch.linalg.norm(total.T if turn else total, dim=1)
        factor = (tensors.load(parts["magnitude_vector"]).float() / norm).view(-1, 1)
        return ((factor.T if turn else factor) * total).to(base.dtype)
