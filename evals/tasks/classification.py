"""One label out of a list: accuracy, macro-F1, confusion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from evals.tasks._base import Item, TaskConfig, chat_request, normalised, read_items

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from distill.records import Request

EXAMPLE = {"id": "1", "prompt": "A chess program", "label": "games"}


class Config(TaskConfig):
    """The answer's first word, or the whole answer, must be the gold label; case and punctuation do not count."""

    kind: Literal["classification"] = "classification"


def examples(config: Config, path: Path) -> list[Item]:
    """The items of the file."""
    return read_items(config, path)


def prompt(item: Item, config: Config) -> Request:
    """The question, with the legal labels; a system that can be held to them is held to them."""
    return chat_request(item, config, config.choices or ())


def normal(text: str, config: Config) -> str:
    """The label an answer names, or "": the longest label that the answer is, or begins with as whole words."""
    answer = normalised(text)
    for label in sorted(config.choices or (), key=lambda name: (-len(name), name)):
        wanted = normalised(label)
        if answer == wanted or (answer.startswith(wanted) and not answer[len(wanted)].isalnum()):
            return label
    return "" if config.choices else answer


def gold_text(item: Item) -> str:
    """The label."""
    return str(item.gold)


def score(item: Item, text: str, config: Config) -> float:
    """1 when the answer names the gold label, else 0."""
    named = normal(text, config)
    return float(named != "" and normalised(named) == normalised(str(item.gold)))


def macro_f1(gold: Sequence[str], named: Sequence[str]) -> float:
    """Mean of the F1 of the labels that occur as gold. An illegal answer ("") is a miss, and no one's false alarm."""
    values = []
    for label in sorted(set(gold)):
        hits = sum(g == label and p == label for g, p in zip(gold, named, strict=True))
        wrong = sum((g == label) != (p == label) for g, p in zip(gold, named, strict=True))
        values.append(2 * hits / (2 * hits + wrong) if hits + wrong else 0.0)
    return sum(values) / len(values) if values else 0.0


def confusion(gold: Sequence[str], named: Sequence[str]) -> dict[str, dict[str, int]]:
    """gold label -> answered label ("" = illegal) -> count; zero counts left out."""
    table: dict[str, dict[str, int]] = {}
    for g, p in zip(gold, named, strict=True):
        row = table.setdefault(g, {})
        row[p] = row.get(p, 0) + 1
    return table
