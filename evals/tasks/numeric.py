"""A number: the last one in the answer must equal the gold within a tolerance."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from distill.errors import DataError
from evals.tasks._base import Item, TaskConfig, chat_request, read_items

if TYPE_CHECKING:
    from pathlib import Path

    from distill.records import Request

EXAMPLE = {"id": "1", "prompt": "12.5 % of 400?", "answer": "50"}
NUMBER = re.compile(r"[-\u2212+]?\d[\d.,'\u2019\u00a0\u202f]*(?:[eE][-+]?\d{1,3})?")
LONGEST = 400


class Config(TaskConfig):
    """Both `1,234.5` and `1.234,5` are read; a lone comma or point before exactly three digits is as `decimal` says."""

    kind: Literal["numeric"] = "numeric"
    gold_field: str = "answer"
    """Field of the right number."""
    decimal: Literal["point", "comma"] = "point"
    """`point`: 1,234 is one thousand and more. `comma`: it is a little more than one."""
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 1e-6
    """Relative difference that still counts as right."""


def examples(config: Config, path: Path) -> list[Item]:
    """The items of the file. Raises DataError for a gold that is no number."""
    items = read_items(config, path)
    for item in items:
        if last_number(str(item.gold), config) is None:
            raise DataError(f"{config.gold_field} is no number: {item.gold!r}", where=f"{path}, item {item.id}")
    return items


def prompt(item: Item, config: Config) -> Request:
    """The question."""
    return chat_request(item, config)


def last_number(text: str, config: Config) -> float | None:
    """The last number of a text, finite; None when there is none."""
    found = NUMBER.findall(text[-20_000:])
    return parse(found[-1], config.decimal) if found else None


def parse(digits: str, decimal: str) -> float | None:
    """A written number. Of two kinds of separators the last one is the decimal mark."""
    text = re.sub(r"['\u2019\u00a0\u202f]", "", digits.replace("\u2212", "-")).rstrip(".,")
    if len(text) > LONGEST:
        return None
    mark = "," if decimal == "comma" else "."
    kinds = {c for c in text if c in ".,"}
    if len(kinds) == 2:
        mark = max(kinds, key=text.rfind)
    elif kinds:
        only = kinds.pop()
        head = text.rpartition(only)[0]
        lone = text.count(only) == 1
        grouped = all(len(part) == 3 for part in text.split(only)[1:]) and head.lstrip("+-") not in ("", "0")
        if lone and not (grouped and only != mark):
            mark = only
        elif not lone and not grouped:
            return None
        elif not lone:
            mark = "." if only == "," else ","
    text = text.replace("," if mark == "." else ".", "").replace(mark, ".")
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def normal(text: str, config: Config) -> str:
    """The number in its shortest form, or ""."""
    value = last_number(text, config)
    return "" if value is None else repr(value + 0.0)


def gold_text(item: Item) -> str:
    """The number as written in the file."""
    return str(item.gold)


def score(item: Item, text: str, config: Config) -> float:
    """1 when the last number is the gold, else 0."""
    value, gold = last_number(text, config), last_number(str(item.gold), config)
    if value is None or gold is None:
        return 0.0
    return float(math.isclose(value, gold, rel_tol=config.tolerance, abs_tol=1e-12))
