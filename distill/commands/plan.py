"""`distill plan CONFIG`: tokens, euros, memory, time, permission, and whether it is worth it. Nothing is spent."""

from __future__ import annotations

import importlib
import json
from typing import TYPE_CHECKING, Any

from distill import catalog, costs, gates, plugins, prompts
from distill.catalog.route import official, route_of
from distill.commands import _actual, _estimate, _plan_text
from distill.commands._config import load_config, run_path
from distill.errors import ConfigError, DistillError, Refused
from distill.records import Request

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from distill.config import RunConfig
    from distill.costs import Price
    from distill.records import Prompt

GPUS = ("L4", "L40S", "H100-PCIe")
DISAGREE = (0.1, 0.2, 0.3)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `distill plan`."""
    from pathlib import Path

    parser.add_argument("config", type=Path, metavar="CONFIG", help="YAML file of the run")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for example generate.samples=2")
    parser.add_argument("--out", type=Path, metavar="DIR", help="run folder to compare with (default: runs/NAME)")
    parser.add_argument("--json", action="store_true", help="everything, for machines")
    parser.add_argument("--gpu", action="append", metavar="ID", help=f"train on this card (default: {', '.join(GPUS)})")
    parser.add_argument("--gpus", type=int, default=1, metavar="N", help="number of cards (default: 1)")
    parser.add_argument("--zone", default="FRA", metavar="ZONE", help="zone of the electricity (default: FRA)")
    parser.add_argument("--volume", type=int, default=100_000, metavar="N", help="requests per month later on")
    parser.add_argument(
        "--one-off-eur", type=float, default=0.0, metavar="EUR", help="people, data, approval: what else it costs"
    )


def main(args: argparse.Namespace) -> int:
    """Print the plan, then end as the run would: with the first thing that stops it."""
    config = load_config(args)
    _check(args)
    plan, stop = build(config, args.gpu or GPUS, args.gpus, args.zone, args.volume, args.one_off_eur)
    plan["actual"] = _actual.compare(plan, run_path(args, config))
    print(json.dumps(plan, indent=2, ensure_ascii=False)) if args.json else _plan_text.show(plan)
    if stop is not None:
        raise stop
    return 0


def _check(args: argparse.Namespace) -> None:
    for label, value, known in (
        *(("--gpu", gpu, [row.id for row in catalog.gpus()]) for gpu in args.gpu or ()),
        ("--zone", args.zone, [row.zone for row in catalog.grid()]),
    ):
        if value not in known:
            raise ConfigError(f"the catalogue has no {value!r}", where=label, next=f"one of: {', '.join(known)}")
    if args.gpus < 1 or args.volume < 1 or args.one_off_eur < 0:
        raise ConfigError("--gpus and --volume are at least 1, --one-off-eur at least 0", where="distill plan")


def build(
    config: RunConfig, gpus: Sequence[str], count: int, zone: str, volume: int, one_off_eur: float
) -> tuple[dict[str, Any], DistillError | None]:
    """(the plan as JSON values, what would stop the run or None). Raises DataError for unusable prompts."""
    path = prompts.locate(config.prompts.path, config.resolve)
    built = prompts.scan(config.prompts, path, config.seed)
    tokenizer, name = _estimate.cached_tokenizer(config)
    asked = _requests(config, built.prompts)
    tokens = _estimate.count_tokens(asked, tokenizer, name)
    student = _estimate.size_of(config.student.model, config)
    teacher = _estimate.size_of(route_of(config.teacher).official_model, config)
    learnt = tokens
    if config.student.prompt is not None:  # the student is asked in other words than the teacher
        items = prompts.scan(config.student_prompts(), path, config.seed).prompts
        learnt = _estimate.count_tokens(_requests(config, items), tokenizer, name)
    work = _estimate.training(config, learnt, student, teacher) if student else None
    exam, questions = examination(config)
    exam_tokens = _estimate.count_tokens(questions if "teacher" in config.eval.arms else (), tokenizer, name)
    money, problem = teacher_money(config, tokens, asked, exam_tokens)
    found = gates.verdicts(config)
    rows = [row for row in catalog.gpus() if row.id in gpus]
    plan = {
        "name": config.name,
        "config_sha256": config.hash(),
        "prompts": {"path": str(path), "read": built.read, "used": len(built.prompts), "skipped": len(built.skipped)},
        "teacher": {"route": str(route_of(config.teacher)), **_estimate.as_dict(tokens), **money},
        "training": work,
        "gpus": [_estimate.on_gpu(row, count, work, zone) for row in rows] if work else [],
        "zone": _zone(zone),
        "evaluation": exam,
        "permission": gates.as_json(found),
        "policy": config.policy.model_dump(mode="json"),
        "gpai": _estimate.gpai(config, tokens, learnt, student, teacher) if student else None,
        "advice": advice(config),
        "worth_it": worth_it(config, tokens, volume, one_off_eur + (money["expected_eur"] or 0)),
    }
    return plan, _refusal(found) or problem


def _requests(config: RunConfig, items: Sequence[Prompt]) -> list[Request]:
    """What the teacher would be asked (the seed of a sample does not change its length)."""
    make = config.generate.sampling
    return [
        Request(item.messages, make(index), config.prompts.choices, config.generate.signals_top_k, sample)
        for item in items
        for index, sample in enumerate(range(config.generate.samples))
    ]


def _refusal(found: list[gates.Verdict]) -> Refused | None:
    try:
        gates.refuse(found)
    except Refused as error:
        return error
    return None


# -- money ------------------------------------------------------------------------------------------------------


def teacher_money(
    config: RunConfig, tokens: _estimate.Tokens, asked: Sequence[Request], exam: _estimate.Tokens
) -> tuple[dict[str, Any], DistillError | None]:
    """Euros for the teacher, live and in batch, and the problem that would stop the run. Unknown is None."""
    price = costs.price_of(config.teacher)
    paid = costs.costs_tokens(config.teacher) or price is not None
    money: dict[str, Any] = {
        "paid": paid,
        "price": str(price) if price else None,
        "price_source": price.source if price else None,
        "price_age": catalog.staleness(price.as_of) if price else None,
        "expected_eur": None if paid else 0.0,
        "batch_eur": None,
        "worst_case_eur": None if paid else 0.0,
        "exam_eur": None if paid else 0.0,
        "cap_eur": config.generate.max_cost_eur,
        "teacher_seconds": None,
    }
    if not paid:
        return money, None
    if price is None:
        return money, ConfigError(
            f"no price of {config.teacher.model!r} is known, so no budget can be kept",  # type: ignore[attr-defined]
            where="teacher.price",
            next="teacher.price: {input: ..., output: ..., currency: EUR, as_of: YYYY-MM-DD}",
        )
    expected = _nano(price, tokens.prompt[1], tokens.completion[1])
    money["expected_eur"] = costs.eur(expected)
    if price.batch_discount is not None:
        money["batch_eur"] = costs.eur(expected) * (1 - price.batch_discount)
    money["worst_case_eur"] = costs.eur(sum(costs.worst_case_nano(r, price) for r in set(asked)))
    money["exam_eur"] = costs.eur(_nano(price, exam.prompt[1], exam.completion[1]))
    return money, _money_problem(config, price, money)


def _nano(price: Price, prompt: float, completion: float) -> int:
    """Expected cost at the base rates: tiers depend on one request's length, not on the sum."""
    return round((prompt * price.input + completion * price.output) / costs.MTOK)


