"""Prices of the package genai-prices (MIT) as sheets of the catalogue: its own snapshot, or its newest file on request.

Only what our providers list is taken, in USD, the currency that package keeps. Without ``online`` nothing is fetched.
"""

from __future__ import annotations

import importlib.metadata
import re
from typing import TYPE_CHECKING, Any

from distill import catalog
from distill.errors import EnvironmentProblem, MissingDependency

if TYPE_CHECKING:
    import datetime
    from decimal import Decimal

BATCH = {"processing": "batch"}


def sheets(*, online: bool = False) -> list[dict[str, Any]]:
    """One sheet for each provider both know, as plain values. Raises MissingDependency, EnvironmentProblem."""
    try:
        from genai_prices import UpdatePrices
        from genai_prices.data import providers
    except ModuleNotFoundError:
        raise MissingDependency("genai-prices", "distill catalog prices --refresh", "prices") from None
    version = importlib.metadata.version("genai-prices")
    source, day = f"genai-prices {version}", _newest(providers)
    if online:
        try:
            fetched = UpdatePrices().fetch()
        except Exception as error:  # whatever its transport raises: there are no newer prices to be had
            raise EnvironmentProblem(
                f"the newest prices cannot be fetched: {str(error)[:120]}",
                where=UpdatePrices().url,
                safe="your catalogue",
                next="distill catalog prices --refresh (the package's own snapshot, no network)",
            ) from None
        providers = fetched.providers if fetched else []
        source, day = f"genai-prices, its file of {catalog.today()}", catalog.today()
    # A router's price is of whoever answers in the end: providers whose region is not known are left out.
    ours = [row for row in catalog.providers() if row.base_url and row.regions]
    pairs = [(row, theirs) for row in ours for theirs in providers if re.match(theirs.api_pattern, row.base_url)]
    made = [_sheet(row, theirs, source, day) for row, theirs in pairs]
    return [sheet for sheet in made if sheet["models"]]


def _sheet(row: Any, theirs: Any, source: str, day: datetime.date) -> dict[str, Any]:
    cited = ", which cites " + theirs.pricing_urls[0] if theirs.pricing_urls else ""
    models = {}
    for model in theirs.models:
        if not model.deprecated and (rates := _rates(model)) is not None:
            models[model.id] = rates | ({"aliases": names} if (names := _names(model.match) - {model.id}) else {})
    for rates in models.values():
        rates["aliases"] = sorted(rates.get("aliases", ()))
    return {
        "provider": row.id,
        "currency": "USD",
        "as_of": day.isoformat(),
        "source": source + cited,
        "models": models,
    }


def _rates(model: Any) -> dict[str, Any] | None:
    """Today's rates, announced ones, tiers, hours, batch; None when it is not priced by the token."""
    steps = model.prices if isinstance(model.prices, list) else None
    base: Any = model.prices
    hours: list[tuple[Any, Any]] = []
    later: list[dict[str, Any]] = []
    for step in steps or ():  # in the order in which they took effect
        limit = step.constraint
        start = getattr(limit, "start_date", None)
        if limit is None or (start is not None and start <= catalog.today()):
            base, hours = step.prices, []
        elif start is not None:
            later.append({"from": start.isoformat(), **(_amounts(step.prices) or {})})
        else:
            hours.append((limit, step.prices))
    found = _amounts(base)
    if found is None:
        return None
    if tiers := _tiers(base):
        return found | {"tiers": tiers} | _batch(model, found)
    if hours:
        return found | {"hours": [_hours(limit, prices) for limit, prices in hours]} | _batch(model, found)
    return found | ({"later": later} if later else {}) | _batch(model, found)


def _amounts(prices: Any) -> dict[str, str] | None:
    """Input, output and cached amounts below every tier, as exact text."""
    named = {"input": prices.input_mtok, "output": prices.output_mtok, "cached": prices.cache_read_mtok}
    found = {name: str(_base(value)) for name, value in named.items() if value is not None}
    return found if {"input", "output"} <= found.keys() else None


def _base(value: Any) -> Decimal:
    return value.base if hasattr(value, "base") else value


def _tiers(prices: Any) -> list[dict[str, Any]]:
    named = {"input": prices.input_mtok, "output": prices.output_mtok, "cached": prices.cache_read_mtok}
    starts = sorted({tier.start for value in named.values() for tier in getattr(value, "tiers", ())})

    def at(value: Any, start: int) -> str:
        reached = [tier.price for tier in getattr(value, "tiers", ()) if tier.start <= start]
        return str(reached[-1] if reached else _base(value))

    return [
        {"above_tokens": start, **{name: at(value, start) for name, value in named.items() if value is not None}}
        for start in starts
    ]


def _hours(limit: Any, prices: Any) -> dict[str, Any]:
    """Whole hours: a part of the day that begins or ends within one counts from its beginning, to its end."""
    end = limit.end_time.hour + bool(limit.end_time.minute)
    return {"from_utc": limit.start_time.hour, "to_utc": end or 24, **(_amounts(prices) or {})}


def _batch(model: Any, live: dict[str, str]) -> dict[str, str]:
    """The share that batch processing takes off the input price, when it takes the same off the output."""
    from decimal import Decimal

    for variant in model.price_variants or ():
        batch = _amounts(variant.prices) if variant.when == BATCH else None
        if batch and Decimal(live["input"]) and Decimal(live["output"]):
            kept = {Decimal(batch[name]) / Decimal(live[name]) for name in ("input", "output")}
            if len(kept) == 1 and 0 < (share := 1 - kept.pop()) < 1:
                return {"batch_discount": str(share)}
    return {}


def _names(match: Any) -> set[str]:
    """Names that are matched whole."""
    if hasattr(match, "equals"):
        return {match.equals}
    return {name for part in getattr(match, "or_", ()) for name in _names(part)}


def _newest(providers: Any) -> datetime.date:
    """The newest day that the data themselves name and that has come: they are at least that old."""
    limits = [
        step.constraint
        for provider in providers
        for model in provider.models
        for step in [*(model.prices if isinstance(model.prices, list) else ()), *(model.price_variants or ())]
    ]
    days = [limit.start_date for limit in limits if getattr(limit, "start_date", None)]
    return max(day for day in days if day <= catalog.today())
