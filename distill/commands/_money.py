"""Euros before the run: the teachers' answers live and in batch, and whether a student is worth it. Unknown is None."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distill import catalog, costs, gates
from distill.catalog.route import route_of
from distill.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distill.commands._tokens import Tokens
    from distill.config import RunConfig
    from distill.costs import Price
    from distill.errors import DistillError
    from distill.records import Request

SUMMED = ("expected_eur", "live_eur", "batch_eur", "worst_case_eur", "exam_eur")


def of_teacher(
    settings: Any, tokens: Tokens, asked: Sequence[Request], exam: Tokens | None, where: str
) -> tuple[dict[str, Any], DistillError | None]:
    """Euros of one teacher, and what would stop the run. ``exam``: the questions of the evaluation it answers too."""
    price = costs.price_of(settings)
    batch = bool(getattr(settings, "batch", False))
    money: dict[str, Any] = {"paid": costs.costs_tokens(settings) or price is not None, "batch": batch}
    money |= {"price": None, "price_source": None, "price_age": None}
    if price is None:
        known = 0.0 if not money["paid"] else None
        money |= dict.fromkeys(SUMMED, known) | {"batch_eur": None if money["paid"] else 0.0}
        return money, _unpriced(settings, where) if money["paid"] else None
    live = tokens.asked * costs.mean_cost_eur(price, *tokens.mean_usage())
    kept = None if price.batch_discount is None else 1 - price.batch_discount
    chosen = kept if batch and kept is not None else 1.0
    money |= {
        "price": str(price),
        "price_source": price.source,
        "price_age": catalog.staleness(price.as_of),
        "live_eur": live,
        "batch_eur": None if kept is None else live * kept,
        "expected_eur": live * chosen,
        "worst_case_eur": costs.eur(sum(costs.worst_case_nano(r, price, batch=batch) for r in set(asked))),
        "exam_eur": 0.0 if exam is None else chosen * exam.asked * costs.mean_cost_eur(price, *exam.mean_usage()),
    }
    return money, _too_old(price, where)


def together(teachers: Sequence[dict[str, Any]], cap_eur: float) -> dict[str, Any]:
    """The sums over all teachers; None as soon as one of them is not known."""
    sums: dict[str, Any] = {}
    for name in SUMMED:
        parts = [teacher[name] for teacher in teachers]
        sums[name] = None if None in parts else sum(parts)
    ages = [teacher["price_age"] for teacher in teachers]
    oldest = next((age for age in ("expired", "stale", "fresh") if age in ages), None)
    first = {name: teachers[0][name] for name in ("price", "price_source")}
    paid = any(teacher["paid"] for teacher in teachers)
    return {**first, **sums, "price_age": oldest, "paid": paid, "cap_eur": cap_eur, "teacher_seconds": None}


def no_cap(money: dict[str, Any]) -> DistillError | None:
    """What stops a paid run without a cap."""
    if not money["paid"] or money["cap_eur"] > 0 or money["expected_eur"] is None:
        return None
    return ConfigError(
        "a paid teacher needs a cap",
        where="generate.max_cost_eur",
        next=f"about {money['expected_eur']:.2f} EUR expected, {money['worst_case_eur']:.2f} EUR at worst",
    )


def _unpriced(settings: Any, where: str) -> ConfigError:
    return ConfigError(
        f"no price of {settings.model!r} is known, so no budget can be kept",
        where=f"{where}.price",
        next=f"{where}.price: {{input: ..., output: ..., currency: EUR, as_of: YYYY-MM-DD}}",
    )


def _too_old(price: Price, where: str) -> ConfigError | None:
    if catalog.staleness(price.as_of) != "expired":
        return None
    return ConfigError(
        f"the price is of {price.as_of}, more than {catalog.STALE_BLOCK_DAYS} days ago",
        where=f"{where}.price",
        next=f"state {where}.price with a date, distill catalog prices --refresh, or pip install -U alambic",
    )


# -- worth it? --------------------------------------------------------------------------------------------------


def worth_it(config: RunConfig, tokens: Tokens, volume: int, one_off_eur: float) -> dict[str, Any]:
    """The student on its own machine against the teacher and the cheapest API, at ``volume`` requests per month."""
    serving = config.eval.serving
    fixed = None if serving.eur_per_hour is None else serving.eur_per_hour * costs.HOURS_PER_MONTH
    rivals = [("the teacher", price)] if (price := costs.price_of(config.teacher)) else []
    for number, other in enumerate(config.eval.alternatives, start=1):
        if (theirs := costs.price_of(other)) is not None:
            rivals.append((f"alternative {number}, {route_of(other)}", theirs))
    if (cheapest := _cheapest(config, tokens)) is not None:
        rivals.append((f"the cheapest API in your regions, {cheapest[0]}", cheapest[1]))
    return {
        "volume_per_month": volume,
        "one_off_eur": one_off_eur,
        "student_eur_per_month": fixed,
        "amortise_months": serving.amortise_months,
        "against": [_rival(n, p, tokens, volume, fixed, one_off_eur, serving.amortise_months) for n, p in rivals],
    }


def _rival(
    name: str, price: Price, tokens: Tokens, volume: int, fixed: float | None, one_off: float, months: int
) -> dict[str, Any]:
    each = costs.mean_cost_eur(price, *tokens.mean_usage())
    return {
        "name": name,
        "price": str(price),
        "eur_per_1000": 1000 * each,
        "eur_per_month": volume * each,
        "from_requests_per_month": None if fixed is None else costs.break_even_requests(fixed, one_off, months, each),
        "pays_back_in_month": None if fixed is None else costs.break_even_month(one_off, volume * each - fixed),
        "cheaper_at_volume": None if fixed is None else volume * each > fixed + one_off / months,
    }


def _cheapest(config: RunConfig, tokens: Tokens) -> tuple[str, Price] | None:
    """The cheapest verified price inside the policy's regions. Whether it is good enough, only an evaluation says."""
    allowed = gates.expand(config.policy.regions)
    inside = {
        row.id
        for row in catalog.providers()
        if "*" in config.policy.regions or (row.regions and gates.expand(row.regions) <= allowed)
    }
    usage = tokens.mean_usage()
    priced = [
        (f"{row.model} at {row.provider}", costs.from_row(row))
        for row in catalog.prices()
        if row.provider in inside and row.verified
    ]
    return min(priced, key=lambda pair: costs.mean_cost_eur(pair[1], *usage), default=None)
