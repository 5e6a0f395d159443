"""report.json as one self-contained page: no script, font, picture or style is fetched from anywhere."""

from __future__ import annotations

from functools import partial
from importlib import resources
from typing import TYPE_CHECKING, Any

from evals.report import figures
from evals.report.numbers import at, shown
from evals.report.svg import SHAPES

if TYPE_CHECKING:
    from collections.abc import Mapping


def html(report: Mapping[str, Any]) -> str:
    """The page. A pure function of the report."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    folder = resources.files("evals.report")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((folder / "report.html.j2").read_text("utf-8"))
    names = [arm["name"] for arm in report["arms"]]
    chosen = [n for n in (report["reference"], report["candidate"], report["base"], *report["humble"][:1]) if n]
    return template.render(
        r=report,
        n=partial(shown, report),
        at=partial(at, report),
        css=Markup((folder / "report.css").read_text("utf-8")),
        js=Markup((folder / "report.js").read_text("utf-8")),
        arms=list(enumerate(report["arms"])),
        index=names.index,
        candidate=report["arms"][names.index(report["candidate"])],
        reference=report["arms"][names.index(report["reference"])],
        role=partial(figures.role_of, report),
        shapes=SHAPES,
        short=figures.short,
        chosen=list(dict.fromkeys(chosen)),
        figure_cost=figures.quality_and_cost(report),
        figure_pairs=figures.differences(report),
        figure_slices={
            key: figures.slices(report, key, list(dict.fromkeys(chosen)))
            for key in ("languages", "tasks")
            if len(report[key]) > 1
        },
        figure_cascade=figures.deferral(report) if report["cascade"] else "",
        figure_cells=figures.cells(report),
    )
