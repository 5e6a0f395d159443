"""Several processes: micro-batches are dealt out in turn, sums are over all of them, and the student is either copied
to each (DDP) or split over them layer by layer (FSDP2, arXiv 2304.11277)."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from distill.errors import ConfigError

if TYPE_CHECKING:
    from distill.config import RunConfig


def share_of(count: int, accelerator: Any, *, split: bool = False) -> list[tuple[int, float]]:
    """(number, weight) of the micro-batches this process runs. One without work repeats the first at weight 0.

    ``split``: all processes run equally many, since each needs the others for every layer it computes.
    """
    own = [(number, 1.0) for number in range(accelerator.process_index, count, accelerator.num_processes)]
    least = -(-count // accelerator.num_processes) if split else 1
    return own + [(0, 0.0)] * (least - len(own))


def agree(accelerator: Any, *flags: bool) -> list[bool]:
    """Each flag, true everywhere when it is true in one process: clocks and signals differ between them."""
    if accelerator.num_processes == 1:
        return list(flags)
    found = accelerator.reduce(torch.tensor(flags, dtype=torch.int32, device=accelerator.device), "sum")
    return [bool(flag) for flag in found.tolist()]


def sync_on_last(accelerator: Any, module: Any, last: bool) -> Any:
    """Processes exchange gradients in the last micro-batch of a step only."""
    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(last)
        return contextlib.nullcontext()
    return contextlib.nullcontext() if last else accelerator.no_sync(module)


def total(value: float, accelerator: Any) -> float:
    """The sum of ``value`` over all processes."""
    return float(accelerator.reduce(torch.tensor(value, dtype=torch.float64, device=accelerator.device), "sum"))


# -- a student in parts ------------------------------------------------------------------------------------------


def check_shard(config: RunConfig, processes: int) -> None:
    """Raise ConfigError where the student cannot be split."""
    method, kind = config.train.method, config.student.adapter.kind
    if processes < 2:
        raise ConfigError(
            "train.shard splits the student over several processes, and this is the only one",
            next="torchrun --nproc_per_node N -m distill train CONFIG, or train.shard=false",
        )
    if method in ("on_policy", "preference") or kind == "qlora":
        raise ConfigError(
            f"train.shard works for students that neither answer during training nor are held in 4 bits, "
            f"and this is {method} with adapter {kind}",
            next="train.shard=false",
        )


def split(objective: nn.Module, layers: nn.ModuleList, device: torch.device) -> nn.Module:
    """The module with its weights split over all processes; a layer is whole only while it is computed."""
    from torch.distributed import get_world_size, init_device_mesh

    mesh = init_device_mesh(device.type, (get_world_size(),))
    for layer in layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(objective, mesh=mesh)
    return objective


def join(module: nn.Module) -> None:
    """Give every process all weights of a split module again; shared weights stay shared."""
    known: dict[int, nn.Parameter] = {}
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            if isinstance(parameter, DTensor):
                if id(parameter) not in known:
                    known[id(parameter)] = nn.Parameter(whole(parameter), parameter.requires_grad)
                setattr(part, name, known[id(parameter)])


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, gathered from every process where it is split: all of them must call this."""
    tensor = tensor.detach()
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(parameter: Tensor, value: Tensor) -> Tensor:
    """``value`` on the device of ``parameter`` and split as it is."""
    value = value.to(parameter.device)
    if not isinstance(parameter, DTensor):
        return value
    return distribute_tensor(value, parameter.device_mesh, parameter.placements)
