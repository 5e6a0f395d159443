"""When the one-off bill is paid back, and which assumption moves that point most."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evals.report.svg import WIDTH, heights, line, log_axis, log_ticks, polyline, rect, svg, text, ticks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from markupsafe import Markup

    from evals.report.view import View

LEFT, RIGHT, TOP, BOTTOM = 76.0, WIDTH - 150.0, 26.0, 262.0
ROW, START, END = 34.0, 216.0, WIDTH - 84.0
FAR = 12


def break_even(view: View, number: int) -> Markup:
    """Total EUR over the number of requests of one opponent; the crossing is marked."""
    row = view.report["economics"]["break_evens"][number]
    curve, names = row["curve"], (view.short(view.report["candidate"]), view.short(row["against"]))
    x_high, y_high = curve["requests"][-1], max(curve["own_eur"][-1], curve["other_eur"][-1])
    x = lambda v: LEFT + v / x_high * (RIGHT - LEFT)  # noqa: E731
    y, body = heights(0, y_high * 1.04, LEFT, RIGHT, TOP, BOTTOM, view.to.plain)
    for v in ticks(0, x_high)[:: 1 if x_high < 1e6 else 2]:
        body += [line(x(v), BOTTOM, x(v), BOTTOM + 5, "zero")]
        body += [text(x(v), BOTTOM + 21, view.to.number(v), "tick", "middle")]
    role = view.role(row["against"]) if row["against"] in view.arms else "other"
    ends = []
    for key, cls in (("other_eur", role), ("own_eur", "candidate")):
        points = [(x(a), y(b)) for a, b in zip(curve["requests"], curve[key], strict=True)]
        body.append(polyline(points, f"curve {cls}"))
        ends.append((points[-1][1], cls))
    apart = _apart(ends[0][0], ends[1][0])
    for (_, cls), height, name in zip(ends, apart, reversed(names), strict=True):
        body.append(text(RIGHT + 10, height + 4, name, f"label ink {cls}"))
    body += _crossing(view, number, row, x, y)
    body += [text(LEFT - 60, TOP - 10, view.say("money.y_axis"), "axis")]
    body += [text((LEFT + RIGHT) / 2, BOTTOM + 44, view.say("money.x_axis"), "axis", "middle")]
    title = view.say("money.curve", label=view.label(row["against"]))
    found = row["requests"] is not None
    about = view.say("money.curve_about", c=view.c, requests=view.write("whole", row["requests"])) if found else None
    return svg(f"fig-curve-{number}", title, about or view.say("money.curve_never"), BOTTOM + 52, body)


def _apart(first: float, second: float) -> tuple[float, float]:
    """Heights of two names, at least a line apart."""
    if abs(first - second) >= 17:
        return first, second
    middle, half = (first + second) / 2, 8.5
    return (middle - half, middle + half) if first <= second else (middle + half, middle - half)


def _crossing(
    view: View, number: int, row: Mapping[str, Any], x: Callable[[float], float], y: Callable[[float], float]
) -> list[str]:
    """Where both have cost the same."""
    if row["requests"] is None or row["api_eur_per_1000"] is None or not row["curve"]["requests"][-1]:
        return []
    at, height = x(row["requests"]), y(row["requests"] * row["api_eur_per_1000"] / 1000)
    many = view.n(f"economics.break_evens.{number}.requests", "whole", "tspan")
    words = view.t("money.crossing", requests=many)
    return [
        line(at, height, at, BOTTOM, "margin"),
        f'<circle cx="{at:.1f}" cy="{height:.1f}" r="5.5" class="crossing"/>',
        f'<text x="{at - 10:.1f}" y="{height - 12:.1f}" class="label strong" text-anchor="end">{words}</text>',
    ]


def tornado(view: View) -> Markup:
    """One bar an assumption, from its low to its high end; an end that never pays leaves the figure as an arrow."""
    found = view.report["economics"]["tornado"]
    bars, base = found["bars"], found["base"]
    ends = [v for bar in bars for v in (bar["low"], bar["high"], base) if v]
    bottom, right = TOP + ROW * len(bars), END - 14
    x, body = _scale(view, min(ends, default=1), max(ends, default=1), right, bottom)
    for number, bar in enumerate(bars):
        body += _bar(view, number, bar, x, TOP + ROW * (number + 0.5))
    if base:
        body.append(line(x(base), TOP - 4, x(base), bottom + 4, "zero"))
        body.append(
            f'<text x="{x(base):.1f}" y="{TOP - 10:.1f}" class="label strong" text-anchor="middle">'
            f"{view.n('economics.tornado.base', 'whole', 'tspan')}</text>"
        )
    axis = view.say("money.tornado_axis", other=view.label(found["against"]))
    body.append(text((START + right) / 2, bottom + 42, axis, "axis", "middle"))
    facts = view.facts(
        "money.tornado_fact",
        [{"case": view.to.phrase(b["case"]) or b["case"], "low": _end(view, b, "low"), "high": _end(view, b, "high")}
         for b in bars],
    )  # fmt: skip
    return svg(
        "fig-tornado", view.say("money.tornado"), view.say("money.tornado_about", facts=facts), bottom + 52, body
    )


def _scale(
    view: View, low: float, high: float, right: float, bottom: float
) -> tuple[Callable[[float], float], list[str]]:
    """(function from requests to a place, grid lines): logarithmic where the ends lie far apart."""
    if high / low > FAR:
        x: Callable[[float], float] = log_axis(low, high, START, right)
        return x, log_ticks(low, high, x, START, right, TOP, bottom, view.to.number)
    linear = lambda v: START + v / high * (right - START)  # noqa: E731
    body = []
    for v in ticks(0, high):
        body += [line(linear(v), TOP, linear(v), bottom, "grid")]
        body += [text(linear(v), bottom + 20, view.to.number(v), "tick", "middle")]
    return linear, body


def _end(view: View, bar: Mapping[str, Any], side: str) -> str:
    """The requests at one end of a bar, in words."""
    if bar[side] is not None:
        return view.write("whole", bar[side])
    return view.say("money.ending_never") if bar[f"{side}_ending"] == "never" else view.say("common.unknown")


def _bar(view: View, number: int, bar: Mapping[str, Any], x: Callable[[float], float], y: float) -> list[str]:
    """Name, bar and numbers of one assumption. The smaller end stands left, whichever side of the assumption it is."""
    body = [text(START - 16, y + 4, view.to.phrase(bar["case"]) or bar["case"], "label", "end")]
    sides = sorted(("low", "high"), key=lambda side: (bar[side] is None, bar[side] or 0))
    if bar[sides[0]] is None:
        return [*body, text(START + 6, y + 4, _end(view, bar, sides[0]), "note")]
    start = x(bar[sides[0]])
    end = END if bar[sides[1]] is None else x(bar[sides[1]])
    body.append(rect(start, y - 9, end - start, 18, "swing", 2))
    if bar[sides[1]] is None:
        body.append(f'<path d="M{END:.1f} {y - 9:.1f}l11 9l-11 9Z" class="swing"/>')
    inside = start - START < 70  # no room for the number left of the bar
    left = (start + 7, "start") if inside else (start - 7, "end")
    for side, at, anchor in ((sides[0], *left), (sides[1], end + (16 if end == END else 7), "start")):
        path = f"economics.tornado.bars.{number}.{side}"
        said = view.n(path, "whole", "tspan") if bar[side] is not None else _end(view, bar, side)
        body.append(f'<text x="{at:.1f}" y="{y + 4:.1f}" class="value" text-anchor="{anchor}">{said}</text>')
    return body
