"""Where the teacher's distribution comes from: nowhere (its text is enough), a live model, or stored signals.

A source gives, for a micro-batch, a :class:`~distill.train.objective.Teacher` over the batch's completion
positions, in their order. Shapes: N completion positions, K candidates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch

from distill.errors import DataError
from distill.train.likelihood import token_logprobs
from distill.train.objective import LiveTeacher, StoredTeacher
from distill.train.student import head_of, hidden_states

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from distill.signals import Signal, SignalReader
    from distill.train.batches import Batch, Row

    Micros = Sequence[tuple[int, Sequence[Row]]]
    """(number, rows) of micro-batches."""

UNKNOWN = -20.0  # log-probability of a stand-in where no entry of a position has an id


class Source(Protocol):
    """The teacher's side of a training step."""

    def rows(self, step: int, micros: Micros) -> list[Sequence[Row]]:
        """What this process's micro-batches of ``step`` learn from: their rows, or the student's answers to them."""

    def figures(self, step: int, apart: float) -> dict[str, float]:
        """What the step's line of metrics holds besides its loss.

        ``apart``: how much more likely the drawing engine held the step's own answers, in nats a token.
        """

    def count(self, rows: Sequence[Row]) -> int:
        """What the loss is a mean over: completion tokens, or pairs."""

    def teacher(self, batch: Batch) -> Any:
        """The teacher at the batch's completion positions; None when only its text is learnt."""


class FixedRows:
    """Learns from the rows as they are."""

    def rows(self, step: int, micros: Micros) -> list[Sequence[Row]]:
        return [rows for _, rows in micros]

    def figures(self, step: int, apart: float) -> dict[str, float]:
        return {}

    def count(self, rows: Sequence[Row]) -> int:
        return sum(len(row.completion) for row in rows)


class TextOnly(FixedRows):
    """Sequence-level distillation: the teacher's text is the whole signal (Kim and Rush 2016)."""

    def teacher(self, batch: Batch) -> None:
        return None


class Live(FixedRows):
    """A teacher in this process, frozen; it reads the same ids as the student. ``vocab``: columns both share."""

    def __init__(self, model: Any, vocab: int = 0):
        self.model, self.vocab = model.requires_grad_(False).eval(), vocab

    def hidden(self, batch: Batch) -> torch.Tensor:
        """Its last hidden states [N, E] at the batch's completion positions."""
        with torch.no_grad():
            return hidden_states(self.model, batch)

    def teacher(self, batch: Batch) -> LiveTeacher:
        return LiveTeacher(self.hidden(batch), head_of(self.model, self.vocab))

    def chosen(self, batch: Batch) -> torch.Tensor:
        """Log-probability [N] of the token that stands at each position."""
        with torch.no_grad():
            return token_logprobs(self.hidden(batch), head_of(self.model, self.vocab), batch.labels_N)


class OwnBase(Live):
    """The student's base as the teacher: the student without its adapter, so no second copy is held."""

    def __init__(self, model: Any, vocab: int = 0):
        self.model, self.vocab = model, vocab

    def hidden(self, batch: Batch) -> torch.Tensor:
        was_training = self.model.training
        self.model.eval()
        with torch.no_grad(), self.model.disable_adapter():
            hidden_NE = hidden_states(self.model, batch)
        self.model.train(was_training)
        return hidden_NE


class Stored(FixedRows):
    """Log-probabilities written by the generate stage, keyed by request."""

    def __init__(self, reader: SignalReader, tokenizer: Any):
        self.reader = reader
        self.missing = "tail" if reader.about.kind == "topk" else "renormalise"
        self.named = ids_of_texts(reader.about.vocabulary, tokenizer) if reader.about.vocabulary else None

    def teacher(self, batch: Batch) -> StoredTeacher:
        pairs = [stored_rows(self._signal(row), row) for row in batch.rows]
        ids_NK, logprobs_NK = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        device = batch.labels_N.device
        return StoredTeacher(ids_NK.to(device), logprobs_NK.to(device), self.missing, self.reader.about.temperature)

    def _signal(self, row: Row) -> Signal:
        signal = self.reader[row.key]
        return signal if self.named is None else renamed(signal, self.named)


def ids_of_texts(vocabulary: Sequence[str], tokenizer: Any) -> NDArray[np.int64]:
    """For each text a server used for a token: the id of the student's token with that text, -1 without one.

    Servers write a token as its text; texts that several tokens share (parts of a character) name none of them.
    """
    import numpy as np

    owners: dict[str, int] = {}
    for number in range(len(tokenizer)):
        text = tokenizer.decode([number], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        owners[text] = -1 if text in owners else number
    return np.array([*(owners.get(text, -1) for text in vocabulary), -1], np.int64)


def renamed(signal: Signal, named: NDArray[np.int64]) -> Signal:
    """The signal in the student's ids; an entry without an id becomes padding, so that its mass is the tail's."""
    import numpy as np

    ids_TK = named[np.minimum(signal.top_ids_TK, len(named) - 1)].copy()
    logprobs_TK = np.where(ids_TK < 0, -np.inf, signal.top_logprobs_TK).astype(np.float32)
    for ids_K, logprobs_K in zip(ids_TK, logprobs_TK, strict=True):
        free = iter(sorted(set(range(2 * len(ids_K))) - set(ids_K.tolist())))
        for place in np.flatnonzero(ids_K < 0):
            ids_K[place] = next(free)
        if np.isneginf(logprobs_K).all():
            logprobs_K[0] = UNKNOWN
    tokens_T = named[np.minimum(signal.token_ids_T, len(named) - 1)].astype(np.int32)
    return type(signal)(tokens_T, ids_TK.astype(np.int32), logprobs_TK)


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
