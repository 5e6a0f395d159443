"""A translation against one or several references: chrF2, which suits languages with rich endings."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Literal

from evals.tasks._base import Item, TaskConfig, chat_request, normalised, read_items

if TYPE_CHECKING:
    from pathlib import Path

    from distill.records import Request

EXAMPLE = {"id": "1", "prompt": "Guten Morgen, liebe Leute.", "answer": "Good morning, dear people."}
ORDER, BETA = 6, 2.0
LONGEST = 20_000


class Config(TaskConfig):
    """The score of an item is its chrF2 / 100 (character 1- to 6-grams, blanks left out)."""

    kind: Literal["translation"] = "translation"
    gold_field: str = "answer"
    """Field of the reference: a text, or a list of texts of which the best counts."""

    @property
    def writes_text(self) -> bool:
        """A text."""
        return True


def examples(config: Config, path: Path) -> list[Item]:
    """The items of the file."""
    return read_items(config, path)


def prompt(item: Item, config: Config) -> Request:
    """The text to translate."""
    return chat_request(item, config)


def golds(item: Item) -> list[str]:
    """All references."""
    return [str(gold) for gold in item.gold] if isinstance(item.gold, list | tuple) else [str(item.gold)]


def normal(text: str, config: Config) -> str:  # noqa: ARG001
    """The answer without case, blanks and outer punctuation."""
    return normalised(text)


def gold_text(item: Item) -> str:
    """The first reference."""
    return golds(item)[0]


def score(item: Item, text: str, config: Config) -> float:  # noqa: ARG001
    """The best chrF2 over the references, 0..1."""
    return max(chrf(text, gold) for gold in golds(item)) if normalised(text) else 0.0


def chrf(text: str, reference: str) -> float:
    """chrF2 of one sentence (Popovic 2015): F-score of the mean precision and recall of character n-grams."""
    hypothesis, wanted = "".join(text[:LONGEST].split()), "".join(reference.split())
    precision = recall = 0.0
    orders = 0
    for n in range(1, ORDER + 1):
        ours, theirs = ngrams(hypothesis, n), ngrams(wanted, n)
        if ours and theirs:
            shared = (ours & theirs).total()
            precision += shared / ours.total()
            recall += shared / theirs.total()
            orders += 1
    if not orders or precision + recall == 0:
        return 0.0
    precision, recall = precision / orders, recall / orders
    return (1 + BETA**2) * precision * recall / (BETA**2 * precision + recall)


def ngrams(text: str, n: int) -> Counter[str]:
    """The n-grams of characters."""
    return Counter(text[i : i + n] for i in range(len(text) - n + 1))
