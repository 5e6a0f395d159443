"""Rows to tensors. Which rows make up which step is a pure function of (seed, epoch) and the rows' lengths.

A row is the prompt exactly as the model is asked at run time, then the answer, then the token that ends a turn;
only the answer and the end are learnt. Rows that begin alike (one system message) share the computation of what
they share: the prefix runs once per micro-batch and its keys and values serve every row.

Shapes: B rows, P tokens of the shared prefix, T tokens after it, N completion positions.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from distill.errors import DataError
from distill.records import Message

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from distill.config import Train

POOL = 16  # batches of similar length are cut out of pools of this many batches
MIN_PREFIX = 8  # tokens: a shorter shared prefix is not worth a second forward call


@dataclass(frozen=True, slots=True)
class Row:
    """One prompt with its completion, in token ids; ``completion`` ends with the end-of-turn id."""

    id: str
    key: str
    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    own: bool = False
    """The completion is the student's own, not the teacher's."""
    logprobs: tuple[float, ...] = ()
    """Log-probability of each completion token by the engine that drew it; empty where this process did."""

    def __len__(self) -> int:
        return len(self.prompt) + len(self.completion)


@dataclass(frozen=True)
class Rows:
    """Encoded rows, and what was left out and why."""

    rows: tuple[Row, ...]
    dropped: dict[str, int] = field(default_factory=dict)

    @property
    def lengths(self) -> list[int]:
        return [len(row) for row in self.rows]


@dataclass(frozen=True)
class Batch:
    """One micro-batch: shared prefix, the rest of each row (padded on the right or packed), and where the loss is."""

    prefix_P: Tensor
    ids_BT: Tensor
    positions_N: Tensor
    """Index into the flattened [B * T] of the position that predicts each label."""
    labels_N: Tensor
    rows: tuple[Row, ...]
    tokens: int
    """Tokens of the rows, shared prefix counted once per row."""
    places_BT: Tensor | None = None
    """Packed only: place of each token in its own row. B is 1 and the rows follow one another; a new row begins
    where the place does not go on by one."""

    @property
    def own(self) -> bool:
        """The completions are the student's own: there is no text to imitate, only the teacher's opinion."""
        return self.rows[0].own

    def to(self, device: Any) -> Batch:
        moved = {k: v.to(device) for k, v in self.__dict__.items() if isinstance(v, Tensor)}
        return replace(self, **moved)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a data file of the generate stage. Raises DataError."""
    import pyarrow.parquet as parquet

    try:
        table = parquet.read_table(path, columns=["id", "messages", "answer", "reasoning", "request_key"])
    except FileNotFoundError:
        raise DataError("no such file", where=str(path), next="distill generate") from None
    except Exception as error:
        raise DataError(f"cannot be read: {str(error)[:200]}", where=str(path), next="distill generate") from None
    return list(table.to_pylist())


def encode_rows(rows: Sequence[dict[str, Any]], tokenizer: Any, max_length: int, *, reasoning: bool = False) -> Rows:
    """Token ids of every row. A row longer than ``max_length`` or without an answer is dropped and counted."""
    from distill.models import encode_answer, encode_chat

    kept: list[Row] = []
    dropped = {"too_long": 0, "no_answer": 0}
    for record in rows:
        if not (record["answer"] or "").strip():
            dropped["no_answer"] += 1
            continue
        prompt = encode_chat(tokenizer, [Message(m["role"], m["content"]) for m in record["messages"]])
        answer = encode_answer(tokenizer, completion_text(record, reasoning))
        row = Row(str(record["id"]), str(record["request_key"]), tuple(prompt), tuple(answer))
        if len(row) > max_length:
            dropped["too_long"] += 1
        else:
            kept.append(row)
    return Rows(tuple(kept), dropped)


def completion_text(record: dict[str, Any], reasoning: bool) -> str:
    """What the student learns to say: the answer, after the teacher's reasoning when that is wanted too."""
    thought = (record.get("reasoning") or "").strip() if reasoning else ""
    return f"<think>\n{thought}\n</think>\n\n{record['answer']}" if thought else str(record["answer"])


