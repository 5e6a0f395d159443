"""Whether the items of the examination were in the training data: a leak makes every number here too good."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from evals.tasks._base import normalised

if TYPE_CHECKING:
    from collections.abc import Sequence

WORDS = 8
SHARE = 0.5
BOILERPLATE = 0.2


def leaks(items: Sequence[str], training: Sequence[str]) -> dict[str, Any]:
    """`checked` items, `exact`: the same text was trained on; `near`: half of its 8-word runs were, or more.

    Case, blanks and outer punctuation do not count. Runs that a fifth of the items share belong to the template.
    Texts shorter than eight words are compared as a whole only.
    """
    texts = [normalised(text) for text in items]
    known = {normalised(text) for text in training}
    runs = [_runs(text) for text in texts]
    common = Counter(run for found in runs for run in found)
    template = {run for run, count in common.items() if count > max(1.0, BOILERPLATE * len(texts))}
    trained = {run for text in known for run in _runs(text)} - template
    exact = [text in known for text in texts]
    near = [_near(found - template, trained) and not same for found, same in zip(runs, exact, strict=True)]
    return {"checked": len(texts), "exact": sum(exact), "near": sum(near)}


def _runs(text: str) -> set[int]:
    """Hashes of the runs of eight words."""
    words = text.split()
    return {hash(tuple(words[i : i + WORDS])) for i in range(len(words) - WORDS + 1)}


def _near(runs: set[int], trained: set[int]) -> bool:
    return bool(runs) and len(runs & trained) >= SHARE * len(runs)
