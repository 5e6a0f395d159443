"""Student first, teacher when unsure: accuracy over the share of requests passed on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evals.report.svg import WIDTH, heights, line, mark, polyline, ribbon, share_range, svg, text

if TYPE_CHECKING:
    from markupsafe import Markup

    from evals.report.view import View

LEFT, RIGHT, TOP, BOTTOM = 62.0, WIDTH - 16.0, 16.0, 236.0


def deferral(view: View) -> Markup:
    """The curve with its intervals, the margin, and the best point."""
    curve, best = view.report["cascade"]["curve"], view.report["cascade"]["best"]
    low, high = share_range([p[k] for p in curve for k in ("accuracy", "accuracy_low", "accuracy_high")])
    y, body = heights(low, high, LEFT, RIGHT, TOP, BOTTOM, view.to.tick)
    x = lambda v: LEFT + v * (RIGHT - LEFT)  # noqa: E731
    body += [text(x(v / 5), BOTTOM + 20, view.to.tick(v / 5), "tick", "middle") for v in range(6)]
    ends = [[(x(p["escalated"]), y(p[k])) for p in curve] for k in ("accuracy_high", "accuracy_low")]
    body.append(ribbon(ends[0], ends[1], "ribbon"))
    limit = curve[-1]["accuracy"] - view.report["margin"]
    if low <= limit <= high:
        body.append(line(LEFT, y(limit), RIGHT, y(limit), "margin"))
    body.append(polyline(((x(p["escalated"]), y(p["accuracy"])) for p in curve), "curve candidate"))
    if best:
        body.append(mark(x(best["escalated"]), y(best["accuracy"]), "candidate"))
    body.append(text((LEFT + RIGHT) / 2, BOTTOM + 42, view.say("cascade.axis"), "axis", "middle"))
    return svg("fig-cascade", view.say("cascade.figure"), view.cascade_sentence, BOTTOM + 50, body)
