"""report.json as one self-contained page in one language: no script, font, picture or style is fetched."""

from __future__ import annotations

import re
from functools import cache, partial
from importlib import resources
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from evals.report import parts
from evals.report.figures import cascade, energy, kept, load, money, pairs, quality, slices
from evals.report.language import language
from evals.report.view import View

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jinja2 import Environment
    from markupsafe import Markup

# Section -> (its template, the key of its title). One without data is left out.
SECTIONS = {
    "cost": ("cost", "cost.title"),
    "systems": ("systems", "systems.title"),
    "retention": ("retention", "retention.title"),
    "money": ("money", "money.title"),
    "languages": ("slices", "slices.languages"),
    "tasks": ("slices", "slices.tasks"),
    "slices": ("slices", "slices.further"),
    "speed": ("speed", "speed.title"),
    "energy": ("energy", "energy.title"),
    "words": ("words", "words.title"),
    "behaviour": ("behaviour", "behaviour.title"),
    "cascade": ("cascade", "cascade.title"),
    "judges": ("judges", "judges.title"),
    "corpus": ("corpus", "corpus.title"),
    "likelihood": ("likelihood", "likelihood.title"),
    "kept": ("kept", "kept.title"),
    "prices": ("prices", "prices.title"),
    "went": ("went", "went.title"),
    "planned": ("planned", "planned.title"),
    "method": ("method", "method.title"),
}
FIGURES: dict[str, Callable[..., Markup | None]] = {
    "cost": quality.quality_and_cost,
    "differences": pairs.differences,
    "retention": pairs.retention,
    "slices": slices.slices,
    "cells": kept.cells,
    "deferral": cascade.deferral,
    "break_even": money.break_even,
    "tornado": money.tornado,
    "levels": load.levels,
    "energy": energy.consumption,
}
IS_FIGURE = 'class="figure"'
VARIABLE = re.compile(r"--([\w-]+):([^;}]+)")


def html(report: Mapping[str, Any], code: str = "en") -> str:
    """The page in the language of ``code``. A pure function of both."""
    return _page(report, code, file("report.css") + file("figure.css"), file("report.js"), "")


def printed(report: Mapping[str, Any], code: str = "en") -> str:
    """The page for paper: colours as plain values, also inside the figures, no script, all that folds is open."""
    css = file("report.css")
    colours = dict(VARIABLE.findall(css.split("@media")[0])) | dict(VARIABLE.findall(css.split("@media print")[1]))
    figure = _plain(file("figure.css"), colours)
    page = _page(report, code, _plain(css, colours) + figure + file("print.css"), "", " open")
    small = "\n".join(rule for rule in figure.splitlines() if not rule.startswith(".figure"))

    # A renderer of paper looks for the rules of a picture inside of it.
    def ruled(found: re.Match[str]) -> str:
        return f"{found[0]}<style>{figure if IS_FIGURE in found[0] else small}</style>"

    return re.sub(r"<svg\b[^>]*>", ruled, page)


def file(name: str) -> str:
    """A file of this folder."""
    return (resources.files("evals.report") / name).read_text("utf-8")


def _plain(css: str, colours: Mapping[str, str]) -> str:
    """The rules outside of any `@media`, with the value of each variable in its place."""
    rules = re.sub(r"@media[^{]*\{(?:[^{}]*\{[^{}]*\})*[^{}]*\}", "", css)
    return re.sub(r"var\(--([\w-]+)\)", lambda found: colours.get(found[1], found[0]), rules)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    return Environment(
        loader=FunctionLoader(file), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def _page(report: Mapping[str, Any], code: str, css: str, script: str, fold: str) -> str:
    """The frame and every section that has something to say. ``fold``: ` open` where nothing may be folded away."""
    from markupsafe import Markup

    view, environment = View(report, language(code)), _environment()
    shared = _shared(view) | {"fold": Markup(fold)}
    found = []
    for name, (template, title) in SECTIONS.items():
        body = environment.get_template(f"sections/{template}.html.j2").render(**shared, section=name).strip()
        if body:
            found.append(SimpleNamespace(name=name, title=view.say(title), body=Markup(body)))
    frame = environment.get_template("report.html.j2")
    return frame.render(**shared, sections=found, css=Markup(css), js=Markup(script))


def _shared(view: View) -> dict[str, Any]:
    """What every template may name."""
    return {
        "v": view,
        "r": view.report,
        "t": view.t,
        "n": view.n,
        "at": view.at,
        "say": view.say,
        "phrase": view.phrase,
        "between": partial(parts.between, view),
        "quantiles": partial(parts.quantiles, view),
        "legend": partial(parts.legend, view),
        "key": parts.key,
        "table": partial(parts.table, view),
        "end_table": parts.CLOSE,
        "unknown": parts.unknown,
        "sign": parts.sign,
        "arms": [(number, arm, view.role(arm["name"])) for number, arm in enumerate(view.report["arms"])],
        "has_first": load.has_first,
        "drawn_slices": partial(slices.names, view),
        "slices_title": partial(slices.title, view),
        "further": [f"slices.{field}" for field in view.report.get("slices", {})],
        **{f"figure_{name}": partial(draw, view) for name, draw in FIGURES.items()},
    }