def _money_problem(config: RunConfig, price: Price, money: dict[str, Any]) -> DistillError | None:
    if catalog.staleness(price.as_of) == "expired":
        return ConfigError(
            f"the price is of {price.as_of}, more than {catalog.STALE_BLOCK_DAYS} days ago",
            where="teacher.price",
            next="state teacher.price with a date, or pip install -U alambic",
        )
    if config.generate.max_cost_eur == 0:
        return ConfigError(
            "a paid teacher needs a cap",
            where="generate.max_cost_eur",
            next=f"about {money['expected_eur']:.2f} EUR expected, {money['worst_case_eur']:.2f} EUR at worst",
        )
    return None


def worth_it(config: RunConfig, tokens: _estimate.Tokens, volume: int, one_off_eur: float) -> dict[str, Any]:
    """The student on its own machine against the teacher and the cheapest API, at ``volume`` requests per month."""
    serving = config.eval.serving
    fixed = None if serving.eur_per_hour is None else serving.eur_per_hour * costs.HOURS_PER_MONTH
    rivals = [("the teacher", price)] if (price := costs.price_of(config.teacher)) else []
    cheapest = _cheapest(config, tokens)
    rows = [_rival(name, price, tokens, volume, fixed, one_off_eur, serving.amortise_months) for name, price in rivals]
    if cheapest is not None:
        name = f"the cheapest API in your regions, {cheapest[0]}"
        rows.append(_rival(name, cheapest[1], tokens, volume, fixed, one_off_eur, serving.amortise_months))
    return {
        "volume_per_month": volume,
        "one_off_eur": one_off_eur,
        "student_eur_per_month": fixed,
        "amortise_months": serving.amortise_months,
        "against": rows,
    }


