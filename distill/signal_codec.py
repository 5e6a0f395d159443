"""One answer token's K (id, value) pairs as a fixed number of bytes, so that any token can be read without the others.

A row, byte-aligned parts in order::

    token     3 bytes  the answer's token id
    top       1 or 2   which of the sorted ids is the most likely one
    value     4 bytes  its log-probability, float32, exact
    range     2 bytes  distance R (float16, rounded up) from it to the least likely entry
    ids       bits     the K ids, sorted, in Elias-Fano coding: about 2 + log2(V / K) bits each
    values    bits     K - 1 codes of b bits: c = round((2^b - 2) * sqrt(d / R)), d = distance to the top value

The square root puts the precision where the probability is: |error of log p| <= (sqrt(d * R) + R / 4n) / n with
n = 2^b - 2. The code 2^b - 1 marks padding (log-probability -inf; ids unused otherwise).

Shapes: T tokens, K entries, V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill.errors import DataError
from distill.signal_draws import unused

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BITS_PER_ENTRY = 23.1
MAX_VOCAB = 2**24


class Codec:
    """Encodes and decodes rows of ``k`` entries over ``vocab`` ids."""

    def __init__(self, k: int, vocab: int):
        if not 0 < k <= vocab < MAX_VOCAB or k > 2**16:
            raise DataError(f"{k} entries over a vocabulary of {vocab} ids cannot be stored")
        self.k, self.vocab = k, vocab
        self.low = max(0, (vocab // k).bit_length() - 1)
        self.high = k + (vocab >> self.low) + 1
        self.id_bits = k * self.low + self.high
        self.value_bits = self._precision()
        self.packed = (self.id_bits + (k - 1) * self.value_bits + 7) // 8
        self.rank_bytes = 1 if k <= 256 else 2
        self.head = 3 + self.rank_bytes + 6
        self.row_bytes = self.head + self.packed

    def _precision(self) -> int:
        """Bits of a value: 12 for small k, else what keeps a row of k = 64 under 200 bytes."""
        if self.k <= 32:
            return 12
        return min(12, max(8, int((BITS_PER_ENTRY * self.k - self.id_bits) // (self.k - 1))))

    def encode(self, token_ids_T: object, ids_TK: object, logprobs_TK: object) -> NDArray[np.uint8]:
        """[T, row_bytes] bytes. Fewer than k entries, or -inf among them, become padding. Raises DataError."""
        import numpy as np

        tokens = np.asarray(token_ids_T, np.int64)
        ids, logprobs = self._checked(tokens, np.asarray(ids_TK, np.int64), np.asarray(logprobs_TK, np.float32))
        by_id = np.argsort(ids, axis=1)
        ids, logprobs = np.take_along_axis(ids, by_id, 1), np.take_along_axis(logprobs, by_id, 1)
        top = logprobs.argmax(1)
        value = np.take_along_axis(logprobs, top[:, None], 1)
        distance = (value - logprobs).astype(np.float64)
        span = _half_up(np.where(np.isfinite(distance), distance, 0).max(1, keepdims=True))
        codes = self._quantise(distance, span)[~_one_hot(top, self.k)].reshape(len(tokens), self.k - 1)
        parts = [_little(tokens, 3), _little(top, self.rank_bytes), _bytes(value, "<f4"), _bytes(span, "<f2")]
        bits = np.concatenate([self._id_bits(ids), _to_bits(codes, self.value_bits)], 1)
        return np.concatenate([*parts, np.packbits(bits, axis=1)], 1)

    def decode(self, rows: NDArray[np.uint8]) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
        """(token ids [T], ids [T, K], log-probabilities [T, K]); the most likely entry first, padding last."""
        import numpy as np

        rows = np.ascontiguousarray(rows)
        count = len(rows)
        tokens = _number(rows[:, :3])
        bits = np.unpackbits(rows[:, self.head :], axis=1)
        ids = self._ids(bits[:, : self.id_bits])
        end = self.id_bits + (self.k - 1) * self.value_bits
        codes = _from_bits(bits[:, self.id_bits : end], self.k - 1, self.value_bits)
        after = 3 + self.rank_bytes
        top = _number(rows[:, 3:after])
        value = rows[:, after : after + 4].copy().view("<f4")
        span = rows[:, after + 4 : after + 6].copy().view("<f2").astype(np.float32)
        logprobs = np.empty((count, self.k), np.float32)
        others = ~_one_hot(top, self.k)
        logprobs[~others] = value[:, 0]
        logprobs[others] = (value - self._distance(codes, span)).reshape(-1)
        best = np.argsort(-logprobs, axis=1, kind="stable")
        # Entries that round to the top value must not overtake it.
        best = np.concatenate([top[:, None], best[best != top[:, None]].reshape(count, self.k - 1)], 1)
        ids, logprobs = np.take_along_axis(ids, best, 1), np.take_along_axis(logprobs, best, 1)
        return tokens.astype(np.int32), ids.astype(np.int32), logprobs

    # -- values ----------------------------------------------------------------------------------------------

    def _quantise(self, distance: NDArray[np.float64], span: NDArray[np.float32]) -> NDArray[np.int64]:
        import numpy as np

        levels = 2**self.value_bits - 2
        share = np.sqrt(np.minimum(distance / np.maximum(span, np.float32(1e-30)), 1))
        return np.where(np.isfinite(distance), np.rint(levels * share), levels + 1).astype(np.int64)

    def _distance(self, codes: NDArray[np.int64], span: NDArray[np.float32]) -> NDArray[np.float32]:
        import numpy as np

        levels = 2**self.value_bits - 2
        distance = ((codes / levels) ** 2 * span).astype(np.float32)
        return np.where(codes > levels, np.float32(np.inf), distance)

    def error_bound(self, distance: float, span: float) -> float:
        """Largest error of a log-probability ``distance`` below the top one, in a row of range ``span``."""
        levels = 2**self.value_bits - 2
        return float(((distance * span) ** 0.5 + span / (4 * levels)) / levels)

    # -- ids -------------------------------------------------------------------------------------------------

    def _id_bits(self, ids: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Elias-Fano: the low bits of each id as they are; the high parts as ones in a bit string."""
        import numpy as np

        upper = np.zeros((len(ids), self.high), np.uint8)
        np.put_along_axis(upper, (ids >> self.low) + np.arange(self.k), 1, 1)
        return np.concatenate([_to_bits(ids & ((1 << self.low) - 1), self.low), upper], 1)

    def _ids(self, bits: NDArray[np.uint8]) -> NDArray[np.int64]:
        import numpy as np

        split = self.k * self.low
        places = np.nonzero(bits[:, split:])[1]
        if len(places) != len(bits) * self.k:
            raise DataError("a row of teacher signals holds a wrong number of ids")
        upper = places.reshape(len(bits), self.k) - np.arange(self.k)
        return (upper << self.low) | _from_bits(bits[:, :split], self.k, self.low)

    # -- checks ----------------------------------------------------------------------------------------------

    def _checked(
        self, tokens: NDArray[np.int64], ids: NDArray[np.int64], logprobs: NDArray[np.float32]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """(ids, log-probabilities) widened to k entries, every id once and in range. Raises DataError."""
        import numpy as np

        if ids.shape != logprobs.shape or ids.ndim != 2 or len(ids) != len(tokens) or ids.shape[1] > self.k:
            raise DataError(f"signals of shape {ids.shape} and {logprobs.shape} for {len(tokens)} tokens, k {self.k}")
        if np.isnan(logprobs).any() or (logprobs > 1e-4).any():
            raise DataError("a log-probability is not a number <= 0")
        extra = self.k - ids.shape[1]
        if extra:
            ids = np.pad(ids, ((0, 0), (0, extra)), constant_values=-1)
            logprobs = np.pad(logprobs, ((0, 0), (0, extra)), constant_values=-np.inf)
        real = np.isfinite(logprobs)
        if not real.any(1).all():
            raise DataError("a token has no log-probability at all")
        if not real.all():
            ids = unused(np.where(real, ids, -1))
        order = np.sort(ids, 1)
        outside = ids.size and (ids.min() < 0 or ids.max() >= self.vocab)
        if (
            outside
            or (order[:, 1:] == order[:, :-1]).any()
            or (len(tokens) and (tokens.min() < 0 or tokens.max() >= self.vocab))
        ):
            raise DataError(f"a token id is outside 0..{self.vocab - 1} or appears twice")
        return ids, logprobs


# -- bytes and bits ----------------------------------------------------------------------------------------------


def _one_hot(index_T: NDArray[np.int64], size: int) -> NDArray[np.bool_]:
    import numpy as np

    return np.arange(size) == index_T[:, None]


def _to_bits(values: NDArray[np.int64], width: int) -> NDArray[np.uint8]:
    """[T, N * width] bits of [T, N] numbers, the lowest first."""
    import numpy as np

    return ((values[..., None] >> np.arange(width)) & 1).astype(np.uint8).reshape(len(values), values.shape[1] * width)


def _from_bits(bits: NDArray[np.uint8], count: int, width: int) -> NDArray[np.int64]:
    import numpy as np

    weights = 1 << np.arange(width, dtype=np.int64)
    return bits.reshape(len(bits), count, width).astype(np.int64) @ weights


def _little(values: NDArray[np.int64], width: int) -> NDArray[np.uint8]:
    """[T, width] bytes of [T] numbers, the lowest first."""
    import numpy as np

    return ((values[:, None] >> (8 * np.arange(width))) & 255).astype(np.uint8)


def _number(rows: NDArray[np.uint8]) -> NDArray[np.int64]:
    import numpy as np

    return rows.astype(np.int64) @ (1 << (8 * np.arange(rows.shape[1], dtype=np.int64)))


def _bytes(values: NDArray[np.float32], kind: str) -> NDArray[np.uint8]:
    """[T, size] bytes of [T, 1] floats."""
    import numpy as np

    return np.ascontiguousarray(values.astype(kind)).view(np.uint8)


def _half_up(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """The values as float16 numbers that are not smaller, in float32. Raises DataError beyond float16."""
    import numpy as np

    if values.size and values.max() > 60_000:
        raise DataError("a log-probability lies more than 60,000 below the top one")
    half = values.astype(np.float16)
    return np.where(half < values, np.nextafter(half, np.float16(np.inf)), half).astype(np.float32)
