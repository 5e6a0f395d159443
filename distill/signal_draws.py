"""Sampled targets: a few draws per token instead of the whole distribution, unbiased, and their counts as bytes.

A renormalised top-k teaches the student a distribution that is too sharp; the share of draws that fell on each token is
the distribution itself in expectation (Anshumali et al. 2025, "Sparse Logit Sampling"). Most draws fall on few tokens,
so an answer is stored as one bit stream of as many entries as there are, not as a table of the largest width::

    per token     its id (b bits), the number of distinct ids drawn less one (c bits)
    per entry     the id (b bits), the most drawn first
                  how often it was drawn less one (c bits); not stored for a token's last one: it is what is left

b and c are the bits of the largest id and of the number of draws less one.

Shapes: T tokens, K entries of the token that has most, V vocabulary, N entries of all tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_VOCAB = 2**24
MAX_DRAWS = 2**16


def draw(logprobs_TV: NDArray[np.float32], draws: int, seed: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Unbiased sparse targets: ids [T, K] and log(count / draws) [T, K] of ``draws`` draws per token.

    E[count / draws] is the distribution itself, so a cross entropy against it has the full gradient in expectation.
    """
    import numpy as np

    random = np.random.default_rng(seed)
    rows = []
    for logprobs_V in np.asarray(logprobs_TV, np.float64):
        cumulative = np.cumsum(np.exp(logprobs_V - logprobs_V.max()))
        picked = np.searchsorted(cumulative, random.random(draws) * cumulative[-1], side="right")
        rows.append(np.unique(np.minimum(picked, len(logprobs_V) - 1), return_counts=True))
    width = max((len(ids) for ids, _ in rows), default=1)
    ids_TK = np.full((len(rows), width), -1, np.int32)
    logprobs_TK = np.full((len(rows), width), -np.inf, np.float32)
    for number, (ids, counts) in enumerate(rows):
        best = np.argsort(-counts, kind="stable")
        ids_TK[number, : len(ids)], logprobs_TK[number, : len(ids)] = ids[best], np.log(counts[best] / draws)
    return ids_TK, logprobs_TK


class Counts:
    """Encodes and decodes answers of ``draws`` draws per token over ``vocab`` ids."""

    def __init__(self, draws: int, vocab: int):
        if not 0 < draws <= MAX_DRAWS or not 0 < vocab < MAX_VOCAB:
            raise DataError(f"{draws} draws over a vocabulary of {vocab} ids cannot be stored")
        self.draws, self.vocab = draws, vocab
        self.id_bits, self.count_bits = max(1, (vocab - 1).bit_length()), (draws - 1).bit_length()

    def encode(self, token_ids_T: object, ids_TK: object, logprobs_TK: object) -> NDArray[np.uint8]:
        """The answer's bytes. Entries of log-probability -inf are padding. Raises DataError."""
        import numpy as np

        tokens, ids = np.asarray(token_ids_T, np.int64), np.asarray(ids_TK, np.int64)
        logprobs = np.asarray(logprobs_TK, np.float64)
        if ids.shape != logprobs.shape or ids.ndim != 2 or len(ids) != len(tokens):
            raise DataError(f"signals of shape {ids.shape} and {logprobs.shape} for {len(tokens)} tokens")
        counts = np.rint(np.exp(logprobs) * self.draws).astype(np.int64)
        order = np.argsort(-counts, axis=1, kind="stable")
        ids, counts = np.take_along_axis(ids, order, 1), np.take_along_axis(counts, order, 1)
        drawn = counts > 0
        self._check(tokens, ids, counts, drawn)
        last = drawn & ~np.pad(drawn, ((0, 0), (0, 1)))[:, 1:]
        streams = [
            (tokens, self.id_bits),
            (drawn.sum(1) - 1, self.count_bits),
            (ids[drawn], self.id_bits),
            (counts[drawn & ~last] - 1, self.count_bits),
        ]
        return np.packbits(np.concatenate([_to_bits(values, width) for values, width in streams]))

    def _check(
        self, tokens: NDArray[np.int64], ids: NDArray[np.int64], counts: NDArray[np.int64], drawn: NDArray[np.bool_]
    ) -> None:
        import numpy as np

        if (counts.sum(1) != self.draws).any():
            raise DataError(f"the counts of a token do not add up to {self.draws} draws")
        named = np.sort(np.where(drawn, ids, -1 - np.arange(ids.shape[1])), 1)
        everything = np.concatenate([tokens, ids[drawn]])
        if (named[:, 1:] == named[:, :-1]).any() or ((everything < 0) | (everything >= self.vocab)).any():
            raise DataError(f"a token id is outside 0..{self.vocab - 1} or appears twice")

    def decode(
        self, data: NDArray[np.uint8], tokens: int, width: int
    ) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
        """(token ids [T], ids [T, K], log(count / draws) [T, K]), K = ``width``, the most drawn first, padding last."""
        import numpy as np

        bits = np.unpackbits(data)
        token_ids, bits = _from_bits(bits, tokens, self.id_bits)
        distinct, bits = _from_bits(bits, tokens, self.count_bits)
        distinct += 1
        total = int(distinct.sum())
        if total and (distinct.max() > width or len(bits) < total * self.id_bits + (total - tokens) * self.count_bits):
            raise DataError("an answer of the teacher signals holds a wrong number of ids")
        entries_N, bits = _from_bits(bits, total, self.id_bits)
        stored, _ = _from_bits(bits, total - tokens, self.count_bits)
        drawn = np.arange(width) < distinct[:, None]
        last = np.arange(width) == distinct[:, None] - 1
        ids, counts = np.full((tokens, width), -1, np.int64), np.zeros((tokens, width), np.int64)
        ids[drawn] = entries_N
        counts[drawn & ~last] = stored + 1
        counts[last] = self.draws - counts.sum(1)
        with np.errstate(divide="ignore"):
            logprobs = np.log(counts / self.draws).astype(np.float32)
        return token_ids.astype(np.int32), unused(ids).astype(np.int32), logprobs


def unused(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each -1 replaced by the lowest id its row does not use."""
    import numpy as np

    filled = ids.copy()
    for row in np.flatnonzero((ids < 0).any(1)):
        used = set(ids[row].tolist())
        free = iter(number for number in range(len(used) + ids.shape[1]) if number not in used)
        filled[row, ids[row] < 0] = [next(free) for _ in range(int((ids[row] < 0).sum()))]
    return filled


def _to_bits(values: NDArray[np.int64], width: int) -> NDArray[np.uint8]:
    """The lowest bit first."""
    import numpy as np

    return ((values[:, None] >> np.arange(width)) & 1).astype(np.uint8).reshape(-1)


def _from_bits(bits: NDArray[np.uint8], count: int, width: int) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """(the first ``count`` numbers of ``width`` bits, the bits after them)."""
    import numpy as np

    end = count * width
    return bits[:end].reshape(count, width).astype(np.int64) @ (1 << np.arange(width, dtype=np.int64)), bits[end:]
