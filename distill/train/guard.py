"""Stops a diverging run before it spoils the student: the last good checkpoint stays, the batch is written down."""

from __future__ import annotations

import contextlib
import json
from statistics import median
from typing import TYPE_CHECKING

from distill import artifacts
from distill.errors import Diverged, OutOfMemory

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from torch import Tensor

    from distill.train.batches import Row

SHOWN = 4
FIRST, RECENT = 8, 32  # losses that say how large a loss is, and how much it varies
MAD_TO_DEVIATION = 1.4826  # of a normal distribution


def check_finite(value: Tensor, what: str, rows: Sequence[Row], step: int, metrics: Path) -> None:
    """Raise Diverged when ``value`` (a loss, a gradient norm) is not finite."""
    if not bool(value.isfinite().all()):
        _stop(f"the {what} became {float(value.detach()):g}", rows, step, metrics, "lower train.lr")


def check_spike(
    loss: float, losses: Sequence[float], factor: float, rows: Sequence[Row], step: int, path: Path
) -> None:
    """Raise Diverged when ``loss`` lies far above the ones before it."""
    limit = spike_limit(losses, factor)
    if limit is not None and loss > limit:
        what = f"the loss jumped to {loss:.4g} (limit {limit:.4g}, train.max_spike {factor:g})"
        _stop(what, rows, step, path, "train.max_spike=0 to go on over it")


def spike_limit(losses: Sequence[float], factor: float) -> float | None:
    """Median + ``factor`` robust deviations of the recent losses; None when there are too few, or it is off."""
    if not factor or len(losses) < FIRST:
        return None
    recent = losses[-RECENT:]
    middle = median(recent)
    spread = MAD_TO_DEVIATION * median(abs(loss - middle) for loss in recent)
    # A student that has learnt nearly everything has tiny losses; one hard row among them is no divergence.
    return middle + factor * max(spread, 0.1 * abs(median(losses[:FIRST])))


def remembered(losses: Sequence[float]) -> list[float]:
    """The losses that the next step's limit depends on: what a checkpoint keeps of them."""
    return [*losses[:FIRST], *losses[FIRST:][-RECENT:]]


def _stop(what: str, rows: Sequence[Row], step: int, metrics: Path, advice: str) -> None:
    """Write the batch to ``diverged.json`` and raise Diverged."""
    report = metrics.with_name("diverged.json")
    batch = [{"id": row.id, "prompt": row.prompt, "completion": row.completion} for row in rows]
    artifacts.write_text(report, json.dumps({"step": step + 1, "what": what, "rows": batch}, ensure_ascii=False))
    names = [row.id for row in rows]
    shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    raise Diverged(
        f"{what} in step {step + 1}, rows {shown}",
        where=str(report),
        safe="the last checkpoint",
        next=f"look at these rows, or {advice}, then the same command",
    )


def is_out_of_memory(error: BaseException) -> bool:
    """True for the ways in which memory runs out."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)
    )


@contextlib.contextmanager
def memory_limit() -> Iterator[None]:
    """Turn the ways in which memory runs out into OutOfMemory, with what to change."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(
            "a training step does not fit in memory",
            safe="the last checkpoint",
            next="train.gradient_checkpointing=true, train.micro_batch_size=1, or a smaller student.max_length",
        ) from error
