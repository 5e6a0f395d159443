"""`distill quote CONFIG --client NAME`: a dated offer, HTML and PDF, that also says when not to distil."""

from __future__ import annotations

import datetime
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill import artifacts, catalog, costs, gates
from distill.catalog.route import route_of
from distill.commands import _deal, _quote_page, plan
from distill.commands._config import load_config
from distill.commands._quote_page import Block, Chart
from distill.errors import ConfigError

if TYPE_CHECKING:
    import argparse

    from distill.catalog.route import Route
    from distill.config import RunConfig
    from distill.costs import Price

VALID_DAYS = 30


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
    config = load_config(args)
    gates.check(config)
    facts, stop = plan.build(config, [row.id for row in catalog.gpus()], 1, "FRA", args.volume, 0.0)
    if stop is not None:
        raise stop
    rival_name, rival = replaced(config, args.replaces)
    gpu = cheapest_gpu(facts)
    deal = deal_of(args, config, facts, rival, gpu)
    today = catalog.today()
    snapshot = _deal.snapshot(rival, costs.price_of(config.teacher))
    numbers: dict[str, Any] = {
        "client": args.client,
        "date": today.isoformat(),
        "valid_until": (today + datetime.timedelta(days=VALID_DAYS)).isoformat(),
        "config_sha256": config.hash(),
        "price_snapshot_sha256": snapshot,
        "finding": _deal.finding(deal),
        "deal": asdict(deal),
        "price_eur": deal.price,
        "saving_eur_per_month": deal.saving_month,
        "pays_back_in_month": deal.pays_back,
        "scenarios": [asdict(scenario) for scenario in _deal.scenarios(deal)],
    }
    blocks, chart, title = page(args, config, facts, deal, rival_name, rival, gpu, numbers)
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
        name, found = _name(route_of(config.teacher)), costs.price_of(config.teacher)
        if found is None:
            raise ConfigError(
                "the teacher has no token price, so it is not what the client pays today",
                where="distill quote",
                next="--replaces MODEL@PROVIDER (distill catalog prices)",
            )
        price = found
    if catalog.staleness(price.as_of) == "expired":
        raise ConfigError(
            f"the price of {name} is of {price.as_of}, more than {catalog.STALE_BLOCK_DAYS} days ago",
            where="distill quote",
            next=f"a dated row in {catalog.USER_FILE}",
        )
    return name, price


def _name(route: Route) -> str:
    return f"{route.model} ({route.provider.name})" if route.provider else route.model


def cheapest_gpu(facts: dict[str, Any]) -> dict[str, Any]:
    """The training on the card where it costs least. Raises ConfigError when no priced card is large enough."""
    able = [gpu for gpu in facts["gpus"] if gpu["fits"] and gpu["eur"] is not None]
    if not able:
        raise ConfigError("no card of the catalogue with a price fits this training", where="distill quote")
    return min(able, key=lambda gpu: float(gpu["eur"]))


def deal_of(
    args: argparse.Namespace, config: RunConfig, facts: dict[str, Any], rival: Price, gpu: dict[str, Any]
) -> _deal.Deal:
    """The deal in numbers. Raises ConfigError when the student's machine has no price."""
    serving = config.eval.serving
    if serving.eur_per_hour is None:
        raise ConfigError(
            "the student's machine has no price", where="eval.serving", next="eval.serving.eur_per_hour=..."
        )
    each = costs.mean_cost_eur(rival, *usage(facts))
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


def usage(facts: dict[str, Any]) -> tuple[float, float]:
    """Mean input and output tokens of a request."""
    asked = max(facts["teacher"]["asked"], 1)
    return facts["teacher"]["prompt"][1] / asked, facts["teacher"]["completion"][1] / asked


# -- the page ---------------------------------------------------------------------------------------------------


