"""The held-out rows during training: when they are measured, what they say, and when that means to stop.

``measured`` maps a step (as text: it is kept as JSON) to what was measured before that step. Everything here is a
function of it, so a resumed run decides what the uninterrupted one did.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from distill.train.batches import Batch, Rows, collate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from distill.train.schedule import Stop
    from distill.train.signal import Source
    from distill.train.student import Objective

Measured = dict[str, dict[str, float]]


def is_due(step: int, total: int, every: int) -> bool:
    """Whether the held-out rows are measured before ``step``."""
    return step == total or step % every == 0


def best_step(measured: Mapping[str, Mapping[str, float]]) -> int | None:
    """The first step with the lowest held-out loss; None when nothing was measured."""
    losses = {int(step): values["holdout_loss"] for step, values in measured.items()}
    return min(losses, key=lambda step: (losses[step], step)) if losses else None


def has_stalled(measured: Mapping[str, Mapping[str, float]], patience: int) -> bool:
    """True when the last ``patience`` measurements were all no better than an earlier one."""
    best = best_step(measured)
    return bool(patience) and best is not None and sum(int(step) > best for step in measured) >= patience


@dataclass
class Holdout:
    """Measures the objective on the held-out rows; every process measures all of them."""

    objective: Objective
    source: Source
    rows: Rows
    pad: int
    device: Any
    share: bool
    size: int = 16
    _batches: list[Batch] = field(default_factory=list)

    def measure(self, stop: Stop) -> dict[str, float]:
        """Mean per token of loss, cross entropy and divergence; {} without rows or when asked to stop."""
        if not self._batches:
            order = sorted(range(len(self.rows.rows)), key=lambda i: (self.rows.lengths[i], i))
            groups = [order[at : at + self.size] for at in range(0, len(order), self.size)]
            self._batches = [collate([self.rows.rows[i] for i in g], pad=self.pad, share=self.share) for g in groups]
        sums = torch.zeros(3, dtype=torch.float64)
        was_training = self.objective.training
        self.objective.eval()
        with torch.no_grad():
            for batch in (b.to(self.device) for b in self._batches):
                if stop:
                    break
                loss, parts = self.objective(batch, self.source.teacher(batch))
                sums += torch.stack([loss.double(), parts.ce, parts.kd]).cpu()
        self.objective.train(was_training)
        if stop or not self._batches:
            return {}
        names = ("holdout_loss", "holdout_ce", "holdout_kd")
        tokens = sum(len(row.completion) for row in self.rows.rows)
        return {name: value / tokens for name, value in zip(names, sums.tolist(), strict=True)}
