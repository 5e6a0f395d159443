"""A short answer that must equal the gold, or one of several golds; case, blanks and outer punctuation do not count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from evals.tasks._base import Item, TaskConfig, chat_request, normalised, read_items

if TYPE_CHECKING:
    from pathlib import Path

    from distill.records import Request

EXAMPLE = {"id": "1", "prompt": "Capital of Norway?", "answer": ["Oslo", "Oslo, Norway"]}


class Config(TaskConfig):
    """The whole answer is compared."""

    kind: Literal["exact"] = "exact"
    gold_field: str = "answer"
    """Field of the right answer: a text, or a list of texts that all count as right."""

    @property
    def writes_text(self) -> bool:
        """A text, unless there is a list of legal ones."""
        return not self.choices


def examples(config: Config, path: Path) -> list[Item]:
    """The items of the file."""
    return read_items(config, path)


def prompt(item: Item, config: Config) -> Request:
    """The question."""
    return chat_request(item, config, config.choices or ())


def normal(text: str, config: Config) -> str:  # noqa: ARG001
    """The answer without case, blanks and outer punctuation."""
    return normalised(text)


def golds(item: Item) -> list[str]:
    """All texts that count as right."""
    return [str(gold) for gold in item.gold] if isinstance(item.gold, list | tuple) else [str(item.gold)]


def gold_text(item: Item) -> str:
    """The first right answer."""
    return golds(item)[0]


def score(item: Item, text: str, config: Config) -> float:  # noqa: ARG001
    """1 when the answer equals a gold, else 0."""
    answer = normalised(text)
    return float(answer != "" and answer in {normalised(gold) for gold in golds(item)})