def fingerprint(rows: Sequence[Row]) -> str:
    """SHA-256 of ids and token ids: what a resumed run must find unchanged."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps([row.id, row.prompt, row.completion]).encode())
    return digest.hexdigest()


def keyed_order(count: int, *key: object) -> list[int]:
    """A permutation of range(count) that depends on the key and nothing else."""
    name = ":".join(map(str, key))
    return sorted(range(count), key=lambda i: hashlib.sha256(f"{name}:{i}".encode()).digest())


def epoch_steps(
    lengths: Sequence[int], batch_size: int, micro_size: int, seed: int, epoch: int, most: int = 0
) -> list[list[list[int]]]:
    """Steps of one epoch; a step is a list of micro-batches, a micro-batch a list of row numbers.

    Rows are drawn at random, sorted by length inside pools of POOL batches, and the batches drawn at random again.
    ``most``: tokens of a micro-batch, padding included; 0 = any number.
    """
    order = keyed_order(len(lengths), seed, epoch, "rows")
    pool = POOL * batch_size
    batches: list[list[int]] = []
    for start in range(0, len(order), pool):
        ranked = sorted(order[start : start + pool], key=lambda i: (lengths[i], i))
        batches += [ranked[at : at + batch_size] for at in range(0, len(ranked), batch_size)]
    shuffled = [batches[i] for i in keyed_order(len(batches), seed, epoch, "batches")]
    return [list(_micro_batches(batch, lengths, micro_size, most)) for batch in shuffled]


def _micro_batches(batch: Sequence[int], lengths: Sequence[int], size: int, most: int) -> Iterator[list[int]]:
    """The rows of a step, shortest first, in groups that hold to both limits."""
    group: list[int] = []
    for row in batch:
        if group and (len(group) == size or (most and lengths[row] * (len(group) + 1) > most)):
            yield group
            group = []
        group.append(row)
    yield group


def plan_steps(lengths: Sequence[int], train: Train, seed: int) -> list[list[list[int]]]:
    """Every step of the run, in order."""
    sizes = train.batch_size, train.micro_batch_size
    steps = [
        step
        for epoch in range(train.epochs)
        for step in epoch_steps(lengths, *sizes, seed, epoch, train.micro_batch_tokens)
    ]
    return steps[: train.max_steps]


def halve(micros: Sequence[Sequence[int]], times: int) -> list[list[int]]:
    """The same rows in micro-batches cut in two ``times`` times over; a single row is not cut."""
    cut = [list(micro) for micro in micros]
    for _ in range(times):
        halves = [part for micro in cut for part in (micro[: (len(micro) + 1) // 2], micro[(len(micro) + 1) // 2 :])]
        cut = [part for part in halves if part]
    return cut


def collate(rows: Sequence[Row], *, pad: int, share: bool = True, pack: bool = False) -> Batch:
    """The micro-batch of ``rows``. The last completion token is only a label, never an input."""
    shared = _common_prefix(rows) if share and len(rows) > 1 else 0
    shared = shared if shared >= MIN_PREFIX else 0
    inputs = [[*row.prompt, *row.completion[:-1]][shared:] for row in rows]
    width = max(map(len, inputs))
    starts = [sum(map(len, inputs[:n])) if pack else n * width for n in range(len(rows))]
    flat = torch.full((sum(map(len, inputs)) if pack else len(rows) * width,), pad)
    positions: list[int] = []
    labels: list[int] = []
    for row, tail, start in zip(rows, inputs, starts, strict=True):
        flat[start : start + len(tail)] = torch.tensor(tail)
        first = start + len(row.prompt) - 1 - shared
        positions += range(first, first + len(row.completion))
        labels += row.completion
    places = torch.cat([torch.arange(shared, shared + len(tail)) for tail in inputs])[None] if pack else None
    return Batch(
        torch.tensor(rows[0].prompt[:shared], dtype=torch.long),
        flat[None] if pack else flat.view(len(rows), width),
        torch.tensor(positions),
        torch.tensor(labels),
        tuple(rows),
        sum(len(row) for row in rows),
        places,
    )


def _common_prefix(rows: Sequence[Row]) -> int:
    """Tokens all prompts begin with, at most one less than the shortest prompt (its last one makes a prediction)."""
    least, most = min(row.prompt for row in rows), max(row.prompt for row in rows)
    limit = min(len(row.prompt) for row in rows) - 1
    same = next((i for i, (a, b) in enumerate(zip(least, most, strict=False)) if a != b), min(len(least), len(most)))
    return min(same, limit)
