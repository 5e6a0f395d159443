"""Small pieces of the page that several sections use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from evals.report.svg import SHAPES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from evals.report.view import View

CLOSE = Markup("</table></div>")


def sign(role: str) -> Markup:
    """The shape of a system, beside its name."""
    shape = f'<g class="mark {escape(role)}">{SHAPES[role]}</g>'
    return Markup(f'<svg class="sign" viewBox="-9 -9 18 18" aria-hidden="true">{shape}</svg>')


def legend(view: View, names: Iterable[str]) -> Markup:
    """The systems of a figure, each with its shape."""
    entries = (Markup("<li>{}{}</li>").format(sign(view.role(name)), view.label(name)) for name in names)
    return Markup('<ul class="legend">{}</ul>').format(Markup("").join(entries))


def key(rows: Iterable[tuple[str, str]]) -> Markup:
    """The lines of a figure: (class, words)."""
    line = '<svg class="stroke" viewBox="0 0 26 10" aria-hidden="true"><path d="M0 5H26" class="series {}"/></svg>'
    entries = (Markup(f"<li>{line}{{}}</li>").format(cls, words) for cls, words in rows)
    return Markup('<ul class="legend">{}</ul>').format(Markup("").join(entries))


def table(view: View, title: str) -> Markup:
    """The start of a table that a keyboard can scroll; ends with CLOSE."""
    name = view.say("head.table", title=title)
    return Markup('<div class="scroll" tabindex="0" role="region" aria-label="{}"><table>').format(name)


def unknown(words: str) -> Markup:
    """A value that is not there."""
    return Markup('<span class="unknown">{}</span>').format(words)


def between(view: View, path: str, kind: str, inline: bool = False) -> Markup:
    """A value and, beneath or ``inline`` in a sentence, its interval; `unknown` where there is none."""
    found = view.at(path)
    if found is None:
        return unknown(view.say("common.unknown"))
    ends = "bare" if kind == "percent" else kind
    value = view.n(f"{path}.value", kind)
    if found["low"] == found["high"]:
        return value
    low, high = (view.end(f"{path}.{end}", ends) for end in ("low", "high"))
    if inline:
        return value + Markup(" ({})").format(view.t("common.interval", low=low, high=high))
    return value + Markup(' <small class="ends {}">{}</small>').format(
        kind, view.t("common.interval", low=low, high=high)
    )


def quantiles(view: View, path: str) -> Markup:
    """p50 / p95 / p99 in seconds; `unknown` where nothing was timed."""
    if view.at(path) is None:
        return unknown(view.say("common.unknown"))
    return Markup(" / ").join(view.n(f"{path}.{p}", "seconds") for p in ("p50", "p95", "p99"))
