"""One row a system: name, whisker, mark, numbers. Differences, retention and energy are such figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from evals.report.svg import WIDTH, line, mark, rect, svg, text, ticks, values
from evals.report.svg import log_axis as logarithmic

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from markupsafe import Markup

    from evals.report.view import View

LEFT, RIGHT, TOP, ROW = 232.0, WIDTH - 178.0, 30.0, 36.0


@dataclass(frozen=True)
class Row:
    """One system. ``low``, ``high``: None where that end is open; ``hollow``: an estimate, drawn unfilled."""

    name: str
    role: str
    value: float
    low: float | None
    high: float | None
    numbers: tuple[Markup, ...]
    hollow: bool = False


def read(view: View, name: str, path: str, kind: str, part: str = "bare") -> Row | None:
    """The row of a system whose estimate stands at ``path``; None when there is none. ``part``: format of the ends."""
    found = view.at(path)
    if not found or found["value"] is None:
        return None
    ends = (
        () if found["low"] == found["high"] else tuple(view.end(f"{path}.{k}", part, "tspan") for k in ("low", "high"))
    )
    numbers = (view.n(f"{path}.value", kind, "tspan"), *ends)
    return Row(view.short(name), view.role(name), found["value"], found["low"], found["high"], numbers)


def spread(rows: Sequence[Row], *also: float) -> tuple[float, float]:
    """A range that holds all ends, with some air."""
    ends = [v for row in rows for v in (row.value, row.low, row.high) if v is not None]
    low, high = min([*ends, *also]), max([*ends, *also])
    air = (high - low) * 0.06 or 0.05
    return low - air, high + air


def draw(
    name: str,
    title: str,
    about: str,
    rows: Sequence[Row],
    reach: tuple[float, float],
    axis: str,
    write: Callable[[float], str],
    zero: float | None = None,
    band: tuple[float, float] | None = None,
    heads: tuple[str, str] | None = None,
    log: bool = False,
) -> Markup:
    """The figure. ``zero``: where the solid line stands; ``band``: shaded; ``heads``: words left and right of zero."""
    low, high = reach
    bottom = TOP + ROW * len(rows)
    x = logarithmic(low, high, LEFT, RIGHT) if log else lambda v: LEFT + (v - low) / (high - low) * (RIGHT - LEFT)
    body = [rect(x(band[0]), TOP, x(band[1]) - x(band[0]), bottom - TOP, "band")] if band else []
    body += _grid(x, reach, bottom, write, zero, log)
    if heads and zero is not None:
        body += [text(x(zero) - 6, TOP - 9, heads[0], "note", "end"), text(x(zero) + 6, TOP - 9, heads[1], "note")]
    for number, row in enumerate(rows):
        body += _row(row, x, TOP + ROW * (number + 0.5))
    body.append(text((LEFT + RIGHT) / 2, bottom + 40, axis, "axis", "middle"))
    return svg(name, title, about, bottom + 50, body)


def _grid(
    x: Callable[[float], float],
    reach: tuple[float, float],
    bottom: float,
    write: Callable[[float], str],
    zero: float | None,
    log: bool,
) -> list[str]:
    if log:
        from evals.report.svg import log_ticks

        return log_ticks(*reach, x, LEFT, RIGHT, TOP, bottom, write)
    body = []
    for v in ticks(*reach):
        body.append(line(x(v), TOP, x(v), bottom, "zero" if v == zero else "grid"))
        body.append(text(x(v), bottom + 19, write(v), "tick", "middle"))
    if zero is not None:
        body.append(line(x(zero), TOP, x(zero), bottom, "zero"))
    return body


def _row(row: Row, x: Callable[[float], float], y: float) -> list[str]:
    body = [text(LEFT - 12, y + 4, row.name, "label", "end"), values(RIGHT + 14, y + 4, row.numbers)]
    if row.low is not None and row.high is not None:
        body.append(line(x(row.low), y, x(row.high), y, f"whisker {row.role}"))
    return [*body, mark(x(row.value), y, f"{row.role} hollow" if row.hollow else row.role, row.role)]
