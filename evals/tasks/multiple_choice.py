"""A question with options: asked for the letter, which any system can write, or for the likeliest option."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import model_validator

from distill.errors import DataError
from evals.tasks._base import Item, TaskConfig, chat_request, normalised, read_items

if TYPE_CHECKING:
    from pathlib import Path

    from distill.records import Request

LETTERS = "ABCDEFGHIJ"
TEMPLATES = {
    "letter": "{{ prompt }}\n\n{{ lettered }}\n\nAnswer with the letter only.",
    "likelihood": "{{ prompt }}",
}
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
    option_fields: tuple[str, ...] = ()
    """Fields that hold one option each, in place of a list; empty ones are left out."""
    first: Literal[0, 1] = 0
    """Number of the first option, where the gold is a number."""
    by: Literal["letter", "likelihood"] = "letter"
    """`letter`: the answer is a letter. `likelihood`: the option whose text, end of turn included, is the likeliest
    answer. The transformers engine takes exactly that one; a server that holds to a list takes it token by token."""
    template: str | None = TEMPLATES["letter"]
    """Jinja template; `lettered` holds the options, one a line, with their letters. Default: prompt, options and
    "Answer with the letter only." for letters, the prompt alone for likelihoods."""

    @model_validator(mode="before")
    @classmethod
    def _its_template(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("by") == "likelihood":
            return {"template": TEMPLATES["likelihood"]} | values
        return values

    @property
    def always_held(self) -> bool:
        """A likelihood is one of the options'."""
        return self.by == "likelihood"


def examples(config: Config, path: Path) -> list[Item]:
    """The items; gold is the letter, or the option's text. Raises DataError for options or golds that do not fit."""
    return [_lettered(item, config, path) for item in read_items(config, path)]


def _lettered(item: Item, config: Config, path: Path) -> Item:
    options = item.fields.get(config.options_field)
    if config.option_fields:
        found = [item.fields.get(name) for name in config.option_fields]
        options = [option for option in found if option not in (None, "")]
    if not isinstance(options, list) or not 2 <= len(options) <= len(LETTERS):
        raise DataError(
            f"{config.options_field} must be a list of 2 to {len(LETTERS)} texts", where=f"{path}, item {item.id}"
        )
    texts = [str(option) for option in options]
    if config.by == "likelihood" and len(set(texts)) < len(texts):
        raise DataError("two options are the same text", where=f"{path}, item {item.id}")
    letters = LETTERS[: len(options)]
    gold: Any = item.gold
    if config.first and str(gold).isdecimal():
        gold = int(gold) - config.first
    if isinstance(gold, int) and not isinstance(gold, bool) and 0 <= gold < len(options):
        letter = letters[gold]
    elif str(gold).strip().upper() in tuple(letters):
        letter = str(gold).strip().upper()
    elif str(gold) in texts:
        letter = letters[texts.index(str(gold))]
    else:
        raise DataError(f"{gold!r} is no letter, number or text of an option", where=f"{path}, item {item.id}")
    lettered = "\n".join(f"{a}. {option}" for a, option in zip(letters, texts, strict=True))
    fields = {**item.fields, config.options_field: texts, "lettered": lettered, "letters": letters}
    return replace(item, gold=letter if config.by == "letter" else texts[letters.index(letter)], fields=fields)


def prompt(item: Item, config: Config) -> Request:
    """The question; legal answers are the letters, or the options."""
    legal = item.fields["letters"] if config.by == "letter" else map(str, item.fields[config.options_field])
    return chat_request(item, config, tuple(legal))


def normal(text: str, config: Config) -> str:
    """The letter an answer names, or ""; the option without case and outer punctuation."""
    if config.by == "likelihood":
        return normalised(text)
    found = FIRST.search(text) or LAST.search(text.rstrip()[-60:])
    return found[1] if found else ""


def gold_text(item: Item) -> str:
    """The letter, or the option."""
    return str(item.gold)


def score(item: Item, text: str, config: Config) -> float:
    """1 when the answer names the right letter, or is the right option's text, else 0."""
    answer = normal(text, config)
    if config.by == "likelihood":
        return float(answer != "" and answer == normalised(str(item.gold)))
    if answer:
        return float(answer == item.gold)
    options = item.fields.get(config.options_field) or []
    right = LETTERS.index(str(item.gold))
    return float(
        right < len(options) and normalised(text) != "" and normalised(text) == normalised(str(options[right]))
    )
