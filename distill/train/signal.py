"""Where the teacher's distribution comes from: nowhere (its text is enough), a live model, or stored signals.

A source gives, for a micro-batch, a :class:`~distill.train.objective.Teacher` over the batch's completion
positions, in their order. Shapes: N completion positions, K candidates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch

from distill.errors import DataError
from distill.train.objective import LiveTeacher, StoredTeacher, Teacher
from distill.train.student import head_of, hidden_states

if TYPE_CHECKING:
    from distill.signals import Signal, SignalReader
    from distill.train.batches import Batch, Row


class Source(Protocol):
    """The teacher's side of a training step."""

    def teacher(self, batch: Batch) -> Teacher | None:
        """The teacher at the batch's completion positions; None when only its text is learnt."""


class TextOnly:
    """Sequence-level distillation: the teacher's text is the whole signal (Kim and Rush 2016)."""

    def teacher(self, batch: Batch) -> None:
        return None


class Live:
    """A teacher in this process, frozen; it reads the same ids as the student."""

    def __init__(self, model: Any):
        self.model = model.requires_grad_(False).eval()

    def teacher(self, batch: Batch) -> LiveTeacher:
        with torch.no_grad():
            hidden_NE = hidden_states(self.model, batch)
        return LiveTeacher(hidden_NE, head_of(self.model))


class Stored:
    """Log-probabilities written by the generate stage, keyed by request."""

    def __init__(self, reader: SignalReader):
        self.reader = reader
        self.missing = "tail" if reader.about.kind == "topk" else "renormalise"

    def teacher(self, batch: Batch) -> StoredTeacher:
        pairs = [stored_rows(self.reader[row.key], row) for row in batch.rows]
        ids_NK, logprobs_NK = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        device = batch.labels_N.device
        return StoredTeacher(ids_NK.to(device), logprobs_NK.to(device), self.missing, self.reader.about.temperature)


def stored_rows(signal: Signal, row: Row) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, log-probabilities) [N, K] for one row's completion. Raises DataError when the tokens differ.

    A signal may leave out the end-of-turn token, which some servers do not report: the teacher did end there, so
    that position says the end with certainty.
    """
    tokens = tuple(signal.token_ids_T.tolist())
    ids_NK = torch.from_numpy(signal.top_ids_TK.astype("int64"))
    logprobs_NK = torch.from_numpy(signal.top_logprobs_TK.astype("float32"))
    if tokens == row.completion:
        return ids_NK, logprobs_NK
    if tokens != row.completion[:-1]:
        at = next((i for i, (a, b) in enumerate(zip(tokens, row.completion, strict=False)) if a != b), len(tokens))
        raise DataError(
            f"the stored teacher signal and the answer of row {row.id!r} differ from token {at} on "
            f"(stored {tokens[at : at + 4]}, answer {row.completion[at : at + 4]})",
            next="generate the signals with the student's tokenizer, or use train.method: sft",
        )
    end_1K = torch.arange(ids_NK.shape[1])[None]
    end_1K = torch.where(end_1K == row.completion[-1], ids_NK.shape[1], end_1K)
    end_1K[0, 0] = row.completion[-1]
    certain_1K = torch.full((1, ids_NK.shape[1]), float("-inf"))
    certain_1K[0, 0] = 0.0
    return torch.cat([ids_NK, end_1K]), torch.cat([logprobs_NK, certain_1K])
