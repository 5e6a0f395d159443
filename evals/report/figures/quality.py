"""Quality against cost: who is good, who is cheap, and whom no other one beats in both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evals.report.svg import WIDTH, Labels, heights, line, log_axis, log_ticks, mark, rect, share_range, svg, text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from markupsafe import Markup

    from evals.report.view import View

    Place = tuple[Mapping[str, Any], float]

TOP, BOTTOM, LEFT, GUTTER = 26.0, 350.0, 62.0, 170.0


def quality_and_cost(view: View) -> Markup:
    """Accuracy with intervals over EUR per 1,000 requests (logarithmic); systems of unknown cost stand apart."""
    arms = view.report["arms"]
    priced = [a for a in arms if (a["cost"]["per_1000_requests"] or {}).get("value")]
    unpriced = [a for a in arms if a not in priced]
    edge = WIDTH - 12
    right = edge - GUTTER - 16 if unpriced else edge
    low, high = share_range([a["accuracy"][k] for a in arms for k in ("low", "high")])
    y, grid = heights(low, high, LEFT, edge, TOP, BOTTOM, view.to.tick)
    start = edge - GUTTER if priced else LEFT
    body = _gutter(view, start, edge) if unpriced else []
    body += [*grid, text(LEFT - 50, TOP - 10, view.metric, "axis")]
    places = _unpriced_places(unpriced, start, edge, bool(priced))
    labels = Labels(LEFT, WIDTH - 4)
    labels.taken.append((LEFT, BOTTOM + 5, WIDTH, BOTTOM + 60))  # the axis
    if priced:
        costs = [v for a in priced for v in (a["cost"]["per_1000_requests"][k] for k in ("low", "value", "high")) if v]
        x = log_axis(min(costs), max(costs), LEFT + 14, right - 14)
        body += log_ticks(min(costs), max(costs), x, LEFT, right, TOP, BOTTOM, view.to.plain)
        body += [
            text((LEFT + right) / 2, BOTTOM + 44, view.say("cost.axis"), "axis", "middle"),
            _frontier(priced, x, y),
        ]
        body += [_cost_whisker(view, arm, x, y) for arm in priced]
        places += [(arm, x(arm["cost"]["per_1000_requests"]["value"])) for arm in priced]
    for arm, at in places:
        labels.keep_free(at, y(arm["accuracy"]["value"]))
    body += _margin_line(view, low, high, y, edge, labels)
    body += _marks(view, places, y, labels)
    facts = view.facts(
        "cost.fact", [{"label": view.to.label(a), "value": view.to.percent(a["accuracy"]["value"])} for a in arms]
    )
    return svg("fig-cost", view.say("cost.title"), view.say("cost.about", metric=view.Metric, facts=facts), 404, body)


def _marks(view: View, places: Sequence[Place], y: Callable[[float], float], labels: Labels) -> list[str]:
    """Whisker, shape and name of each system; the two that matter get the best places."""
    body: list[str] = []
    for arm, at in places:
        body += accuracy_mark(arm["accuracy"], at, y, view.role(arm["name"]))
    judged = (view.report["candidate"], view.report["reference"])
    ordered = sorted(places, key=lambda place: place[0]["name"] not in judged)
    return body + [labels.place(at, y(arm["accuracy"]["value"]), view.to.short(arm)) for arm, at in ordered]


def _gutter(view: View, start: float, end: float) -> list[str]:
    box = rect(start, TOP, end - start, BOTTOM - TOP, "gutter")
    return [box, text((start + end) / 2, BOTTOM + 20, view.say("cost.unknown"), "tick", "middle")]


def _unpriced_places(arms: Sequence[Any], start: float, end: float, narrow: bool) -> list[Place]:
    step = 14.0 if narrow else (end - start) / (len(arms) + 1)
    return [(arm, start + 6 + step * (number + 1)) for number, arm in enumerate(arms)]


def _margin_line(view: View, low: float, high: float, y: Any, edge: float, labels: Labels) -> list[str]:
    """The reference minus the margin, with its name."""
    limit = view.arms[view.report["reference"]]["accuracy"]["value"] - view.report["margin"]
    if not low <= limit <= high:
        return []
    name = view.say("cost.margin")
    width = 6.3 * len(name)
    spots = [
        (start, y(limit) - 18, start + width, y(limit) + 2) for start in (LEFT + 6, (edge - width) / 2, edge - width)
    ]
    box = next((spot for spot in spots if labels.free(spot)), spots[0])
    labels.taken.append(box)
    return [line(LEFT, y(limit), edge, y(limit), "margin"), text(box[0], y(limit) - 6, name, "note")]


def _cost_whisker(view: View, arm: Mapping[str, Any], x: Any, y: Any) -> str:
    cost, height = arm["cost"]["per_1000_requests"], y(arm["accuracy"]["value"])
    if not cost["low"] or not cost["high"]:
        return ""
    return line(x(cost["low"]), height, x(cost["high"]), height, f"whisker {view.role(arm['name'])}")


def accuracy_mark(accuracy: Mapping[str, float], at: float, y: Callable[[float], float], role: str) -> list[str]:
    """An upright whisker and the shape of a system."""
    return [
        line(at, y(accuracy["low"]), at, y(accuracy["high"]), f"whisker {role}"),
        mark(at, y(accuracy["value"]), role),
    ]


def _frontier(arms: Sequence[Any], x: Any, y: Any) -> str:
    """Steps through the systems that no other one beats in both quality and cost."""
    best, points = -1.0, []
    for arm in sorted(arms, key=lambda a: (a["cost"]["per_1000_requests"]["value"], -a["accuracy"]["value"])):
        if arm["accuracy"]["value"] > best:
            best = arm["accuracy"]["value"]
            points.append((x(arm["cost"]["per_1000_requests"]["value"]), y(best)))
    path = f"M{points[0][0]:.1f} {points[0][1]:.1f}" + "".join(f"H{px:.1f}V{py:.1f}" for px, py in points[1:])
    return f'<path d="{path}" class="frontier"/>'
