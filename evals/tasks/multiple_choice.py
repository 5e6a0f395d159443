"""A question with lettered options; the answer is a letter. Works with any system, also without log-probabilities."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from distill.errors import DataError
from evals.tasks._base import Item, TaskConfig, chat_request, normalised, read_items

if TYPE_CHECKING:
    from pathlib import Path

    from distill.records import Request

LETTERS = "ABCDEFGHIJ"
EXAMPLE = {"id": "1", "prompt": "Capital of Norway?", "options": ["Bergen", "Oslo", "Bodø"], "answer": "B"}
# A letter alone, or before a mark ("B.", "(B)", "B: Oslo"): "A dog" is no answer A. Or one at the end, after a colon.
FIRST = re.compile(r"^[\s\"'*_(\[]*([A-J])(?:[\s\"'*_]*$|[\s\"'*_]*[).:\]\n])")
LAST = re.compile(r":[\s\"'*_(\[]*([A-J])[\s\"'*_)\].]*$")


class Config(TaskConfig):
    """`gold_field` holds the letter, the number of the option (from 0) or the option's text."""

    kind: Literal["multiple_choice"] = "multiple_choice"
    gold_field: str = "answer"
    """Field of the right answer."""
    options_field: str = "options"
    """Field that holds the list of options."""
    template: str | None = "{{ prompt }}\n\n{{ lettered }}\n\nAnswer with the letter only."
    """Jinja template; `lettered` holds the options, one a line, with their letters."""


def examples(config: Config, path: Path) -> list[Item]:
    """The items; gold is the letter. Raises DataError for options or golds that do not fit."""
    return [_lettered(item, config, path) for item in read_items(config, path)]


def _lettered(item: Item, config: Config, path: Path) -> Item:
    options = item.fields.get(config.options_field)
    if not isinstance(options, list) or not 2 <= len(options) <= len(LETTERS):
        raise DataError(
            f"{config.options_field} must be a list of 2 to {len(LETTERS)} texts", where=f"{path}, item {item.id}"
        )
    letters = LETTERS[: len(options)]
    gold: Any = item.gold
    if isinstance(gold, int) and not isinstance(gold, bool) and 0 <= gold < len(options):
        letter = letters[gold]
    elif str(gold).strip().upper() in tuple(letters):
        letter = str(gold).strip().upper()
    elif str(gold) in [str(option) for option in options]:
        letter = letters[[str(option) for option in options].index(str(gold))]
    else:
        raise DataError(f"{gold!r} is no letter, number or text of an option", where=f"{path}, item {item.id}")
    lettered = "\n".join(f"{a}. {option}" for a, option in zip(letters, options, strict=True))
    return replace(item, gold=letter, fields={**item.fields, "lettered": lettered, "letters": letters})


def prompt(item: Item, config: Config) -> Request:
    """The question with its options; legal answers are the letters."""
    return chat_request(item, config, tuple(item.fields["letters"]))


def normal(text: str, config: Config) -> str:  # noqa: ARG001
    """The letter an answer names, or ""."""
    found = FIRST.search(text) or LAST.search(text.rstrip()[-60:])
    return found[1] if found else ""


def gold_text(item: Item) -> str:
    """The letter."""
    return str(item.gold)


def score(item: Item, text: str, config: Config) -> float:
    """1 when the answer names the right letter, or is the right option's text, else 0."""
    letter = normal(text, config)
    if letter:
        return float(letter == item.gold)
    options = item.fields.get(config.options_field) or []
    right = LETTERS.index(str(item.gold))
    return float(
        right < len(options) and normalised(text) != "" and normalised(text) == normalised(str(options[right]))
    )
