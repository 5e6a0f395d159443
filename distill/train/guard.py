"""Stops a diverging run before it spoils the student: the last good checkpoint stays, the rows are named."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

from distill.errors import Diverged, OutOfMemory

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from torch import Tensor

SHOWN = 4


def check_finite(value: Tensor, what: str, ids: Sequence[str], step: int, metrics: Path) -> None:
    """Raise Diverged when ``value`` (a loss, a gradient norm) is not finite; the ids go to ``diverged.json`` too."""
    if bool(value.isfinite().all()):
        return
    report = metrics.with_name("diverged.json")
    report.write_text(json.dumps({"step": step + 1, "what": what, "rows": list(ids)}, ensure_ascii=False), "utf-8")
    shown = ", ".join(ids[:SHOWN]) + (f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else "")
    raise Diverged(
        f"the {what} became {float(value.detach()):g} in step {step + 1}, rows {shown}",
        where=str(report),
        safe="the last checkpoint",
        next="look at these rows, or lower train.lr, then the same command",
    )


@contextlib.contextmanager
def memory_limit(micro_batch_size: int) -> Iterator[None]:
    """Turn the ways in which memory runs out into OutOfMemory, with what to change."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = str(error).lower()
        if not isinstance(error, MemoryError) and "out of memory" not in text and "can't allocate memory" not in text:
            raise
        smaller = (
            f"train.micro_batch_size={micro_batch_size // 2}"
            if micro_batch_size > 1
            else "a smaller student.max_length"
        )
        raise OutOfMemory(
            "a training step does not fit in memory",
            safe="the last checkpoint",
            next=f"the same command with {smaller}",
        ) from error
