"""The report's money: what each system costs, and when the student has paid for itself.

Costs per request share the bootstrap draws of the scores, so that the interval of a break-even coheres with them.
"""

from __future__ import annotations

import math
import os
import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evals import breakeven, objective, split, tornado

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from distill.config import Serving
    from evals.analysis import Arm
    from evals.bootstrap import Draws
    from evals.samples import Sample
    from evals.stats import Estimate

NANO = 1e9


@dataclass(frozen=True)
class Money:
    """What the records alone do not say. ``one_off``: the bill, as :func:`evals.bill.one_off` gives it."""

    serving: Serving
    one_off: Mapping[str, Any]
    computer: str
    """Processor and cores on which speeds were measured."""


def economics(
    money: Money,
    arms: Sequence[Arm],
    told: Sequence[Mapping[str, Any]],
    roles: tuple[str, str],
    humble: Sequence[str],
    drawn: Draws,
    load: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The report's part on money over time.

    ``told``: the report's arms, with their outcomes. ``roles``: candidate and reference. ``humble``: arms that are no
    language model; they need the same teacher labels and are no alternative to buying them.
    """
    candidate, reference = roles
    named = {arm.name: arm for arm in arms}
    pace, bill = objective.pace(load, candidate), money.one_off["total_eur"]
    own, other = per_request(drawn, candidate), per_request(drawn, reference)
    hosting = _hosting(named[candidate], money.serving, pace)
    rivals = [reference, *cheapest(told, drawn, {candidate, reference, *humble})]
    base = None
    if own is not None and other is not None:
        hosted = [named[name].machine is not None for name in roles]
        base = tornado.Assumptions(bill, other, own, money.serving.utilisation, *hosted)
    return {
        "eur_per_hour": money.serving.eur_per_hour,
        "utilisation": money.serving.utilisation,
        "amortise_months": money.serving.amortise_months,
        "source": money.serving.source,
        "machine": money.computer,
        "one_off": dict(money.one_off),
        "break_evens": [
            breakeven.entry(name, bill, per_request(drawn, name), own, hosting, interval(drawn, bill, candidate, name))
            for name in rivals
        ],
        "tornado": tornado.tornado(base, reference) if base else None,
        "shocks": tornado.shocks(base) if base else [],
        "at_objective": {"answers_per_s": pace.answers_per_s, "concurrency": pace.concurrency} if pace else None,
    }


def per_request(drawn: Draws, name: str) -> float | None:
    """EUR per request of an arm; None when unknown."""
    nano = drawn.point.get(f"cost:{name}")
    return None if nano is None else nano / NANO


def cheapest(told: Sequence[Mapping[str, Any]], drawn: Draws, without: set[str]) -> list[str]:
    """The system that passes the same gate at the lowest known price, dearer than the student or not; [] if none."""
    found = [
        (price, arm["name"])
        for arm in told
        if arm["name"] not in without
        and arm["outcome"] == "pass"
        and (price := per_request(drawn, arm["name"])) is not None
    ]
    return [min(found)[1]] if found else []


def interval(drawn: Draws, one_off: float | None, candidate: str, other: str) -> Estimate | None:
    """Of the requests to break even, under the same draws as the costs; a draw in which it never pays is infinite.

    None when a part is unknown, or when it does not pay in the records themselves.
    """
    own, theirs = f"cost:{candidate}", f"cost:{other}"
    if one_off is None or own not in drawn.point or theirs not in drawn.point:
        return None
    if drawn.point[theirs] <= drawn.point[own]:
        return None

    def requests(means: Mapping[str, Any]) -> Any:
        import numpy as np

        saved = np.asarray(means[theirs]) - np.asarray(means[own])
        return np.where(saved > 0, one_off * NANO / saved, math.inf)

    return drawn.of(requests)


def _hosting(arm: Arm, serving: Serving, pace: objective.Pace | None) -> breakeven.Hosting:
    """The candidate's machines; without a price when it does not run on one."""
    measured = pace.answers_per_s if pace else arm.speed.answers_per_s if arm.speed else None
    return breakeven.Hosting(
        arm.machine.eur_per_hour if arm.machine is not None else None, measured, serving.amortise_months
    )


def cost(
    arm: Arm,
    samples: Sequence[Sample],
    costs: Sequence[float] | None,
    drawn: Draws,
    load: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """EUR per 1,000 requests, per correct answer and per million tokens; each null when unknown.

    ``costs``: nano-EUR of each sample. ``split`` says how input and output were told apart, or why not.
    """
    facts: dict[str, Any] = {
        "per_1000_requests": None,
        "per_correct": None,
        "per_1000_correct": None,
        "per_mtok": per_mtok(arm, samples, costs, load),
        "source": arm.cost_source,
        "as_of": (arm.price or {}).get("as_of"),
    }
    if costs is None:
        return facts
    facts["per_1000_requests"] = _scaled(drawn.mean(f"cost:{arm.name}"), 1000 / NANO)
    if any(s.correct > 0 for s in samples):
        per_correct = drawn.ratio(f"cost:{arm.name}", f"score:{arm.name}")
        facts["per_correct"] = _scaled(per_correct, 1 / NANO) if per_correct else None
        facts["per_1000_correct"] = _scaled(per_correct, 1000 / NANO) if per_correct else None
    return facts


def per_mtok(
    arm: Arm, samples: Sequence[Sample], costs: Sequence[float] | None, load: Mapping[str, Any] | None
) -> dict[str, Any]:
    """EUR per million tokens: `input` and `output` by the price list or by least squares, `blended` as measured."""
    found: dict[str, Any] = {"input": None, "output": None, "blended": None, "split": ""}
    if arm.price is not None:
        found |= {"input": arm.price["input"], "output": arm.price["output"], "split": "price list"}
    known = [(s.prompt_tokens, s.completion_tokens) for s in samples if s.tokens is not None]
    read, written = (sum(side or 0 for side in sides) for sides in zip(*known, strict=True)) if known else (0, 0)
    if costs is None or len(known) < len(samples) or read + written == 0:
        return found
    eur = sum(costs) / NANO
    found["blended"] = eur / (read + written) * 1e6
    if arm.price is None and arm.machine is not None:
        moments = arm.speed.moments if arm.speed else ()
        sums = moments or split.of_levels(objective.levels(load, arm.name))
        rates = split.fitted(sums)
        if isinstance(rates, str):
            return found | {"split": rates}
        found |= split.prices(rates, read, written, eur)
        found["split"] = f"least squares over {sums[0]:.0f} {'calls' if moments else 'levels of load'}"
    return found


def _scaled(estimate: Estimate, factor: float) -> dict[str, float | None]:
    ends = (estimate.value * factor, estimate.low * factor, estimate.high * factor)
    return {name: v if math.isfinite(v) else None for name, v in zip(("value", "low", "high"), ends, strict=True)}


def computer() -> str:
    """Processor and cores, for people."""
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            model = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), model)
    except OSError:
        pass
    return f"{model}, {len(os.sched_getaffinity(0))} cores"
