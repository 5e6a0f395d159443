"""`distill doctor CONFIG --probe`: what the endpoints of a configuration can really do."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

CAP_EUR = 0.10


def endpoints(path: str) -> list[dict[str, Any]]:
    """One row for each teacher that is an endpoint. Raises ConfigError, TeacherRefused, BudgetReached."""
    from distill import config as configuration
    from distill import gates

    config = configuration.load(Path(path))
    gates.check(config)  # even a probe sends nothing where nothing may be sent
    return [_probed(config, settings) for settings in config.teachers() if hasattr(settings, "base_url")]


def _probed(config: Any, settings: Any) -> dict[str, Any]:
    from distill import costs, plugins
    from distill.errors import ConfigError
    from distill.providers._base import Context
    from distill.query import ledger, probe
    from distill.query.store import Store

    module = plugins.load("distill.providers", settings.kind)
    provider = module.build(settings, Context(folder=config.resolve(".")))
    price = costs.price_of(settings)
    if provider.capabilities.paid and price is None:
        raise ConfigError(f"no dated price is known for {settings.model!r}", where="teacher.price")

    async def ask(store: Store) -> probe.Abilities:
        try:
            return await probe.abilities(provider, store, price)
        finally:
            await provider.aclose()

    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "probe.db") as store:
        if price is not None:
            store.set_cap(ledger.nano(CAP_EUR))
        found = asyncio.run(ask(store))
        spent = store.totals().balance.spent
    cost = None if price is None else spent / ledger.NANO
    return {"endpoint": settings.base_url, "model": settings.model, **asdict(found), "cost_eur": cost}


def lines(row: dict[str, Any]) -> list[str]:
    """The findings for a person."""
    words = {True: "yes", False: "no", None: "unknown: no answer"}
    top = "unknown: no answer" if row["top_logprobs"] is None else row["top_logprobs"] or "none"
    cost = "" if row["cost_eur"] is None else f", for {row['cost_eur']:.6f} EUR"
    return [
        f"{row['model']} at {row['endpoint']}, probed on {row['as_of']}{cost}",
        f"  log-probabilities per token   {top}",
        f"  several answers per request   {words[row['samples']]}",
        f"  accepts a seed                {words[row['seed']]}",
        f"  held to a JSON Schema         {words[row['schema']]}",
    ]
