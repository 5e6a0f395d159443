"""Energy per 1,000 requests: measured systems filled, estimated ones hollow."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from evals.report.figures import rows

if TYPE_CHECKING:
    from markupsafe import Markup

    from evals.report.view import View

WIDE = 20


def consumption(view: View) -> Markup | None:
    """Wh with their range, logarithmic where they lie far apart; None when no system's is known."""
    known = []
    for number, arm in enumerate(view.report["energy"]["arms"]):
        row = rows.read(view, arm["name"], f"energy.arms.{number}.wh_per_1000_requests", "three", "three")
        if row and row.value > 0:
            known.append(replace(row, hollow=arm["how"] == "estimated"))
    if not known:
        return None
    ends = [v for row in known for v in (row.value, row.low, row.high) if v]
    log = max(ends) / min(ends) > WIDE
    facts = view.facts("cost.fact", [{"label": r.name, "value": f"{view.write('three', r.value)} Wh"} for r in known])
    return rows.draw(
        "fig-energy",
        view.say("energy.figure"),
        view.say("energy.about", facts=facts),
        known,
        (min(ends), max(ends)) if log else (0.0, max(ends) * 1.08),
        view.say("energy.axis" if log else "energy.axis_linear"),
        view.to.plain,
        log=log,
    )
