"""Accuracy in each language or task: one group of rows a slice, one row a system."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from evals.report.svg import WIDTH, line, mark, share_range, svg, text, ticks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from markupsafe import Markup

    from evals.report.view import View

LEFT, RIGHT, TOP, STEP, AIR = 190.0, WIDTH - 16.0, 8.0, 15.0, 16.0
MANY = 8
"""From so many slices on only the two systems that are judged are drawn; the table holds all."""


def names(view: View, path: str) -> list[str]:
    """The systems drawn for the slices at ``path`` (languages, tasks, slices.FIELD)."""
    return view.chosen[:2] if len(view.at(path)) > MANY else view.chosen


def title(view: View, path: str) -> str:
    """What these slices are by."""
    further = path.startswith("slices.")
    return view.say("slices.field", field=path.removeprefix("slices.")) if further else view.say(f"slices.{path}")


def name_of(view: View, key: str, part: Mapping[str, Any]) -> str:
    """A language by its name, a task by its own."""
    return view.lang(part["name"]) if key == "languages" else str(part["name"])


def slices(view: View, key: str) -> Markup:
    """Accuracy with intervals for each language or task."""
    shown, parts = names(view, key), view.at(key)
    low, high = share_range([p["arms"][n]["accuracy"][k] for p in parts for n in shown for k in ("low", "high")])
    x = lambda v: LEFT + (v - low) / (high - low) * (RIGHT - LEFT)  # noqa: E731
    group = STEP * len(shown) + AIR
    bottom = TOP + group * len(parts)
    body = [line(x(v), TOP, x(v), bottom, "grid") for v in ticks(low, high)]
    body += [text(x(v), bottom + 19, view.to.tick(v), "tick", "middle") for v in ticks(low, high)]
    for number, part in enumerate(parts):
        body += _group(view, key, part, shown, x, TOP + group * number)
        if number:
            body.append(line(0, TOP + group * number, RIGHT, TOP + group * number, "grid"))
    body.append(text((LEFT + RIGHT) / 2, bottom + 40, view.metric, "axis", "middle"))
    judged = view.report["candidate"]
    facts = view.facts(
        "cost.fact",
        [
            {"label": name_of(view, key, p), "value": view.to.percent(p["arms"][judged]["accuracy"]["value"])}
            for p in parts
        ],
    )
    about = view.say("slices.about", metric=view.Metric, facts=facts)
    name = "fig-" + re.sub(r"[^\w-]", "-", key)
    return svg(name, title(view, key), about, bottom + 48, body)


def _group(
    view: View, key: str, part: Mapping[str, Any], shown: Sequence[str], x: Callable[[float], float], top: float
) -> list[str]:
    """Name, number of items, and a whisker and mark for each system."""
    middle = top + (STEP * len(shown) + AIR) / 2
    name = name_of(view, key, part)
    name = name if len(name) <= 26 else name[:25] + "…"
    count = view.say("slices.rows", n=view.to.number(part["n"]))
    body = [text(LEFT - 14, middle - 2, name, "label", "end"), text(LEFT - 14, middle + 13, count, "tick", "end")]
    for number, system in enumerate(shown):
        y, accuracy = top + AIR / 2 + STEP * (number + 0.5), part["arms"][system]["accuracy"]
        role = view.role(system)
        body += [line(x(accuracy["low"]), y, x(accuracy["high"]), y, f"whisker {role}")]
        body += [mark(x(accuracy["value"]), y, role)]
    return body