def _rival(
    name: str, price: Price, tokens: _estimate.Tokens, volume: int, fixed: float | None, one_off: float, months: int
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


def _cheapest(config: RunConfig, tokens: _estimate.Tokens) -> tuple[str, Price] | None:
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


# -- examination and advice -------------------------------------------------------------------------------------


def examination(config: RunConfig) -> tuple[list[dict[str, Any]], list[Request]]:
    """(each task's items and what they can show, the questions). Raises DataError for an unusable task file."""
    base: Any = importlib.import_module("evals.tasks._base")  # by name: the package stands beside this one
    rows, questions = [], []
    for task in config.eval.tasks:
        module = plugins.load("evals.tasks", task.kind)
        settings = base.completed(task, config.prompts, config.generate.max_new_tokens)
        items = base.select(module.examples(settings, config.resolve(settings.path)), settings, config.seed)
        questions += [module.prompt(item, settings) for item in items]
        rows.append(
            {
                "task": settings.title,
                "items": len(items),
                "clusters": len({item.cluster for item in items}),
                "visible_drop": {str(p): _estimate.smallest_visible_drop(len(items), p) for p in DISAGREE},
                "margin": config.eval.margin,
                "items_for_margin": {str(p): _estimate.items_for_margin(config.eval.margin, p) for p in DISAGREE},
            }
        )
    return rows, questions


def advice(config: RunConfig) -> str:
    """Which methods this teacher and this student allow. A run compares the real tokenizers before it trusts this."""
    route = route_of(config.teacher)
    if config.teacher.kind == gates.FAKE:
        return "sft: the fake teacher has no probabilities"
    if route.kind == "api" and (route.provider is None or route.provider.top_logprobs != "yes"):
        return "sft: this endpoint is not known to return log-probabilities; a teacher on your own vLLM would"
    ours, theirs = catalog.find_model(route.official_model), catalog.find_model(official(config.student.model))
    equal = bool(ours and theirs and ours.tokenizer and ours.tokenizer == theirs.tokenizer)
    here = config.teacher.kind == "transformers"
    if equal and here:
        return "whitebox, on_policy, or offline_topk when both models do not fit at once: one tokenizer, it seems"
    if equal:
        return "offline_topk: one tokenizer, it seems; whitebox and on_policy need teacher.kind: transformers"
    if here:
        return "cross_tokenizer or sft: the tokenizers differ or are not known"
    return "sft: the tokenizers differ or are not known; cross_tokenizer needs teacher.kind: transformers"


def _zone(zone: str) -> dict[str, Any]:
    return next(row for row in catalog.grid() if row.zone == zone).model_dump(mode="json")
