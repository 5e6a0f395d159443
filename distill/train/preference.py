"""Preference distillation: rather the teacher's answer than the student's own (DPO, arXiv 2305.18290).

Each pair is the teacher's text (chosen) and an answer drawn from the student as it was before training (rejected).
That first student is the reference, too: it is the model without its adapter, so no second copy is held.

    loss of a pair = -log sigmoid(beta * [(log q - log r)(chosen) - (log q - log r)(rejected)])

Shapes: N completion positions of all rows, G rows (chosen ones, then as many rejected ones), D hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from distill.errors import ConfigError
from distill.train.likelihood import token_logprobs
from distill.train.objective import Head, Parts, Recipe
from distill.train.rollout import roll_out
from distill.train.schedule import seed_micro
from distill.train.student import head_of, hidden_states

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from distill.config import Train
    from distill.train.batches import Batch, Row
    from distill.train.signal import Micros
    from distill.train.student import Loaded


@dataclass(frozen=True)
class Reference:
    """What the student said of the pairs before training."""

    logprobs_G: Tensor
    """Log-probability of each row's completion."""
    row_N: Tensor
    """Row of each position."""
    beta: float


class Preference:
    """Pairs of teacher answer and the untrained student's answer."""

    def __init__(self, student: Loaded, recipe: Recipe, settings: Train, seed: int):
        if not hasattr(student.model, "disable_adapter"):
            raise ConfigError(
                "train.method preference needs an adapter: without it, the student is its own reference",
                next="student.adapter.kind: lora",
            )
        self.student, self.recipe, self.settings, self.seed = student, recipe, settings, seed

    def rows(self, step: int, micros: Micros) -> list[Sequence[Row]]:
        """The teacher's rows, then the same prompts with answers of the student as it was."""
        return [[*rows, *self._own(step, number, rows)] for number, rows in micros]

    def _own(self, step: int, number: int, rows: Sequence[Row]) -> list[Row]:
        seed_micro(self.seed, step, -1 - number)
        settings = self.settings
        with self.student.model.disable_adapter():
            return roll_out(self.student, rows, settings.rollout_max_new_tokens, settings.rollout_temperature)

    def figures(self, step: int, apart: float) -> dict[str, float]:
        """Nothing: the answers were drawn here."""
        return {}

    def count(self, rows: Sequence[Row]) -> int:
        """Pairs: the loss is a mean over them."""
        return len(rows) // 2

    def teacher(self, batch: Batch) -> Reference | None:
        """The reference; None for rows without rejected answers (the held-out loss is their cross entropy)."""
        if not batch.rows[-1].own:
            return None
        lengths = torch.tensor([len(row.completion) for row in batch.rows], device=batch.labels_N.device)
        row_N = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
        model = self.student.model
        was_training = model.training
        model.eval()
        with torch.no_grad(), model.disable_adapter():
            logprobs_N = token_logprobs(
                hidden_states(model, batch), head_of(model), batch.labels_N, self.recipe.chunk_tokens
            )
        model.train(was_training)
        return Reference(per_row(logprobs_N, row_N, len(lengths)), row_N, self.settings.preference_beta)


def per_row(logprobs_N: Tensor, row_N: Tensor, count: int) -> Tensor:
    """Sum of the log-probabilities of each row [G], in float64."""
    return logprobs_N.new_zeros(count, dtype=torch.float64).index_add(0, row_N, logprobs_N.double())


def preference_loss(
    hidden_ND: Tensor, head: Head, labels_N: Tensor, teacher: Reference, recipe: Recipe
) -> tuple[Tensor, Parts]:
    """(loss summed over pairs, its parts: mean cross entropy of each chosen answer, and the preference itself)."""
    logprobs_N = token_logprobs(hidden_ND, head, labels_N, recipe.chunk_tokens)
    gain_G = per_row(logprobs_N, teacher.row_N, len(teacher.logprobs_G)) - teacher.logprobs_G
    pairs = len(gain_G) // 2
    preference = -torch.nn.functional.logsigmoid(teacher.beta * (gain_G[:pairs] - gain_G[pairs:])).sum()
    tokens_G = torch.bincount(teacher.row_N, minlength=2 * pairs)
    ce = -((gain_G + teacher.logprobs_G)[:pairs] / tokens_G[:pairs]).sum()
    loss = (1 - recipe.kd_weight) * ce + recipe.kd_weight * preference
    return loss.float(), Parts(ce.detach(), preference.detach())
