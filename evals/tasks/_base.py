"""A task file: ``Config``, ``EXAMPLE`` (one row, for the contract tests) and five verbs.

- ``examples(config, path) -> list[Item]``: the items, in a fixed order; ``path`` is the resolved data file.
- ``prompt(item, config) -> Request``: what a system is asked.
- ``score(item, text, config) -> float``: 0..1. Pure; an empty answer scores 0, the gold answer scores 1.
- ``normal(text, config) -> str``: the form in which two answers are compared; "" when it is no legal answer.
- ``gold_text(item) -> str``: the gold answer as a system would write it.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeVar

from pydantic import Field

from distill.config import Example
from distill.errors import DataError
from distill.plugins import PluginConfig
from distill.records import Request, Sampling

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distill.config import Prompts

C = TypeVar("C", bound="TaskConfig")
EDGES = " \t\r\n\"'`*_.,;:!?()[]{}<>#«»“”„‘’"


class TaskConfig(PluginConfig):
    """What every task has."""

    path: str
    """File of the items (JSONL, CSV, Parquet ...), relative to the configuration file, or a data set of a hub:
    `hub:OWNER/NAME@COMMIT:SPLIT`."""
    name: str = ""
    """Shown in the report; default: the file's name."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Use at most this many items: whole clusters are drawn at random with the run's seed."""
    languages: tuple[str, ...] = ()
    """Keep only these languages. Clusters that lack one of them are dropped, so that languages stay parallel."""
    id_field: str | None = "id"
    """Field that names the item. null: the number of its row."""
    cluster_field: str | None = None
    """Field of what was sampled together (document, package): intervals are computed over clusters."""
    lang_field: str | None = None
    """Field that holds the language code."""
    slices: tuple[str, ...] = ()
    """Further fields by which the report tells items apart (difficulty, source), beside language and task."""
    gold_field: str = "label"
    """Field of the right answer."""
    gold_map: dict[str, str] = Field(default_factory=dict)
    """What the gold field's values mean, for data that holds codes: `{"0": negative, "1": positive}`."""
    system: str | None = None
    """System message; default: that of the run's prompts."""
    examples: tuple[Example, ...] | None = None
    """Worked examples before the question; default: those of the run's prompts."""
    template: str | None = None
    """Jinja template of the user message; default: that of the run's prompts."""
    choices: tuple[str, ...] | None = None
    """The legal answers; default: those of the run's prompts."""
    max_new_tokens: Annotated[int, Field(ge=1)] | None = None
    """Longest answer in tokens; default: that of the run's `generate`."""
    licence: str = ""
    """Licence of the items, printed in the report."""

    @property
    def judged_by(self) -> Any:
        """Settings of the model that judges the answers; None where a rule does."""
        return None

    @property
    def read_only(self) -> bool:
        """Nothing is written: the engine says how likely the gold answer is."""
        return False

    @property
    def writes_text(self) -> bool:
        """The answer is free text: it has a language, and can be a refusal."""
        return False

    @property
    def always_held(self) -> bool:
        """The task means nothing unless an answer is one of its legal ones."""
        return False

    @property
    def title(self) -> str:
        """The name shown."""
        return self.name or Path(self.path).stem


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to answer. ``fields`` is the whole row."""

    id: str
    cluster: str
    lang: str
    gold: Any
    fields: dict[str, Any] = field(default_factory=dict)


class TaskModule(Protocol):
    """What a task file holds."""

    def examples(self, config: Any, path: Path) -> list[Item]:
        """The items."""

    def prompt(self, item: Item, config: Any) -> Request:
        """What a system is asked."""

    def score(self, item: Item, text: str, config: Any) -> float:
        """0..1."""

    def normal(self, text: str, config: Any) -> str:
        """The form in which two answers are compared."""

    def gold_text(self, item: Item) -> str:
        """The gold answer as text."""


def completed(config: C, prompts: Prompts, max_new_tokens: int) -> C:
    """The task with everything it leaves open taken from the run: the student is examined on what it was taught."""
    defaults: dict[str, Any] = {
        "system": prompts.system,
        "examples": prompts.examples,
        "template": prompts.template,
        "choices": prompts.choices,
        "max_new_tokens": max_new_tokens,
        "cluster_field": prompts.cluster_field,
        "lang_field": prompts.lang_field,
    }
    return config.model_copy(update={name: value for name, value in defaults.items() if getattr(config, name) is None})


def read_items(config: TaskConfig, path: Path, *, gold_needed: bool = True) -> list[Item]:
    """Every row as an Item. Raises DataError for an unreadable file, a missing field or an id given twice."""
    from distill.prompts import load_rows

    items: list[Item] = []
    seen: dict[str, int] = {}
    for number, row in enumerate(load_rows(path), start=1):
        where = f"{path}, row {number}"
        identity = str(required(row, config.id_field, where)) if config.id_field else str(number)
        if identity in seen:
            raise DataError(f"the id {identity!r} was already used by row {seen[identity]}", where=where)
        seen[identity] = number
        cluster = str(required(row, config.cluster_field, where)) if config.cluster_field else identity
        lang = str(required(row, config.lang_field, where)) if config.lang_field else ""
        gold = required(row, config.gold_field, where) if gold_needed else row.get(config.gold_field)
        if config.gold_map:
            gold = required(config.gold_map, str(gold), f"{where}, gold_map")
        items.append(Item(identity, cluster, lang, gold, row))
    if not items:
        raise DataError("no items", where=str(path))
    for name in config.slices:
        if all(item.fields.get(name) in (None, "") for item in items):
            raise DataError(f"no row has the field {name!r}, which slices names", where=str(path))
    return items


def sliced(item: Item, config: TaskConfig) -> dict[str, str]:
    """The item's value of each of the task's `slices`; a field that the row lacks is left out."""
    found = {name: item.fields.get(name) for name in config.slices}
    return {name: str(value) for name, value in found.items() if value is not None and value != ""}


def required(row: dict[str, Any], name: str, where: str) -> Any:
    """The value of a field. Raises DataError when it is missing or empty."""
    value = row.get(name)
    if value is None or value == "":
        raise DataError(f"the field {name!r} is missing or empty; the row has: {', '.join(row)}", where=where)
    return value


def select(items: Sequence[Item], config: TaskConfig, seed: int) -> list[Item]:
    """The items of the task's languages and limit, in file order; whole clusters, drawn with the seed."""
    import random

    languages = set(config.languages)
    found = {lang: {i.cluster for i in items if i.lang == lang} for lang in languages}
    parallel = set.intersection(*found.values()) if found else {i.cluster for i in items}
    kept = [i for i in items if i.cluster in parallel and (not languages or i.lang in languages)]
    if not kept:
        present = ", ".join(sorted({i.lang for i in items}))
        raise DataError(f"no cluster has all of {', '.join(config.languages)}; languages: {present}", where=config.path)
    if config.limit is None or len(kept) <= config.limit:
        return kept
    sizes: dict[str, int] = {}
    for item in kept:
        sizes[item.cluster] = sizes.get(item.cluster, 0) + 1
    order = sorted(sizes)
    random.Random(seed).shuffle(order)
    drawn, room = set(), config.limit
    for cluster in order:
        if sizes[cluster] <= room:
            drawn.add(cluster)
            room -= sizes[cluster]
    if not drawn:
        raise DataError(f"limit {config.limit} is smaller than every cluster", where=config.path)
    return [item for item in kept if item.cluster in drawn]


def chat_request(item: Item, config: TaskConfig, choices: tuple[str, ...] = ()) -> Request:
    """The greedy request of an item: the run's system message and template over the row."""
    from distill.prompts import BadRow, render

    try:
        messages = render(item.fields, config.system or "", config.template or "{{ prompt }}", config.examples or ())
    except BadRow as error:
        raise DataError(
            f"item {item.id!r} cannot be asked: {error}",
            where=config.path,
            next="give the task a `template` of its own",
        ) from None
    return Request(messages, Sampling(max_new_tokens=config.max_new_tokens or 256), choices)


def normalised(text: str) -> str:
    """Case, Unicode form, surrounding punctuation and runs of blanks do not count."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).strip(EDGES)
