"""What is retained, and whether the difference is real."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evals.report.figures import rows

if TYPE_CHECKING:
    from markupsafe import Markup

    from evals.report.view import View


def differences(view: View) -> Markup:
    """Paired differences: the candidate minus each other system, with the margin as a band."""
    report, own, margin = view.report, view.short(view.report["candidate"]), view.report["margin"]
    found = [
        rows.read(view, pair["other"], f"pairs.{number}.difference", "points", "points")
        for number, pair in enumerate(report["pairs"])
    ]
    known = [row for row in found if row]
    facts = view.facts("pairs.fact", [{"label": r.name, "value": view.to.points(r.value)} for r in known])
    return rows.draw(
        "fig-pairs",
        view.say("pairs.title"),
        view.say("pairs.about", facts=facts),
        known,
        rows.spread(known, -margin * 1.5, margin),
        view.say("pairs.axis", c=own, metric=view.metric),
        lambda v: "0" if v == 0 else ("+" if v > 0 else "") + view.to.plain(round(100 * v, 6)),
        zero=0.0,
        band=(-margin, 0.0),
        heads=(view.say("pairs.other_better"), view.say("pairs.own_better", c=own)),
    )


def retention(view: View) -> Markup | None:
    """Each system's score as a share of the reference's; None when no system has one."""
    names = [arm["name"] for arm in view.report["arms"] if arm["name"] != view.report["reference"]]
    found = [rows.read(view, name, f"arms.{view.index(name)}.retention", "percent") for name in names]
    known = [row for row in found if row]
    if not known:
        return None
    facts = view.facts("cost.fact", [{"label": r.name, "value": view.to.percent(r.value)} for r in known])
    return rows.draw(
        "fig-retention",
        view.say("retention.title"),
        view.say("retention.about", metric=view.Metric, facts=facts),
        known,
        rows.spread(known, 1.0),
        view.say("retention.axis", metric=view.metric),
        view.to.tick,
        zero=1.0,
    )
