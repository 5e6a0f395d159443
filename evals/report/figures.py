"""The pictures: hand-written SVG that takes its colours from the page, so light, dark and print are one file.

Shapes tell systems apart as well as colours. Every figure has a title and a description for screen readers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from evals.report.numbers import shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WIDTH = 760.0
MARGIN = "the margin: so much may be lost"
SHAPES = {
    "candidate": '<circle r="6.5"/>',
    "reference": '<rect x="-6" y="-6" width="12" height="12"/>',
    "humble": '<path d="M0-7.5 7 5.5H-7Z"/>',
    "other": '<path d="M0-7.5 7.5 0 0 7.5-7.5 0Z"/>',
}


def role_of(report: Mapping[str, Any], name: str) -> str:
    """candidate, reference, humble or other: decides shape and colour."""
    if name in (report["candidate"], report["reference"]):
        return "candidate" if name == report["candidate"] else "reference"
    return "humble" if name in report["humble"] else "other"


def svg(name: str, title: str, description: str, height: float, body: Sequence[str]) -> Markup:
    """One figure."""
    return Markup(
        f'<svg class="figure" viewBox="0 0 {WIDTH:g} {height:g}" role="img" aria-labelledby="{name}-t {name}-d">'
        f'<title id="{name}-t">{escape(title)}</title><desc id="{name}-d">{escape(description)}</desc>'
        + "".join(body)
        + "</svg>"
    )


def text(x: float, y: float, content: str, cls: str = "", anchor: str = "start") -> str:
    """One line of text."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{cls}" text-anchor="{anchor}">{escape(content)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, cls: str) -> str:
    """A straight line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{cls}"/>'


def mark(x: float, y: float, role: str) -> str:
    """The shape of a system."""
    return f'<g class="mark {role}" transform="translate({x:.1f} {y:.1f})">{SHAPES[role]}</g>'


@dataclass
class Labels:
    """Places labels so that they cover neither each other nor a mark."""

    left: float
    right: float
    taken: list[tuple[float, float, float, float]] = field(default_factory=list)

    def keep_free(self, x: float, y: float, half: float = 9) -> None:
        """No label may cover this point."""
        self.taken.append((x - half, y - half, x + half, y + half))

    def place(self, x: float, y: float, content: str) -> str:
        """A label beside (x, y), at the first place that is free."""
        width = 6.7 * len(content)
        for dx, dy, anchor in (
            (13, 4, "start"), (-13, 4, "end"), (13, -13, "start"), (13, 21, "start"), (-13, -13, "end"),
            (-13, 21, "end"), (0, -16, "middle"), (0, 26, "middle"), (13, -28, "start"), (13, 36, "start"),
        ):  # fmt: skip
            start = x + dx - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
            box = (start, y + dy - 11, start + width, y + dy + 3)
            if box[0] >= self.left and box[2] <= self.right and not any(_overlap(box, other) for other in self.taken):
                break
        self.taken.append(box)
        return text(x + dx, y + dy, content, "label", anchor)


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def ticks(low: float, high: float) -> list[float]:
    """Round numbers between low and high, 4 to 8 of them."""
    raw = (high - low) / 5
    step = next(
        m * 10 ** math.floor(math.log10(raw))
        for m in (1, 2, 2.5, 5, 10)
        if m * 10 ** math.floor(math.log10(raw)) >= raw
    )
    first = math.ceil(low / step - 1e-9)
    return [round(step * i, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def share_range(values: Sequence[float]) -> tuple[float, float]:
    """A range of shares that holds all values, with some air, inside 0..1."""
    low, high = min(values), max(values)
    air = max(0.03, (high - low) * 0.08)
    return max(0.0, math.floor((low - air) * 20) / 20), min(1.0, math.ceil((high + air) * 20) / 20)


def quality_and_cost(report: Mapping[str, Any]) -> Markup:
    """Accuracy with intervals over EUR per 1,000 requests (logarithmic); systems of unknown cost stand apart."""
    arms = report["arms"]
    priced = [a for a in arms if (a["cost"]["per_1000_requests"] or {}).get("value")]
    unpriced = [a for a in arms if a not in priced]
    top, bottom, left = 26.0, 350.0, 62.0
    gutter = 170.0 if unpriced else 0.0
    right = WIDTH - 12 - gutter - (16 if gutter else 0)
    low, high = share_range([a["accuracy"][k] for a in arms for k in ("low", "high")])
    y = lambda v: bottom - (v - low) / (high - low) * (bottom - top)  # noqa: E731
    body = [
        line(left, y(v), WIDTH - 12, y(v), "grid") + text(left - 9, y(v) + 4, f"{100 * v:g} %", "tick", "end")
        for v in ticks(low, high)
    ]
    reference = next(a for a in arms if a["name"] == report["reference"])
    limit = reference["accuracy"]["value"] - report["margin"]
    if low <= limit <= high:
        body.append(line(left, y(limit), WIDTH - 12, y(limit), "margin"))
        body.append(text(left + 6, y(limit) - 6, MARGIN, "note"))
    labels = Labels(left, WIDTH - 4)
    labels.taken.append((left, y(limit) - 18, left + 6.5 * len(MARGIN), y(limit) + 2))
    places: list[tuple[Any, float]] = []
    if priced:
        costs = [v for a in priced for v in (a["cost"]["per_1000_requests"][k] for k in ("low", "value", "high")) if v]
        x = _log_axis(min(costs), max(costs), left + 14, right - 14)
        body += _log_ticks(min(costs), max(costs), x, left, right, top, bottom)
        body.append(
            text(
                (left + right) / 2,
                bottom + 44,
                "EUR per 1,000 requests (logarithmic): cheaper to the left",
                "axis",
                "middle",
            )
        )
        body.append(_frontier(priced, x, y))
        for arm in priced:
            cost = arm["cost"]["per_1000_requests"]
            at = x(cost["value"])
            places.append((arm, at))
            if cost["low"] and cost["high"]:
                body.append(
                    line(
                        x(cost["low"]),
                        y(arm["accuracy"]["value"]),
                        x(cost["high"]),
                        y(arm["accuracy"]["value"]),
                        f"whisker {role_of(report, arm['name'])}",
                    )
                )
    if unpriced:
        start = WIDTH - 12 - gutter if priced else left
        end = WIDTH - 12
        body.append(
            f'<rect x="{start:.1f}" y="{top}" width="{end - start:.1f}" height="{bottom - top}" class="gutter"/>'
        )
        body.append(text((start + end) / 2, bottom + 20, "cost unknown", "tick", "middle"))
        step = (end - start) / (len(unpriced) + 1) if not priced else 0.0
        for number, arm in enumerate(unpriced):
            places.append((arm, start + step * (number + 1) if not priced else start + 20 + 14 * number))
    for arm, at in places:
        labels.keep_free(at, y(arm["accuracy"]["value"]))
    for arm, at in places:
        accuracy, role = arm["accuracy"], role_of(report, arm["name"])
        body.append(line(at, y(accuracy["low"]), at, y(accuracy["high"]), f"whisker {role}"))
        body.append(mark(at, y(accuracy["value"]), role))
    body += [labels.place(at, y(arm["accuracy"]["value"]), short(arm)) for arm, at in places]
    body.append(text(left - 50, top - 10, "accuracy", "axis"))
    facts = "; ".join(f"{a['label']}: {100 * a['accuracy']['value']:.1f} %" for a in arms)
    return svg(
        "fig-cost",
        "Quality against cost",
        f"Accuracy with 95 % intervals over EUR per 1,000 requests. {facts}.",
        404,
        body,
    )


NAMES = {
    "teacher": "teacher",
    "student": "student",
    "base": "untouched student",
    "base_forced": "untouched, held to answers",
    "baseline": "logistic regression",
    "baseline_gold": "same, gold labels",
}


def short(arm: Mapping[str, Any]) -> str:
    """A name that fits beside a mark."""
    name = NAMES.get(arm["name"], arm["label"])
    return name if len(name) <= 30 else name[:29] + "…"


def _log_axis(low: float, high: float, start: float, end: float) -> Any:
    a, b = math.log10(low), math.log10(high)
    if b - a < 0.3:
        a, b = a - 0.3, b + 0.3
    pad = (b - a) * 0.06
    a, b = a - pad, b + pad
    return lambda v: start + (math.log10(v) - a) / (b - a) * (end - start)


def _log_ticks(low: float, high: float, x: Any, left: float, right: float, top: float, bottom: float) -> list[str]:
    body = []
    many = math.log10(high / low) > 2
    for exponent in range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1):
        for factor in (1,) if many else (1, 2, 5):
            value = factor * 10.0**exponent
            if left <= x(value) <= right:
                body.append(line(x(value), top, x(value), bottom, "grid"))
                body.append(text(x(value), bottom + 20, f"{value:.10f}".rstrip("0").rstrip("."), "tick", "middle"))
    return body


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
        body.append(text(x(v), bottom + 19, f"{100 * v:+.0f}".replace("-", "\u2212") if v else "0", "tick", "middle"))
    body.append(text(x(0) - 6, top - 9, "the other is better", "note", "end"))
    body.append(text(x(0) + 6, top - 9, f"{own} is better", "note"))
    for number, pair in enumerate(pairs):
        y = top + row * (number + 0.5)
        d, role = pair["difference"], role_of(report, pair["other"])
        if d["low"] is not None and d["high"] is not None:
            body.append(line(x(d["low"]), y, x(d["high"]), y, f"whisker {role}"))
        body.append(mark(x(d["value"]), y, role))
        body.append(text(left - 12, y + 4, short(arms[pair["other"]]), "label", "end"))
        prefix, place = f"pairs.{number}.difference", f'x="{right + 14:.1f}" y="{y + 4:.1f}" class="value"'
        parts = (shown(report, f"{prefix}.{k}", "points", "tspan") for k in ("value", "low", "high"))
        body.append("<text {}>{} [{}, {}]</text>".format(place, *parts))
    body.append(
        text(
            (left + right) / 2,
            bottom + 40,
            f"{own} minus the other, in points of accuracy; shaded: the margin",
            "axis",
            "middle",
        )
    )
    return svg(
        "fig-pairs",
        "Paired differences",
        "The candidate minus each other system on the same items, with 95 % intervals.",
        bottom + 50,
        body,
    )


def slices(report: Mapping[str, Any], key: str, names: Sequence[str]) -> Markup:
    """Accuracy with intervals for each language or task, one column of marks per system."""
    rows = report[key]
    low, high = share_range([r["arms"][n][k] for r in rows for n in names for k in ("low", "high")])
    top, bottom, left, right = 16.0, 236.0, 62.0, WIDTH - 12
    y = lambda v: bottom - (v - low) / (high - low) * (bottom - top)  # noqa: E731
    body = [
        line(left, y(v), right, y(v), "grid") + text(left - 9, y(v) + 4, f"{100 * v:g} %", "tick", "end")
        for v in ticks(low, high)
    ]
    width = (right - left) / len(rows)
    step = min(30.0, width / (len(names) + 1))
    for number, row in enumerate(rows):
        centre = left + width * (number + 0.5)
        for place, name in enumerate(names):
            at, values, role = centre + step * (place - (len(names) - 1) / 2), row["arms"][name], role_of(report, name)
            body.append(line(at, y(values["low"]), at, y(values["high"]), f"whisker {role}"))
            body.append(mark(at, y(values["value"]), role))
        body.append(text(centre, bottom + 22, f"{row['name']} (n = {row['n']})", "label", "middle"))
    noun = key.removesuffix("s")
    return svg(f"fig-{key}", f"Accuracy by {noun}", f"Accuracy with 95 % intervals for each {noun}.", bottom + 36, body)


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
    top, bottom, left, right = 16.0, 236.0, 62.0, WIDTH - 12
    low, high = share_range([p["accuracy"] for p in curve])
    y = lambda v: bottom - (v - low) / (high - low) * (bottom - top)  # noqa: E731
    x = lambda v: left + v * (right - left)  # noqa: E731
    body = []
    for v in ticks(low, high):
        body += [line(left, y(v), right, y(v), "grid"), text(left - 9, y(v) + 4, f"{100 * v:g} %", "tick", "end")]
    body += [text(x(v / 5), bottom + 20, f"{20 * v} %", "tick", "middle") for v in range(6)]
    limit = curve[-1]["accuracy"] - report["margin"]
    if low <= limit <= high:
        body.append(line(left, y(limit), right, y(limit), "margin"))
    points = " ".join(f"{x(p['escalated']):.1f},{y(p['accuracy']):.1f}" for p in curve)
    body.append(f'<polyline points="{points}" class="curve"/>')
    if best:
        body.append(mark(x(best["escalated"]), y(best["accuracy"]), "candidate"))
    body.append(text((left + right) / 2, bottom + 42, "share of requests passed on", "axis", "middle"))
    title = "Accuracy of student first, teacher when unsure"
    return svg("fig-cascade", title, report["cascade"]["sentence"], bottom + 50, body)
