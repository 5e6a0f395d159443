"""Every number of the page comes from here, out of report.json, and carries its path and its exact value."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from evals.report.language import Language

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FORMATS: dict[str, Callable[[Language, Any], str]] = {
    "percent": Language.percent,
    "points": Language.points,
    "size": lambda to, v: to.points(abs(v)).lstrip("+"),
    "signed": Language.signed,
    "bare": lambda to, v: to.number(100 * v, 1),
    "eur": Language.euros,
    "whole": Language.number,
    "seconds": Language.seconds,
    "sig": Language.amount,
    "three": Language.three,
    "limit": Language.limit,
    "p": Language.p_value,
    "times": Language.times,
    "gib": lambda to, v: f"{to.number(v / 2**30, 2)}{to.before_unit}{'Gio' if to.code == 'fr' else 'GiB'}",
    "one": lambda to, v: to.number(v, 1),
    "plain": Language.plain,
    "grams": Language.grams,
    "year": lambda to, v: str(v),
}


def at(report: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path; None as soon as a part is None. Raises KeyError for a path that cannot exist."""
    value: Any = report
    parts = path.split(".")
    while parts and value is not None:
        # A system may be called `qwen2.5`: the longest name that exists is meant.
        taken = next((n for n in range(len(parts), 1, -1) if ".".join(parts[:n]) in value), 1)
        part, parts = ".".join(parts[:taken]), parts[taken:]
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value


def shown(
    report: Mapping[str, Any],
    path: str,
    kind: str,
    to: Language,
    tag: str = "data",
    extra: str = "",
    null: str = "common.unknown",
) -> Markup:
    """The formatted number in an element that carries ``data-path`` and ``data-value``; ``null``: words for null."""
    value = at(report, path)
    text = to.say(null) if value is None else FORMATS[kind](to, value)
    cls = ' class="unknown"' if value is None and "class=" not in extra else ""
    exact = escape(json.dumps(value))
    value_attribute = f' value="{exact}"' if tag == "data" and value is not None else ""
    return Markup(
        f'<{tag}{cls}{value_attribute} data-path="{escape(path)}" data-value="{exact}" {extra}>{escape(text)}</{tag}>'
    )
