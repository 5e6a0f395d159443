"""`distill quote CONFIG --client NAME`: a dated offer, HTML and PDF, that also says when not to distil."""

from __future__ import annotations

import datetime
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill import artifacts, catalog, costs, gates
from distill.catalog.route import route_of
from distill.commands import _deal, _quote_blocks, _quote_page, plan
from distill.commands._config import load_config
from distill.errors import ConfigError

if TYPE_CHECKING:
    import argparse

    from distill.config import RunConfig
    from distill.costs import Price


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `distill quote`."""
    add = parser.add_argument
    add("config", type=Path, metavar="CONFIG", help="YAML file of the run")
    add("overrides", nargs="*", metavar="key=value", help="for example prompts.limit=5000")
    add("--client", required=True, metavar="NAME", help="who the quote is for")
    add("--volume", type=int, required=True, metavar="N", help="the client's requests per month")
    add("--days", type=float, required=True, metavar="N", help="days of people")
    add("--day-rate", type=float, required=True, metavar="EUR", help="what a day costs you")
    add("--replaces", metavar="MODEL@PROVIDER", help="what the client pays for today (default: the teacher)")
    add("--machines", type=int, default=1, metavar="N", help="machines of eval.serving the student needs (default: 1)")
    add("--maintenance-eur", type=float, default=0.0, metavar="EUR", help="upkeep per month")
    add("--other-eur", type=float, default=0.0, metavar="EUR", help="other one-off costs")
    add("--coverage", type=float, default=1.0, metavar="SHARE", help="share of requests the student answers")
    add("--margin", type=float, default=0.3, metavar="SHARE", help="share of the price that is not cost (default: 0.3)")
    add("--share", type=float, default=0.25, metavar="SHARE", help="share of the first year's saving (default: 0.25)")
    add("--open-book", action="store_true", help="show the client your costs, margin and share")
    add("--lang", choices=("en", "fr"), default="en", help="language of the quote")
    add("--out", type=Path, default=Path("quotes"), metavar="DIR", help="folder (default: quotes)")


def main(args: argparse.Namespace) -> int:
    """Write the quote. Raises Refused (licence, region), ConfigError (a price that is missing or too old)."""
    _check(args)
    config = load_config(args, fetch=False)
    gates.check(config)
    facts, stop = plan.build(config, [row.id for row in catalog.gpus()], 1, "FRA", args.volume, 0.0)
    if stop is not None:
        raise stop
    rival_name, rival = replaced(config, args.replaces)
    gpu = cheapest_gpu(facts)
    old = stale(rival, gpu)
    deal = deal_of(args, config, facts, rival, gpu)
    today = catalog.today()
    snapshot = _deal.snapshot(rival, costs.price_of(config.teacher))
    numbers: dict[str, Any] = {
        "client": args.client,
        "date": today.isoformat(),
        "valid_until": (today + datetime.timedelta(days=_quote_blocks.VALID_DAYS)).isoformat(),
        "config_sha256": config.hash(),
        "price_snapshot_sha256": snapshot,
        "finding": _deal.finding(deal),
        "deal": asdict(deal),
        "price_eur": deal.price,
        "saving_eur_per_month": deal.saving_month,
        "pays_back_in_month": deal.pays_back,
        "stale": {key: day.isoformat() for key, day in old},
        "scenarios": [asdict(scenario) for scenario in _deal.scenarios(deal)],
    }
    blocks, chart, title = _quote_blocks.page(args, config, facts, deal, rival_name, rival, gpu, numbers, old)
    stem = f"{config.name}-{today.isoformat()}-{args.lang}"
    folder: Path = args.out
    artifacts.write_json(folder / f"{stem}.json", numbers)
    artifacts.write_text(folder / f"{stem}.html", _quote_page.html(blocks, chart, args.lang, title))
    _quote_page.pdf(folder / f"{stem}.pdf", blocks, chart, title)
    print(next(block.text for block in blocks if block.kind == "finding"))
    print("\n".join(str(folder / f"{stem}.{kind}") for kind in ("html", "pdf", "json")))
    return 0


def _check(args: argparse.Namespace) -> None:
    for name, low, high in (
        ("volume", 1, float("inf")),
        ("machines", 1, float("inf")),
        ("days", 0, float("inf")),
        ("day_rate", 0, float("inf")),
        ("maintenance_eur", 0, float("inf")),
        ("other_eur", 0, float("inf")),
        ("coverage", 0, 1),
        ("share", 0, 1),
        ("margin", 0, 0.95),
    ):
        if not low <= getattr(args, name) <= high:
            bound = f"from {low} to {high:g}" if high < float("inf") else f"at least {low}"
            raise ConfigError(f"must be {bound}, not {getattr(args, name):g}", where=f"--{name.replace('_', '-')}")
    if not args.client.strip():
        raise ConfigError("is empty", where="--client")


def replaced(config: RunConfig, named: str | None) -> tuple[str, Price]:
    """(name, price) of what the client uses today. Raises ConfigError when no price is known or it is too old."""
    if named:
        model, at, provider = named.rpartition("@")
        row = costs.find_price(provider, model) if at else None
        if row is None:
            raise ConfigError(
                f"no price of {named!r}", where="--replaces", next="distill catalog prices, MODEL@PROVIDER"
            )
        name, price = f"{row.model} ({row.provider})", costs.from_row(row)
    else:
        name, found = _quote_blocks.name_of(route_of(config.teacher)), costs.price_of(config.teacher)
        if found is None:
            raise ConfigError(
                "the teacher has no token price, so it is not what the client pays today",
                where="distill quote",
                next="--replaces MODEL@PROVIDER (distill catalog prices)",
            )
        price = found
    if catalog.staleness(price.as_of) == "expired":
        raise too_old(name, price.as_of)
    return name, price


def cheapest_gpu(facts: dict[str, Any]) -> dict[str, Any]:
    """The training on the card where it costs least, at a price that was seen and is not old. Raises ConfigError."""
    able = [gpu for gpu in facts["gpus"] if gpu["fits"] and gpu["eur"] is not None and gpu["price_verified"]]
    if not able:
        raise ConfigError("no card of the catalogue with a price fits this training", where="distill quote")
    fresh = [gpu for gpu in able if gpu["price_age"] != "expired"]
    if not fresh:
        newest = max(gpu["price_as_of"] for gpu in able)
        raise too_old("every card that fits this training", newest)
    return min(fresh, key=lambda gpu: float(gpu["eur"]))


def too_old(what: str, day: object) -> ConfigError:
    """A price that no quote may rest on."""
    return ConfigError(
        f"the price of {what} is of {day}, more than {catalog.STALE_BLOCK_DAYS} days ago",
        where="distill quote",
        next=f"a dated row in {catalog.USER_FILE}, distill catalog prices --refresh, or pip install -U alambic",
    )


def stale(rival: Price, gpu: dict[str, Any]) -> list[tuple[str, datetime.date]]:
    """(key of the words, day) of what was read more than 45 days ago. Raises ConfigError for an old exchange rate."""
    days = [("price_api", rival.as_of), ("price_gpu", datetime.date.fromisoformat(gpu["price_as_of"]))]
    if rival.fx_as_of is not None:
        days.append(("price_fx", rival.fx_as_of))
        if catalog.staleness(rival.fx_as_of) == "expired":
            raise too_old(f"one euro in {rival.currency}", rival.fx_as_of)
    return [(key, day) for key, day in days if catalog.staleness(day) != "fresh"]


def deal_of(
    args: argparse.Namespace, config: RunConfig, facts: dict[str, Any], rival: Price, gpu: dict[str, Any]
) -> _deal.Deal:
    """The deal in numbers. Raises ConfigError when the student's machine has no price."""
    serving = config.eval.serving
    if serving.eur_per_hour is None:
        raise ConfigError(
            "the student's machine has no price", where="eval.serving", next="eval.serving.eur_per_hour=..."
        )
    each = costs.mean_cost_eur(rival, *_quote_blocks.usage(facts))
    teacher = facts["teacher"]["expected_eur"] + facts["teacher"]["exam_eur"]
    one_off = teacher + gpu["eur"] * (1 + _deal.FAILED_RUNS) + args.days * args.day_rate + args.other_eur
    return _deal.Deal(
        api_month=args.volume * each,
        hosting_month=args.machines * serving.eur_per_hour * costs.HOURS_PER_MONTH,
        maintenance_month=args.maintenance_eur,
        coverage=args.coverage,
        one_off=one_off,
        margin=args.margin,
        share=args.share,
    )
