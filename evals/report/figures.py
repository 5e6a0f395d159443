"""The pictures of the report. Shapes tell systems apart as well as colours; every figure is described in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evals.report.numbers import shown
from evals.report.svg import WIDTH, Labels, line, log_axis, log_ticks, mark, share_axis, share_range, svg, text, ticks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from markupsafe import Markup

MARGIN = "the margin: so much may be lost"
COST_AXIS = "EUR per 1,000 requests (logarithmic): cheaper to the left"
TOP, BOTTOM, LEFT, GUTTER = 26.0, 350.0, 62.0, 170.0
NAMES = {
    "teacher": "teacher",
    "student": "student",
    "base": "untouched student",
    "base_forced": "untouched, held to answers",
    "base_prompted": "untouched, teacher's prompt",
    "baseline": "logistic regression",
    "baseline_gold": "same, gold labels",
}


def short(arm: Mapping[str, Any]) -> str:
    """A name that fits beside a mark."""
    name = arm["label"] if arm["label"] == arm["name"] else NAMES.get(arm["name"], arm["label"])
    return name if len(name) <= 30 else name[:29] + "…"


def role_of(report: Mapping[str, Any], name: str) -> str:
    """candidate, reference, humble or other: decides shape and colour."""
    if name in (report["candidate"], report["reference"]):
        return "candidate" if name == report["candidate"] else "reference"
    return "humble" if name in report["humble"] else "other"


def quality_and_cost(report: Mapping[str, Any]) -> Markup:
    """Accuracy with intervals over EUR per 1,000 requests (logarithmic); systems of unknown cost stand apart."""
    arms = report["arms"]
    priced = [a for a in arms if (a["cost"]["per_1000_requests"] or {}).get("value")]
    unpriced = [a for a in arms if a not in priced]
    edge = WIDTH - 12
    right = edge - GUTTER - 16 if unpriced else edge
    low, high = share_range([a["accuracy"][k] for a in arms for k in ("low", "high")])
    y, grid = share_axis(low, high, LEFT, edge, TOP, BOTTOM)
    start = edge - GUTTER if priced else LEFT
    body = _gutter(start, edge) if unpriced else []
    body += [*grid, text(LEFT - 50, TOP - 10, report["method"]["metric"], "axis")]
    places = _unpriced_places(unpriced, start, edge, bool(priced))
    labels = Labels(LEFT, WIDTH - 4)
    labels.taken.append((LEFT, BOTTOM + 5, WIDTH, BOTTOM + 60))  # the axis
    if priced:
        costs = [v for a in priced for v in (a["cost"]["per_1000_requests"][k] for k in ("low", "value", "high")) if v]
        x = log_axis(min(costs), max(costs), LEFT + 14, right - 14)
        body += log_ticks(min(costs), max(costs), x, LEFT, right, TOP, BOTTOM)
        body += [text((LEFT + right) / 2, BOTTOM + 44, COST_AXIS, "axis", "middle"), _frontier(priced, x, y)]
        body += [_cost_whisker(report, arm, x, y) for arm in priced]
        places += [(arm, x(arm["cost"]["per_1000_requests"]["value"])) for arm in priced]
    for arm, at in places:
        labels.keep_free(at, y(arm["accuracy"]["value"]))
    body += _margin_line(report, low, high, y, edge, labels)
    for arm, at in places:
        body += _accuracy_mark(arm["accuracy"], at, y, role_of(report, arm["name"]))
    # The two that matter get the best places.
    places.sort(key=lambda place: place[0]["name"] not in (report["candidate"], report["reference"]))
    body += [labels.place(at, y(arm["accuracy"]["value"]), short(arm)) for arm, at in places]
    facts = "; ".join(f"{a['label']}: {100 * a['accuracy']['value']:.1f} %" for a in arms)
    description = f"Accuracy with 95 % intervals over EUR per 1,000 requests. {facts}."
    return svg("fig-cost", "Quality against cost", description, 404, body)


def _gutter(start: float, end: float) -> list[str]:
    place = f'x="{start:.1f}" y="{TOP}" width="{end - start:.1f}" height="{BOTTOM - TOP}"'
    return [f'<rect {place} class="gutter"/>', text((start + end) / 2, BOTTOM + 20, "cost unknown", "tick", "middle")]


def _unpriced_places(arms: Sequence[Any], start: float, end: float, narrow: bool) -> list[tuple[Any, float]]:
    step = 14.0 if narrow else (end - start) / (len(arms) + 1)
    return [(arm, start + 6 + step * (number + 1)) for number, arm in enumerate(arms)]


def _margin_line(report: Mapping[str, Any], low: float, high: float, y: Any, edge: float, labels: Labels) -> list[str]:
    """The reference minus the margin, with its name."""
    reference = next(a for a in report["arms"] if a["name"] == report["reference"])
    limit = reference["accuracy"]["value"] - report["margin"]
    if not low <= limit <= high:
        return []
    width = 6.3 * len(MARGIN)
    spots = [
        (start, y(limit) - 18, start + width, y(limit) + 2) for start in (LEFT + 6, (edge - width) / 2, edge - width)
    ]
    box = next((spot for spot in spots if labels.free(spot)), spots[0])
    labels.taken.append(box)
    return [line(LEFT, y(limit), edge, y(limit), "margin"), text(box[0], y(limit) - 6, MARGIN, "note")]


def _cost_whisker(report: Mapping[str, Any], arm: Mapping[str, Any], x: Any, y: Any) -> str:
    cost, height = arm["cost"]["per_1000_requests"], y(arm["accuracy"]["value"])
    if not cost["low"] or not cost["high"]:
        return ""
    return line(x(cost["low"]), height, x(cost["high"]), height, f"whisker {role_of(report, arm['name'])}")


def _accuracy_mark(accuracy: Mapping[str, float], at: float, y: Any, role: str) -> list[str]:
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


def differences(report: Mapping[str, Any]) -> Markup:
    """Paired differences: the candidate minus each other system, with the margin as a band."""
    pairs = report["pairs"]
    own = short(next(a for a in report["arms"] if a["name"] == report["candidate"]))
    arms = {a["name"]: a for a in report["arms"]}
    ends = [v for p in pairs for v in (p["difference"]["low"], p["difference"]["high"]) if v is not None]
    low, high = min([*ends, -report["margin"] * 1.5]), max([*ends, report["margin"]])
    air = (high - low) * 0.06
    low, high = low - air, high + air
    left, right, top, row = 232.0, WIDTH - 178.0, 30.0, 36.0
    bottom = top + row * len(pairs)
    x = lambda v: left + (v - low) / (high - low) * (right - left)  # noqa: E731
    width = x(0) - x(-report["margin"])
    band = f'x="{x(-report["margin"]):.1f}" y="{top}" width="{width:.1f}" height="{bottom - top}"'
    body = [f'<rect {band} class="band"/>']
    for v in ticks(low, high):
        body.append(line(x(v), top, x(v), bottom, "zero" if v == 0 else "grid"))
        body.append(text(x(v), bottom + 19, f"{100 * v:+g}".replace("-", "\u2212") if v else "0", "tick", "middle"))
    body.append(text(x(0) - 6, top - 9, "the other is better", "note", "end"))
    body.append(text(x(0) + 6, top - 9, f"{own} is better", "note"))
    for number, pair in enumerate(pairs):
        name = short(arms[pair["other"]])
        body += _difference_row(report, number, name, x, (left, top + row * (number + 0.5), right))
    axis = f"{own} minus the other, in points of {report['method']['metric']}; shaded: the margin"
    body.append(text((left + right) / 2, bottom + 40, axis, "axis", "middle"))
    words = "The candidate minus each other system on the same items, with 95 % intervals."
    return svg("fig-pairs", "Paired differences", words, bottom + 50, body)


def _difference_row(
    report: Mapping[str, Any], number: int, name: str, x: Any, place: tuple[float, float, float]
) -> list[str]:
    """Name, whisker, mark and numbers of one pair; ``place`` is (left, height, right)."""
    left, y, right = place
    pair = report["pairs"][number]
    d, role = pair["difference"], role_of(report, pair["other"])
    numbers = (shown(report, f"pairs.{number}.difference.{k}", "points", "tspan") for k in ("value", "low", "high"))
    at = f'x="{right + 14:.1f}" y="{y + 4:.1f}" class="value"'
    body = [text(left - 12, y + 4, name, "label", "end"), "<text {}>{} [{}, {}]</text>".format(at, *numbers)]
    if d["low"] is not None and d["high"] is not None:
        body.append(line(x(d["low"]), y, x(d["high"]), y, f"whisker {role}"))
    return [*body, mark(x(d["value"]), y, role)]


def slices(report: Mapping[str, Any], key: str, names: Sequence[str]) -> Markup:
    """Accuracy with intervals for each language or task, one column of marks per system."""
    rows = report[key]
    low, high = share_range([r["arms"][n]["accuracy"][k] for r in rows for n in names for k in ("low", "high")])
    bottom, right = 236.0, WIDTH - 12
    y, body = share_axis(low, high, LEFT, right, 16.0, bottom)
    width = (right - LEFT) / len(rows)
    step = min(30.0, width / (len(names) + 1))
    for number, row in enumerate(rows):
        centre = LEFT + width * (number + 0.5)
        for place, name in enumerate(names):
            at = centre + step * (place - (len(names) - 1) / 2)
            body += _accuracy_mark(row["arms"][name]["accuracy"], at, y, role_of(report, name))
        body.append(text(centre, bottom + 22, f"{row['name']} (n = {row['n']})", "label", "middle"))
    noun = key.removesuffix("s")
    words = f"Accuracy with 95 % intervals for each {noun}."
    return svg(f"fig-{key}", f"Accuracy by {noun}", words, bottom + 36, body)


def cells(report: Mapping[str, Any]) -> Markup:
    """One bar: both right, lost, gained, copied errors, other errors."""
    counts = report["fidelity"]["cells"]
    total = sum(counts.values())
    body, start = [], 0.0
    for name, count in counts.items():
        width = WIDTH * count / total
        if count:
            body.append(
                f'<rect x="{start:.1f}" y="0" width="{max(width - 2, 1):.1f}" height="30" rx="2" class="cell {name}"/>'
            )
        if width > 34:
            place = f'x="{start + 8:.1f}" y="20" class="cell-value {name}"'
            body.append(str(shown(report, f"fidelity.cells.{name}", "whole", "text", place)))
        start += width
    return svg(
        "fig-cells",
        "What was kept and what was lost",
        f"Of {total} items: " + ", ".join(f"{v} {k.replace('_', ' ')}" for k, v in counts.items()),
        30,
        body,
    )


def deferral(report: Mapping[str, Any]) -> Markup:
    """Accuracy of the cascade over the share of requests passed on to the reference."""
    curve, best = report["cascade"]["curve"], report["cascade"]["best"]
    bottom, right = 236.0, WIDTH - 12
    low, high = share_range([p["accuracy"] for p in curve])
    y, body = share_axis(low, high, LEFT, right, 16.0, bottom)
    x = lambda v: LEFT + v * (right - LEFT)  # noqa: E731
    body += [text(x(v / 5), bottom + 20, f"{20 * v} %", "tick", "middle") for v in range(6)]
    limit = curve[-1]["accuracy"] - report["margin"]
    if low <= limit <= high:
        body.append(line(LEFT, y(limit), right, y(limit), "margin"))
    points = " ".join(f"{x(p['escalated']):.1f},{y(p['accuracy']):.1f}" for p in curve)
    body.append(f'<polyline points="{points}" class="curve"/>')
    if best:
        body.append(mark(x(best["escalated"]), y(best["accuracy"]), "candidate"))
    body.append(text((LEFT + right) / 2, bottom + 42, "share of requests passed on", "axis", "middle"))
    title = "Accuracy of student first, teacher when unsure"
    return svg("fig-cascade", title, report["cascade"]["sentence"], bottom + 50, body)
