"""The words of a quote, in order, in one of its languages."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

from distill import catalog, energy
from distill.catalog.route import route_of
from distill.commands import _deal, _quote_page
from distill.commands._quote_page import Block, Chart

if TYPE_CHECKING:
    import argparse

    from distill.catalog.route import Route
    from distill.config import RunConfig
    from distill.costs import Price

VALID_DAYS = 30


def page(
    args: argparse.Namespace,
    config: RunConfig,
    facts: dict[str, Any],
    deal: _deal.Deal,
    rival_name: str,
    rival: Price,
    gpu: dict[str, Any],
    numbers: dict[str, Any],
    old: list[tuple[str, datetime.date]],
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
                teacher=name_of(route_of(config.teacher)),
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
        *(Block("soft", text) for text in _basis(config, facts, rival, gpu, old, say, eur, lang)),
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


def _basis(config: RunConfig, facts: Any, rival: Price, gpu: Any, old: Any, say: Any, eur: Any, lang: str) -> list[str]:
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
        say["basis_training"].format(price=gpu["price"], gpu=gpu["gpu"], share=_quote_page.share(energy.MFU, lang)),
        *(
            say["stale"].format(what=say[key], date=_quote_page.day(day, lang), days=catalog.STALE_WARN_DAYS)
            for key, day in old
        ),
        say["basis_licence"].format(obligations="; ".join(asks) or "-"),
    ]


def name_of(route: Route) -> str:
    return f"{route.model} ({route.provider.name})" if route.provider else route.model


def usage(facts: dict[str, Any]) -> tuple[float, float]:
    """Mean input and output tokens of a request."""
    asked = max(facts["teacher"]["asked"], 1)
    return facts["teacher"]["prompt"][1] / asked, facts["teacher"]["completion"][1] / asked
