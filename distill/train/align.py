"""Teacher and student with different tokenizers: the same text, cut in different places.

Both tokenizations of an answer are laid over its bytes. Where both have a boundary at the same byte, a group ends:
the smallest stretches of text that both models spell with whole tokens. The end of the turn is the last group.
Both models' distributions at the start of a group are about the same text before it, so no position is shifted.

- ``likelihood``: the probability of the whole group's text, a product over its tokens, is matched between the models
  as a two-way divergence (said it / said something else); after approximate likelihood matching, arXiv 2503.20083.
- ``uld``: the sorted next-token probabilities at the start of each group are matched (arXiv 2402.12030).

Shapes: N student positions, M teacher positions, G groups, D and E hidden sizes.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from distill.errors import DataError
from distill.train.batches import Batch, Row, Rows, collate, encode_rows
from distill.train.likelihood import token_logprobs
from distill.train.objective import Parts
from distill.train.signal import FixedRows
from distill.train.student import head_of, hidden_states, is_varlen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distill.train.objective import Head, Recipe

SURE = 1e-6  # least distance of a group's probability from 0 and 1


@dataclass(frozen=True)
class Pair:
    """One answer in both tokenizations; ``groups`` are (student from, student to, teacher from, teacher to)."""

    teacher: Row
    groups: tuple[tuple[int, int, int, int], ...]


@dataclass(frozen=True)
class AlignedTeacher:
    """The teacher's side of a batch whose tokens are not the student's."""

    hidden_ME: Tensor
    head: Head
    labels_M: Tensor
    group_N: Tensor
    """Group of each student position."""
    group_M: Tensor
    """Group of each teacher position."""
    starts_N: Tensor
    starts_M: Tensor
    """Positions at which the groups begin [G], in both sequences."""
    align: Literal["likelihood", "uld"]


class CrossTokenizer(FixedRows):
    """A live teacher that reads each row in its own tokens."""

    def __init__(self, model: Any, tokenizer: Any, align: Literal["likelihood", "uld"]):
        self.model = model.requires_grad_(False).eval()
        self.tokenizer, self.align = tokenizer, align
        self.pad = int(tokenizer.pad_token_id or 0)
        self._pairs: dict[tuple[str, str], Pair] = {}

    def read(self, records: Sequence[dict[str, Any]], rows: Rows, student_tokenizer: Any, *, reasoning: bool) -> None:
        """Encode and align every row. Raises DataError when the two token sequences do not say the same text."""
        wanted = {(row.id, row.key): row for row in rows.rows}
        kept = [r for r in records if (str(r["id"]), str(r["request_key"])) in wanted]
        theirs = encode_rows(kept, self.tokenizer, 1 << 30, reasoning=reasoning).rows
        for teacher in theirs:
            student = wanted[teacher.id, teacher.key]
            groups = align(student_tokenizer, student.completion, self.tokenizer, teacher.completion, student.id)
            self._pairs[teacher.id, teacher.key] = Pair(teacher, groups)

    def pair(self, row: Row) -> Pair:
        """The teacher's reading of a row."""
        return self._pairs[row.id, row.key]

    def teacher(self, batch: Batch) -> AlignedTeacher:
        device = batch.labels_N.device
        pairs = [self.pair(row) for row in batch.rows]
        theirs = collate([pair.teacher for pair in pairs], pad=self.pad, share=not is_varlen(self.model)).to(device)
        with torch.no_grad():
            hidden_ME = hidden_states(self.model, theirs)
        group_N, group_M, starts_N, starts_M = _numbers(pairs)
        return AlignedTeacher(
            hidden_ME,
            head_of(self.model),
            theirs.labels_N,
            group_N.to(device),
            group_M.to(device),
            starts_N.to(device),
            starts_M.to(device),
            self.align,
        )


