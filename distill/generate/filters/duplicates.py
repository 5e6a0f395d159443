"""Keep the first of equal and of nearly equal rows (MinHash, Broder 1997; every candidate is then compared exactly)."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from distill.folding import folded
from distill.generate.filters._base import FilterConfig
from distill.generate.filters._text import fingerprint, question, words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SHINGLE = 6
HASHES = 125
PRIME = 2**32 + 15  # just above the pieces, so that each factor orders them differently


class Config(FilterConfig):
    """What is compared, and how alike is too alike."""

    kind: Literal["duplicates"] = "duplicates"
    of: Literal["pair", "prompt", "answer"] = "pair"
    """Compare question and answer together, the question alone, or the answer alone."""
    similarity: Annotated[float, Field(ge=0.6, le=1)] = 0.9
    """Rows are nearly equal from this share of common six-character pieces on (Jaccard). 1 = equal words only."""


def keep(rows: list[dict[str, Any]], config: Config) -> list[str]:
    """``exact`` or ``near`` for a row like an earlier kept one, else ""."""
    texts = [_text(row, config) for row in rows]
    seen: set[bytes] = set()
    near = _Near(config.similarity) if config.similarity < 1 else None
    reasons = []
    for text in texts:
        mark = fingerprint(words(text) or [text])
        if mark in seen:
            reasons.append("exact")
        elif near is not None and near.known(text):
            reasons.append("near")
        else:
            reasons.append("")
        seen.add(mark)
    return reasons


def _text(row: dict[str, Any], config: Config) -> str:
    asked = "" if config.of == "answer" else question(row)
    answer = "" if config.of == "prompt" else row["answer"]
    return f"{asked}\n{answer}"


class _Near:
    """Finds kept texts like a given one: those that share a whole band of their MinHash signatures."""

    def __init__(self, similarity: float):
        import numpy as np

        self.similarity = similarity
        # Bands of 5 find pairs at 0.75 with probability 0.999, bands of 3 pairs at 0.6 with 0.9999.
        self.rows = 5 if similarity >= 0.75 else 3
        random = np.random.default_rng(0)
        self.factors = random.integers(1, 2**31, HASHES, dtype=np.uint64)
        self.offsets = random.integers(0, 2**31, HASHES, dtype=np.uint64)
        self.buckets: dict[tuple[int, bytes], list[int]] = {}
        self.kept: list[NDArray[np.uint32]] = []

    def known(self, text: str) -> bool:
        """True when a kept text is as similar as asked; otherwise this one is kept."""
        pieces = _pieces(text)
        bands = self._bands(pieces)
        candidates = sorted({number for band in bands for number in self.buckets.get(band, ())})
        if any(_jaccard(pieces, self.kept[number]) >= self.similarity for number in candidates):
            return True
        for band in bands:
            self.buckets.setdefault(band, []).append(len(self.kept))
        self.kept.append(pieces)
        return False

    def _bands(self, pieces: NDArray[np.uint32]) -> list[tuple[int, bytes]]:
        import numpy as np

        hashed = (pieces.astype(np.uint64)[:, None] * self.factors + self.offsets) % np.uint64(PRIME)
        signature = hashed.min(0)
        return [
            (start, signature[start : start + self.rows].tobytes())
            for start in range(0, HASHES - self.rows + 1, self.rows)
        ]


def _pieces(text: str) -> NDArray[np.uint32]:
    """Sorted distinct hashes of the text's six-character pieces."""
    import numpy as np

    data = folded(text)
    parts = {data[start : start + SHINGLE] for start in range(max(1, len(data) - SHINGLE + 1))}
    return np.unique(np.array([zlib.crc32(part.encode("utf-8", "surrogatepass")) for part in parts], np.uint32))


def _jaccard(first: NDArray[np.uint32], second: NDArray[np.uint32]) -> float:
    import numpy as np

    common = len(np.intersect1d(first, second, assume_unique=True))
    return common / (len(first) + len(second) - common)
