"""One bar: both right, lost, gained, copied errors, other errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evals.report.svg import WIDTH, rect, svg

if TYPE_CHECKING:
    from markupsafe import Markup

    from evals.report.view import View


def cells(view: View) -> Markup:
    """The bar, with the number of items in each part that has room for it."""
    counts = view.report["fidelity"]["cells"]
    total = sum(counts.values())
    body, start = [], 0.0
    for name, count in counts.items():
        width = WIDTH * count / total
        if count:
            body.append(rect(start, 0, max(width - 2, 1), 30, f"cell {name}", 2))
        if width > 34:
            place = f'x="{start + 8:.1f}" y="20" class="cell-value {name}"'
            body.append(str(view.n(f"fidelity.cells.{name}", "whole", "text", place)))
        start += width
    facts = ", ".join(f"{view.to.number(count)} {view.say(f'kept.{name}')}" for name, count in counts.items())
    about = view.say("kept.about", total=view.to.number(total), facts=facts)
    return svg("fig-cells", view.say("kept.title"), about, 30, body)
