"""How likely a model finds a given text: nothing is generated. Needs an engine that has its weights in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from evals.tasks._base import Item, TaskConfig, chat_request, read_items

if TYPE_CHECKING:
    from pathlib import Path

    from distill.records import Request

EXAMPLE = {"id": "1", "prompt": "Continue.", "answer": "The cat sleeps on the old table."}


class Config(TaskConfig):
    """The score of an item is the geometric mean of the probability per byte, so that tokenizers can be compared; bits
    per byte and the divergence from the reference system stand beside it."""

    kind: Literal["perplexity"] = "perplexity"
    gold_field: str = "answer"
    """Field of the text that is read, as the answer to the prompt."""

    @property
    def read_only(self) -> bool:
        """It is read."""
        return True


def examples(config: Config, path: Path) -> list[Item]:
    """The items of the file."""
    return read_items(config, path)


def prompt(item: Item, config: Config) -> Request:
    """What stands before the text."""
    return chat_request(item, config)


def normal(text: str, config: Config) -> str:  # noqa: ARG001
    """The text."""
    return text


def gold_text(item: Item) -> str:
    """The text that is read."""
    return str(item.gold)


def score(item: Item, text: str, config: Config) -> float:  # noqa: ARG001
    """1 for the text itself: a model's own score is its probability, which only the engine knows."""
    return float(text == gold_text(item))
