"""Latency and goodput of one system over the number of requests at once."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from evals.report.svg import WIDTH, heights, line, polyline, svg, text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from markupsafe import Markup

    from evals.report.view import View

TOP, BOTTOM = 28.0, 232.0
PANELS = ((58.0, 372.0), (446.0, WIDTH - 14.0))
LATENCIES = (("e2e", "p50", "whole"), ("e2e", "p95", "whole dashed"), ("ttft", "p50", "first"),
             ("ttft", "p95", "first dashed"))  # fmt: skip
RATES = (("requests_per_s", "all"), ("goodput_per_s", "good"))


def levels(view: View, number: int) -> Markup:
    """Two panels: seconds at p50 and p95, and requests a second, all and within the objective."""
    arm, objective = view.report["load"]["arms"][number], view.report["load"]["objective"]
    rows = arm["levels"]
    left, right = PANELS
    body = [text(left[0] - 46, TOP - 12, view.say("load.seconds"), "axis")]
    body += [text(right[0] - 46, TOP - 12, view.say("load.per_s"), "axis")]
    body += _seconds(view, rows, objective, left)
    body += _rates(view, rows, arm["best"], right)
    for start, end in PANELS:
        body += _axis(view, rows, start, end)
    facts = view.facts(
        "load.fact",
        [{"concurrency": row["concurrency"], "e2e": view.write("seconds", row["e2e"]["p95"]),
          "goodput": view.write("three", row["goodput_per_s"])} for row in rows],
    )  # fmt: skip
    title = view.say("load.figure", label=view.label(arm["name"]))
    return svg(f"fig-load-{number}", title, view.say("load.about", facts=facts), BOTTOM + 52, body)


def has_first(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Is the first token's time known?"""
    return any(row["ttft"] for row in rows)


def _x(rows: Sequence[Mapping[str, Any]], start: float, end: float) -> Callable[[float], float]:
    """Logarithmic: each doubling of the load takes as much room."""
    low, high = math.log(rows[0]["concurrency"]), math.log(rows[-1]["concurrency"])
    if high == low:
        return lambda v: (start + end) / 2
    return lambda v: start + 14 + (math.log(v) - low) / (high - low) * (end - start - 28)


def _axis(view: View, rows: Sequence[Mapping[str, Any]], start: float, end: float) -> list[str]:
    """The levels that were tried, as far as there is room for their numbers."""
    x, body, last = _x(rows, start, end), [], -math.inf
    for row in rows:
        at = x(row["concurrency"])
        if at - last >= 24:
            body.append(text(at, BOTTOM + 20, view.to.number(row["concurrency"]), "tick", "middle"))
            last = at
    return [*body, text((start + end) / 2, BOTTOM + 42, view.say("load.concurrency"), "axis", "middle")]


def _seconds(
    view: View, rows: Sequence[Mapping[str, Any]], objective: Mapping[str, Any], panel: tuple[float, float]
) -> list[str]:
    """The four lines of latency, and the objective dotted."""
    start, end = panel
    limits = [(objective[f"{part}_s"], cls) for part, cls in (("e2e", "whole"), ("ttft", "first"))]
    top = max(row["e2e"]["p95"] for row in rows) * 1.06
    y, body = heights(0, top, start, end, TOP, BOTTOM, view.to.plain)
    x = _x(rows, start, end)
    body += [
        line(start, y(limit), end, y(limit), f"objective {cls}") for limit, cls in limits if limit and limit <= top
    ]
    for part, quantile, cls in LATENCIES:
        points = [(x(row["concurrency"]), y(row[part][quantile])) for row in rows if row[part]]
        body += [polyline(points, f"series {cls}")] if points else []
        body += [_dot(*point, cls.split()[0]) for point in points]
    return body


def _rates(view: View, rows: Sequence[Mapping[str, Any]], best: int | None, panel: tuple[float, float]) -> list[str]:
    """All answers and those within the objective; the best level is ringed."""
    start, end = panel
    top = max(row["requests_per_s"] for row in rows) * 1.12
    y, body = heights(0, top, start, end, TOP, BOTTOM, view.to.plain)
    x = _x(rows, start, end)
    for key, cls in RATES:
        points = [(x(row["concurrency"]), y(row[key])) for row in rows if row[key] is not None]
        body += [polyline(points, f"series {cls}")] if points else []
        body += [_dot(*point, cls) for point in points]
    if best is not None:
        value = rows[best]["goodput_per_s"]
        at, height = x(rows[best]["concurrency"]), y(value if value is not None else rows[best]["requests_per_s"])
        body.append(f'<circle cx="{at:.1f}" cy="{height:.1f}" r="8" class="ring"/>')
    return body


def _dot(x: float, y: float, cls: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" class="dot {cls}"/>'