def page(
    args: argparse.Namespace,
    config: RunConfig,
    facts: dict[str, Any],
    deal: _deal.Deal,
    rival_name: str,
    rival: Price,
    gpu: dict[str, Any],
    numbers: dict[str, Any],
) -> tuple[list[Block], Chart, str]:
    """(blocks, chart, title) in the language asked for."""
    lang, say = args.lang, _quote_page.words(args.lang)

    def eur(value: float) -> str:
        return _quote_page.money(value, lang)

    def share(value: float) -> str:
        return _quote_page.share(value, lang)

    month = numbers["pays_back_in_month"]
    finding = say[f"finding_{numbers['finding']}"].format(
        month=month, horizon=_deal.HORIZON_MONTHS, more=f"{eur(max(0.0, -deal.saving_month))} EUR"
    )
    until = catalog.today() + datetime.timedelta(days=VALID_DAYS)
    head = say["for"].format(
        client=args.client, date=_quote_page.day(catalog.today(), lang), until=_quote_page.day(until, lang)
    )
    snapshot = numbers["price_snapshot_sha256"][:16]
    items = sum(task["items"] for task in facts["evaluation"])
    blocks = [
        Block("title", say["title"]),
        Block("text", head),
        Block("soft", say["number"].format(number=numbers["config_sha256"][:12], snapshot=snapshot)),
        Block("finding", finding),
        *([] if numbers["finding"] == "distil" else [Block("text", say["other_reasons"])]),
        Block("heading", say["scope"]),
        Block(
            "text",
            say["scope_text"].format(
                student=config.student.model,
                teacher=_name(route_of(config.teacher)),
                prompts=_quote_page.number(facts["prompts"]["used"], lang),
            ),
        ),
        Block(
            "text",
            say["margin_text"].format(items=_quote_page.number(items, lang), margin=f"{100 * config.eval.margin:g}"),
        ),
        *_too_few(facts, say, lang),
        Block("heading", say["price"]),
        Block("text", say["price_text"]),
        _price_table(args, facts, deal, gpu, say, eur, share),
        Block("heading", say["monthly"]),
        _month_table(args, deal, rival_name, say, eur, share, lang),
        Block("chart"),
        Block("heading", say["what_if"]),
        Block(
            "table",
            head=(say["col_scenario"], say["col_saving"], say["col_month"]),
            rows=tuple(
                (say[s.name], eur(s.saving_month), say["never"] if s.pays_back is None else str(s.pays_back))
                for s in _deal.scenarios(deal)
            ),
        ),
        Block("heading", say["basis"]),
        *(Block("soft", text) for text in _basis(config, facts, rival, say, eur, lang)),
    ]
    today, student = _deal.cumulative(deal)
    labels = (say["chart_today"], say["chart_student"], say["chart_x"], say["chart_y"])
    return blocks, Chart(today, student, labels), say["title"]


def _price_table(args: Any, facts: Any, deal: _deal.Deal, gpu: Any, say: Any, eur: Any, share: Any) -> Block:
    teacher = facts["teacher"]["expected_eur"] + facts["teacher"]["exam_eur"]
    training = gpu["eur"] * (1 + _deal.FAILED_RUNS)
    total = (say["total"] if args.open_book else say["price"], eur(deal.price))
    if not args.open_book:
        return Block("table", head=(say["col_item"], say["col_amount"]), rows=(total,), strong=(0,))
    rows = [
        (say["teacher_cost"], eur(teacher)),
        (say["training_cost"].format(failed=share(_deal.FAILED_RUNS), gpu=gpu["gpu"]), eur(training)),
        (say["people_cost"].format(days=f"{args.days:g}", rate=eur(args.day_rate)), eur(args.days * args.day_rate)),
        *([(say["other_cost"], eur(args.other_eur))] if args.other_eur else []),
        (say["cost_plus"].format(margin=share(deal.margin)), eur(deal.cost_plus)),
        (say["value_price"].format(share=share(deal.share)), eur(deal.value_price)),
        total,
    ]
    return Block("table", head=(say["col_item"], say["col_amount"]), rows=tuple(rows), strong=(len(rows) - 1,))


def _month_table(args: Any, deal: _deal.Deal, rival: str, say: Any, eur: Any, share: Any, lang: str) -> Block:
    rows = [
        (say["today_cost"].format(volume=_quote_page.number(args.volume, lang), rival=rival), eur(deal.api_month)),
        (say["hosting"].format(machines=args.machines), eur(deal.hosting_month)),
        (say["maintenance"], eur(deal.maintenance_month)),
        (say["rest"].format(rest=share(1 - deal.coverage)), eur((1 - deal.coverage) * deal.api_month)),
        (say["saving"], eur(deal.saving_month)),
    ]
    return Block("table", head=(say["col_item"], say["col_amount"]), rows=tuple(rows), strong=(len(rows) - 1,))


def _too_few(facts: Any, say: Any, lang: str) -> list[Block]:
    """A sentence for each task whose items cannot show what is promised."""
    return [
        Block(
            "text",
            say["too_few"].format(
                items=_quote_page.number(task["items"], lang), needed=_quote_page.number(needed, lang)
            ),
        )
        for task in facts["evaluation"]
        if task["items"] < (needed := task["items_for_margin"]["0.2"])
    ]


def _basis(config: RunConfig, facts: Any, rival: Price, say: Any, eur: Any, lang: str) -> list[str]:
    serving = config.eval.serving
    input_, output = usage(facts)
    codes = dict.fromkeys(code for row in facts["permission"] for code in row["obligations"])
    asks = [say["obligations"].get(code) or catalog.OBLIGATIONS.get(code, code) for code in codes]
    rate = {"rate": rival.per_eur, "currency": rival.currency}
    fx = say["fx"].format(**rate, day=_quote_page.day(rival.fx_as_of, lang)) if rival.fx_as_of else ""
    return [
        say["basis_api"].format(
            input=rival.amounts[0],
            output=rival.amounts[2],
            currency=rival.currency,
            date=_quote_page.day(rival.as_of, lang),
            fx=fx,
            source=rival.source,
        ),
        say["basis_machine"].format(hourly=f"{eur(serving.eur_per_hour or 0)} EUR", source=serving.source or "-"),
        say["basis_tokens"].format(
            input=_quote_page.number(input_, lang),
            output=_quote_page.number(output, lang),
            how=say["how_assumed" if "assumed" in facts["teacher"]["how"] else "how_measured"],
        ),
        say["basis_licence"].format(obligations="; ".join(asks) or "-"),
    ]