def _numbers(pairs: Sequence[Pair]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(group of each student position, of each teacher position, first positions of the groups in both)."""
    group_N: list[int] = []
    group_M: list[int] = []
    starts_N: list[int] = []
    starts_M: list[int] = []
    for pair in pairs:
        for a, b, c, d in pair.groups:
            number = len(starts_N)
            starts_N.append(len(group_N))
            starts_M.append(len(group_M))
            group_N += [number] * (b - a)
            group_M += [number] * (d - c)
    return torch.tensor(group_N), torch.tensor(group_M), torch.tensor(starts_N), torch.tensor(starts_M)


# -- alignment ---------------------------------------------------------------------------------------------------


def align(
    student_tokenizer: Any, student_ids: Sequence[int], teacher_tokenizer: Any, teacher_ids: Sequence[int], row: str
) -> tuple[tuple[int, int, int, int], ...]:
    """Groups of two completions that both end with an end-of-turn id. Raises DataError naming the first difference."""
    pieces = [
        [token_bytes(tokenizer, i) for i in ids[:-1]]
        for tokenizer, ids in ((student_tokenizer, student_ids), (teacher_tokenizer, teacher_ids))
    ]
    texts = [b"".join(p).lstrip(b" ") for p in pieces]  # some tokenizers begin every text with a space
    if texts[0] != texts[1]:
        from distill.train.preflight import first_difference

        one, two = (text.decode("utf-8", "replace") for text in texts)
        raise DataError(f"row {row!r}: teacher and student tokens say different texts, {first_difference(one, two)}")
    ends = [_ends(p, len(text)) for p, text in zip(pieces, texts, strict=True)]
    shared = [0, *sorted(set(ends[0]) & set(ends[1]) - {0})]
    groups = [
        (ends_at(ends[0], a), ends_at(ends[0], b), ends_at(ends[1], a), ends_at(ends[1], b))
        for a, b in pairwise(shared)
    ]
    return (*groups, (len(student_ids) - 1, len(student_ids), len(teacher_ids) - 1, len(teacher_ids)))


def _ends(pieces: Sequence[bytes], length: int) -> list[int]:
    """Byte at which each token ends; a space that a tokenizer put in front does not count."""
    ends, at = [], length - sum(map(len, pieces))
    for piece in pieces:
        at += len(piece)
        ends.append(max(0, at))
    return ends


def ends_at(ends: Sequence[int], byte: int) -> int:
    """How many tokens lie before ``byte`` (the last one that ends there included, empty ones too)."""
    return 0 if byte == 0 else max(i + 1 for i, end in enumerate(ends) if end == byte)


def token_bytes(tokenizer: Any, token: int) -> bytes:
    """The bytes one token stands for, in byte-level and in sentencepiece vocabularies."""
    added = tokenizer.added_tokens_decoder.get(token)
    if added is not None:
        return str(added.content).encode()
    piece = tokenizer.convert_ids_to_tokens(token)
    if _is_byte_level(tokenizer):
        return bytes(_BYTES[c] for c in piece)
    if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
        return bytes([int(piece[3:5], 16)])
    return str(piece).replace("\u2581", " ").encode()


def _is_byte_level(tokenizer: Any) -> bool:
    """True when the pieces are written in the 256-letter alphabet of byte-level BPE."""
    state = tokenizer.backend_tokenizer.decoder
    return "ByteLevel" in repr(state)


def _byte_alphabet() -> dict[str, int]:
    """Letter -> byte of byte-level BPE: printable bytes stand for themselves, the others follow from 256 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + n): b for n, b in enumerate(others)}


_BYTES = _byte_alphabet()


# -- losses ------------------------------------------------------------------------------------------------------


def aligned_loss(
    hidden_ND: Tensor, head: Head, labels_N: Tensor, teacher: AlignedTeacher, recipe: Recipe
) -> tuple[Tensor, Parts]:
    """(loss summed over positions, its parts): cross entropy on the text, and the match of the groups."""
    student_N = token_logprobs(hidden_ND, head, labels_N, recipe.chunk_tokens)
    ce = -student_N.double().sum()
    if teacher.align == "uld":
        kd = uld_at_starts(hidden_ND, head, teacher, recipe)
    else:
        with torch.no_grad():
            teacher_M = token_logprobs(teacher.hidden_ME, teacher.head, teacher.labels_M, recipe.chunk_tokens)
        kd = likelihood_match(student_N, teacher_M, teacher)
    weight = recipe.kd_weight
    return ((1 - weight) * ce + weight * kd).float(), Parts(ce.detach(), kd.detach())


def likelihood_match(student_N: Tensor, teacher_M: Tensor, teacher: AlignedTeacher) -> Tensor:
    """Sum over groups of KL between (p, 1 - p) and (q, 1 - q): probability of the group's text, and of any other."""
    groups = len(teacher.starts_N)
    zeros = student_N.new_zeros(groups, dtype=torch.float64)
    q_G = zeros.index_add(0, teacher.group_N, student_N.double()).exp().clamp(SURE, 1 - SURE)
    p_G = zeros.index_add(0, teacher.group_M, teacher_M.double()).exp().clamp(SURE, 1 - SURE)
    return (p_G * (p_G / q_G).log() + (1 - p_G) * ((1 - p_G) / (1 - q_G)).log()).sum()


def uld_at_starts(hidden_ND: Tensor, head: Head, teacher: AlignedTeacher, recipe: Recipe) -> Tensor:
    """Sum over groups of the sorted L1 distance between the next-token distributions at their first positions."""
    from torch.utils.checkpoint import checkpoint

    from distill.losses import uld

    def chunk(hidden_nD: Tensor, hidden_nE: Tensor) -> Tensor:
        student_nV = torch.log_softmax(head.logits(hidden_nD) / recipe.temperature, -1)
        teacher_nW = torch.log_softmax(teacher.head.logits(hidden_nE) / recipe.temperature, -1)
        return uld.divergence(student_nV, teacher_nW, uld.Config()).double().sum()

    total = hidden_ND.new_zeros((), dtype=torch.float64)
    step = recipe.chunk(max(head.size, teacher.head.size))
    for at in range(0, len(teacher.starts_N), step):
        mine = hidden_ND.index_select(0, teacher.starts_N[at : at + step])
        theirs = teacher.hidden_ME.index_select(0, teacher.starts_M[at : at + step])
        total = total + checkpoint(chunk, mine, theirs, use_reentrant=False)
    return total
