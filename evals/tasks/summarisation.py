"""A summary against a reference: ROUGE-L F1 over words of any script."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Literal

from evals.tasks._base import Item, TaskConfig, chat_request, normalised, read_items

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from distill.records import Request

EXAMPLE = {"id": "1", "prompt": "A long story about a cat in Malmö.", "answer": "A cat lives in Malmö."}
WORD = re.compile(r"\w+")
LONGEST = 2_000


class Config(TaskConfig):
    """The score of an item is ROUGE-L F1 (Lin 2004): the longest common subsequence of words."""

    kind: Literal["summarisation"] = "summarisation"
    gold_field: str = "answer"
    """Field of the reference summary."""

    @property
    def writes_text(self) -> bool:
        """A text."""
        return True


def examples(config: Config, path: Path) -> list[Item]:
    """The items of the file."""
    return read_items(config, path)


def prompt(item: Item, config: Config) -> Request:
    """The text to summarise."""
    return chat_request(item, config)


def normal(text: str, config: Config) -> str:  # noqa: ARG001
    """The answer without case, blanks and outer punctuation."""
    return normalised(text)


def gold_text(item: Item) -> str:
    """The reference."""
    return str(item.gold)


def score(item: Item, text: str, config: Config) -> float:  # noqa: ARG001
    """ROUGE-L F1, 0..1."""
    ours, theirs = words(text), words(str(item.gold))
    shared = common(ours, theirs)
    return 2 * shared / (len(ours) + len(theirs)) if shared else 0.0


def words(text: str) -> list[str]:
    """Words in lower case, letters and digits of any script; the first 2,000."""
    return WORD.findall(unicodedata.normalize("NFKC", text[: 20 * LONGEST]).casefold())[:LONGEST]


def common(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(second) + 1)
    for word in first:
        diagonal = 0
        for index, other in enumerate(second, start=1):
            above = row[index]
            row[index] = diagonal + 1 if word == other else max(above, row[index - 1])
            diagonal = above
    return row[-1]
