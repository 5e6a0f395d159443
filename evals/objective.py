"""The cost of a system of one's own at the load at which it still keeps its latency objective.

A batch answers faster than anyone would wait for. Where the load sweep has a level that keeps the objective, the level
with the highest goodput (answers per second within it) sets the price of a request, not the batch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from evals.economics import machine_price, self_hosted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from evals.analysis import Arm


@dataclass(frozen=True, slots=True)
class Pace:
    """Answers, and tokens read and written, per second within the objective."""

    answers_per_s: float
    tokens_per_s: float | None
    concurrency: int


def levels(load: Mapping[str, Any] | None, name: str) -> list[dict[str, Any]]:
    """The levels at which a system was asked; [] when it was not."""
    return next((list(arm["levels"]) for arm in (load or {}).get("arms", ()) if arm["name"] == name), [])


def pace(load: Mapping[str, Any] | None, name: str) -> Pace | None:
    """The best level of a system; None when it was not asked under load, or keeps the objective at no level."""
    arm = next((arm for arm in (load or {}).get("arms", ()) if arm["name"] == name), None)
    if arm is None or arm["best"] is None:
        return None
    level = arm["levels"][arm["best"]]
    goodput, every = level["goodput_per_s"], level["requests_per_s"]
    if not goodput:
        return None
    read, written = level["prompt_tokens"], level["completion_tokens"]
    known = read is not None and written is not None and level["seconds"] > 0 and every
    tokens = (read + written) / level["seconds"] * goodput / every if known else None
    return Pace(float(goodput), tokens or None, int(level["concurrency"]))


def repriced(arm: Arm, load: Mapping[str, Any] | None) -> Arm:
    """``arm`` at the price of its best level; as it is when it has none or does not run on a machine with a price."""
    found = pace(load, arm.name)
    if found is None or load is None or arm.machine is None or arm.machine.eur_per_hour is None:
        return arm
    source = (
        f"{machine_price(arm.machine)}; {found.answers_per_s:.3g} answers/s with {found.concurrency} at once, "
        f"{stated(load['objective'])}"
    )
    return replace(arm, costs=self_hosted(arm.samples, found, arm.machine), cost_source=source)


def stated(objective: Mapping[str, Any]) -> str:
    """The objective in words."""
    names = (("ttft_s", "first token"), ("tpot_s", "each further token"), ("e2e_s", "the whole answer"))
    limits = [f"{what} within {objective[key]:g} s" for key, what in names if objective.get(key) is not None]
    return f"{100 * objective['share']:g} % of them with {', '.join(limits) or 'no limit'}"
