"""SVG by hand: lines, texts, marks, axes, and labels that do not cover each other.

Colours come from the page's style sheet, so light, dark and print are one file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

WIDTH = 760.0
SHAPES = {
    "candidate": '<circle r="6.5"/>',
    "reference": '<rect x="-6" y="-6" width="12" height="12"/>',
    "humble": '<path d="M0-7.5 7 5.5H-7Z"/>',
    "other": '<path d="M0-7.5 7.5 0 0 7.5-7.5 0Z"/>',
}


# Where a label may stand, from its mark: the best places first, then ever higher.
BESIDE = (
    (13, 4),
    (-13, 4),
    (13, -13),
    (13, 21),
    (-13, -13),
    (-13, 21),
    *((x, y) for y in (-29, -45, -61, -77) for x in (13, -13)),
)
PLACES: tuple[tuple[float, float, str], ...] = tuple((dx, dy, "start" if dx > 0 else "end") for dx, dy in BESIDE)


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


def mark(x: float, y: float, cls: str, role: str = "") -> str:
    """The shape of a system. ``cls``: its role, or more classes; then ``role`` names the shape."""
    return f'<g class="mark {cls}" transform="translate({x:.1f} {y:.1f})">{SHAPES[role or cls]}</g>'


@dataclass
class Labels:
    """Places labels so that they cover neither each other nor a mark."""

    left: float
    right: float
    taken: list[tuple[float, float, float, float]] = field(default_factory=list)
    marks: list[tuple[float, float, float, float]] = field(default_factory=list)

    def keep_free(self, x: float, y: float, half: float = 9) -> None:
        """No label may cover this point."""
        self.marks.append((x - half, y - half, x + half, y + half))

    def free(self, box: tuple[float, float, float, float]) -> bool:
        """Nothing is there yet; box is (left, top, right, bottom)."""
        return not any(_overlap(box, other) for other in [*self.taken, *self.marks])

    def place(self, x: float, y: float, content: str) -> str:
        """A label beside (x, y), at the first place that is free, or else where it covers least."""
        width = 6.7 * len(content)
        best, least = (0.0, 0.0, "start", (0.0, 0.0, 0.0, 0.0)), math.inf
        for dx, dy, anchor in PLACES:
            start = x + dx - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
            box = (start, y + dy - 11, start + width, y + dy + 3)
            outside = box[0] < self.left or box[2] > self.right
            hidden = sum(_overlap(box, other) for other in self.marks)
            trouble = sum(_overlap(box, other) for other in self.taken) + 3 * hidden + 100 * outside
            if trouble < least:
                best, least = (dx, dy, anchor, box), trouble
        dx, dy, anchor, box = best
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


def log_axis(low: float, high: float, start: float, end: float) -> Any:
    """A function from a value to its place on a logarithmic axis of at least 0.6 decades."""
    a, b = math.log10(low), math.log10(high)
    if b - a < 0.3:
        a, b = a - 0.3, b + 0.3
    pad = (b - a) * 0.06
    a, b = a - pad, b + pad
    return lambda v: start + (math.log10(v) - a) / (b - a) * (end - start)


def log_ticks(
    low: float, high: float, x: Any, left: float, right: float, top: float, bottom: float, write: Callable[[float], str]
) -> list[str]:
    """Grid lines and labels at 1, 2 and 5, or at whole decades when there are many."""
    body = []
    many = math.log10(high / low) > 2
    for exponent in range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1):
        for factor in (1,) if many else (1, 2, 5):
            value = factor * 10.0**exponent
            if left <= x(value) <= right:
                body.append(line(x(value), top, x(value), bottom, "grid"))
                body.append(text(x(value), bottom + 20, write(value), "tick", "middle"))
    return body


def heights(
    low: float, high: float, left: float, right: float, top: float, bottom: float, write: Callable[[float], str]
) -> tuple[Callable[[float], float], list[str]]:
    """(function from a value to its height, grid lines with labels)."""
    y = lambda v: bottom - (v - low) / (high - low) * (bottom - top)  # noqa: E731
    body: list[str] = []
    for value in ticks(low, high):
        body += [
            line(left, y(value), right, y(value), "grid"),
            text(left - 9, y(value) + 4, write(value), "tick", "end"),
        ]
    return y, body


def polyline(points: Iterable[tuple[float, float]], cls: str) -> str:
    """A broken line."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" class="{cls}"/>'


def ribbon(upper: Sequence[tuple[float, float]], lower: Sequence[tuple[float, float]], cls: str) -> str:
    """The area between two broken lines."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in [*upper, *reversed(lower)])
    return f'<polygon points="{path}" class="{cls}"/>'


def rect(x: float, y: float, width: float, height: float, cls: str, radius: float = 0) -> str:
    """A box."""
    round_ = f' rx="{radius:g}"' if radius else ""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{height:.1f}"{round_} class="{cls}"/>'


def values(x: float, y: float, numbers: Sequence[Markup]) -> str:
    """`value [low, high]` of checked numbers, at the start of the column of values."""
    first, *ends = numbers
    shown = f"{first} [{'; '.join(ends)}]" if ends else f"{first}"
    return f'<text x="{x:.1f}" y="{y:.1f}" class="value">{shown}</text>'
