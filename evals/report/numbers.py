"""Every number of the page comes from here, out of report.json, and carries its path and its exact value."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from evals import verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

UNKNOWN = "unknown"


def whole(value: float) -> str:
    """1,234."""
    return f"{value:,.0f}"


def seconds(value: float) -> str:
    """Seconds, or minutes and hours when long."""
    if value < 120:
        return f"{value:.2f} s" if value < 10 else f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.1f} h"


def significant(value: float) -> str:
    """Three significant digits, never in scientific notation."""
    return f"{value:,.0f}" if abs(value) >= 100 else verdict.euros(value).removesuffix(" EUR")


def p_value(value: float) -> str:
    """A p-value."""
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}" if value < 0.01 else f"{value:.3f}"


FORMATS: dict[str, Callable[[Any], str]] = {
    "percent": verdict.percent,
    "points": verdict.points,
    "size": lambda v: verdict.points(abs(v)).lstrip("+"),
    "bare": lambda v: f"{100 * v:.1f}".replace("-", verdict.MINUS),
    "eur": verdict.euros,
    "whole": whole,
    "seconds": seconds,
    "sig": significant,
    "p": p_value,
    "times": lambda v: f"{v:.1f}×" if v < 100 else f"{v:,.0f}×",
    "gib": lambda v: f"{v / 2**30:.2f} GiB",
    "one": lambda v: f"{v:,.1f}",
    "plain": lambda v: f"{v:g}",
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


def shown(report: Mapping[str, Any], path: str, kind: str, tag: str = "data", extra: str = "") -> Markup:
    """The formatted number in an element that carries ``data-path`` and ``data-value``; `unknown` for null."""
    value = at(report, path)
    text = UNKNOWN if value is None else FORMATS[kind](value)
    cls = ' class="unknown"' if value is None else ""
    exact = escape(json.dumps(value))
    value_attribute = f' value="{exact}"' if tag == "data" and value is not None else ""
    return Markup(
        f'<{tag}{cls}{value_attribute} data-path="{escape(path)}" data-value="{exact}" {extra}>{escape(text)}</{tag}>'
    )
