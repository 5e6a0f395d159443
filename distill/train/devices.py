"""Who of several processes does what: micro-batches dealt out in turn, sums over all of them."""

from __future__ import annotations

import contextlib
from typing import Any

import torch


def share_of(count: int, accelerator: Any) -> list[tuple[int, float]]:
    """(number, weight) of the micro-batches this process runs; one without work repeats the first at weight 0."""
    own = range(accelerator.process_index, count, accelerator.num_processes)
    return [(number, 1.0) for number in own] or [(0, 0.0)]


def sync_on_last(accelerator: Any, module: Any, last: bool) -> Any:
    """Processes exchange gradients in the last micro-batch of a step only."""
    return contextlib.nullcontext() if last else accelerator.no_sync(module)


def total(value: float, accelerator: Any) -> float:
    """The sum of ``value`` over all processes."""
    return float(accelerator.reduce(torch.tensor(value, dtype=torch.float64, device=accelerator.device), "sum"))
