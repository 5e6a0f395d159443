"""16-bit weights held as the file stores them and widened to float32 piece by piece while they are multiplied.

A processor without 16-bit multiplications computes in float32. Weights that a file stores in 16 bits need not take 32
for that: widening is exact, so results are those of float32 weights made from the same file. What is held is half the
bytes, mapped from the file: its pages are read when first used and given back when memory is short.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from distill.models.folder import check_folder

if TYPE_CHECKING:
    from pathlib import Path

PIECE = 1 << 20
"""Weights widened at a time: 4 MB of float32 stay in a processor's cache between widening and multiplying."""
NARROW = {"BF16": "bfloat16", "F16": "float16"}


def stored_dtype(folder: Path) -> str | None:
    """`bfloat16` or `float16` when every tensor of a model folder is of that one type, else None."""
    from safetensors import safe_open

    found: set[str] = set()
    for file in check_folder(folder):
        with safe_open(str(file), "pt") as opened:
            found |= {opened.get_slice(name).get_dtype() for name in opened.keys()}  # noqa: SIM118
    return NARROW.get(found.pop()) if len(found) == 1 else None


def widen_when_used(model: Any) -> bool:
    """Make a 16-bit ``model`` compute in float32: weights of plain linear layers and embeddings stay narrow, the rest
    is widened now. For inference: no gradient reaches the weights.

    False, with the model unchanged, when it holds a 16-bit buffer: that was rounded when it was made.
    """
    import torch

    narrow = (torch.bfloat16, torch.float16)
    if any(buffer.dtype in narrow for buffer in model.buffers()):
        return False
    linear, embedding = _classes()
    plain = {torch.nn.Linear: linear, torch.nn.Embedding: embedding}
    held: dict[int, bool] = {}  # a weight used in two places stays narrow only if both can read it so
    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False):
            fits = name == "weight" and type(module) in plain
            held[id(weight)] = fits and held.get(id(weight), True)
    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False):
            if weight.dtype not in narrow:
                continue
            if not held[id(weight)]:
                weight.data = weight.data.float()
            elif name == "weight":
                module.__class__ = plain[type(module)]
    return True


def compute_dtype(model: Any) -> Any:
    """The torch dtype that ``model`` computes in."""
    import torch

    return torch.float32 if any(isinstance(module, _classes()) for module in model.modules()) else model.dtype


@functools.cache
def _classes() -> tuple[type, type]:
    """(linear layer, embedding) whose narrow weight is widened where it is used."""
    import torch

    class Linear(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return _linear(x, self.weight, self.bias)

    class Embedding(torch.nn.Embedding):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return super().forward(ids).float()

    return Linear, Embedding


def _linear(x: Any, weight_NK: Any, bias_N: Any) -> Any:
    """x [..., K] times the transpose of ``weight_NK``, in float32."""
    import torch

    (outputs, inputs), rows = weight_NK.shape, max(1, PIECE // weight_NK.shape[1])
    if outputs <= rows or torch.is_grad_enabled():
        return torch.nn.functional.linear(x, weight_NK.float(), bias_N)
    flat = x.reshape(-1, inputs)
    result = x.new_empty((len(flat), outputs))
    piece = x.new_empty((rows, inputs))
    for start in range(0, outputs, rows):
        stop = min(start + rows, outputs)
        part = piece[: stop - start]
        part.copy_(weight_NK[start:stop])
        torch.mm(flat, part.t(), out=result[:, start:stop])
    if bias_N is not None:
        result += bias_N
    return result.view(*x.shape[:-1], outputs)
