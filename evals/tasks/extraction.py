"""Facts out of a text as a JSON object: F1 over the fields, nested ones and lists included."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any, Literal

from distill.errors import DataError
from distill.records import canonical_json
from evals.tasks._base import Item, TaskConfig, chat_request, normalised, read_items

if TYPE_CHECKING:
    from pathlib import Path

    from distill.records import Request

EXAMPLE = {
    "id": "1",
    "prompt": "Invoice 7, 40 EUR",
    "answer": {"number": 7, "total": {"amount": 40, "currency": "EUR"}},
}
DEEPEST, LONGEST = 20, 200_000


class Config(TaskConfig):
    """A field is right when path and value agree; case, blanks and outer punctuation of texts do not count."""

    kind: Literal["extraction"] = "extraction"
    gold_field: str = "answer"
    """Field that holds the JSON object, or its text."""


def examples(config: Config, path: Path) -> list[Item]:
    """The items of the file. Raises DataError for a gold that is no JSON object with a field."""
    items = read_items(config, path)
    for item in items:
        if not facts(golden(item)):
            raise DataError(f"{config.gold_field} is no JSON object with fields", where=f"{path}, item {item.id}")
    return items


def prompt(item: Item, config: Config) -> Request:
    """The question."""
    return chat_request(item, config)


def golden(item: Item) -> dict[str, Any] | None:
    """The gold object."""
    return item.gold if isinstance(item.gold, dict) else found_object(str(item.gold))


def found_object(text: str) -> dict[str, Any] | None:
    """The first JSON object in an answer, code fences and words around it ignored; None when there is none."""
    decoder = json.JSONDecoder()
    text = text[:LONGEST]
    start = text.find("{")
    for _ in range(DEEPEST):
        if start < 0:
            return None
        try:
            value, _end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            start = text.find("{", start + 1)
            continue
        return value if isinstance(value, dict) else None
    return None


def facts(value: Any) -> Counter[tuple[str, str]]:
    """(path, normal form of the value) pairs. Items of a list share a path: their order does not count."""
    pairs: Counter[tuple[str, str]] = Counter()
    todo: list[tuple[str, Any, int]] = [("", value, 0)]
    while todo:
        path, current, depth = todo.pop()
        if isinstance(current, dict) and depth < DEEPEST:
            todo += [(f"{path}.{key}", item, depth + 1) for key, item in current.items()]
        elif isinstance(current, list) and depth < DEEPEST:
            todo += [(f"{path}[]", item, depth + 1) for item in current]
        elif path and current is not None:
            pairs[path, _plain(current)] += 1
    return pairs


def _plain(value: Any) -> str:
    """40, 40.0 and "40" are the same value; true and "true" are too."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"{value:.12g}"
    return normalised(str(value))


def normal(text: str, config: Config) -> str:  # noqa: ARG001
    """The object's facts in a fixed order, or ""."""
    pairs = facts(found_object(text))
    ordered = [[path, value, count] for (path, value), count in sorted(pairs.items())]
    return canonical_json(ordered).decode("utf-8", "backslashreplace") if pairs else ""


def gold_text(item: Item) -> str:
    """The gold object as JSON."""
    return json.dumps(golden(item), ensure_ascii=False)


def score(item: Item, text: str, config: Config) -> float:  # noqa: ARG001
    """F1 of the fields: an invented field costs as much as a missing one."""
    wanted, given = facts(golden(item)), facts(found_object(text))
    total = wanted.total() + given.total()
    return 2 * (wanted & given).total() / total if given and total else 0.0
