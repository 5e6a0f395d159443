"""`distill plan CONFIG`: tokens, euros, memory, time, permission, and whether it is worth it. Nothing is spent."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from distill import catalog, gates, prompts
from distill.catalog.route import route_of
from distill.commands import _actual, _energy, _exam, _law, _method, _money, _plan_text, _proof, _tokens, _training
from distill.commands._config import load_config, run_path
from distill.errors import ConfigError, DistillError, Refused
from distill.generate import mix, writing
from distill.records import Request

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from distill.commands._training import Size
    from distill.config import RunConfig
    from distill.records import Prompt

GPUS = ("L4", "L40S", "H100-PCIe")
ZONE, VOLUME = "FRA", 100_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `distill plan`."""
    from pathlib import Path

    parser.add_argument("config", type=Path, metavar="CONFIG", help="YAML file of the run")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for example generate.samples=2")
    parser.add_argument("--out", type=Path, metavar="DIR", help="run folder to compare with (default: runs/NAME)")
    parser.add_argument("--json", action="store_true", help="everything, for machines")
    parser.add_argument("--gpu", action="append", metavar="ID", help=f"train on this card (default: {', '.join(GPUS)})")
    parser.add_argument("--gpus", type=int, default=1, metavar="N", help="number of cards (default: 1)")
    parser.add_argument("--zone", default=ZONE, metavar="ZONE", help=f"zone of the electricity (default: {ZONE})")
    parser.add_argument("--volume", type=int, default=VOLUME, metavar="N", help="requests per month later on")
    parser.add_argument(
        "--one-off-eur", type=float, default=0.0, metavar="EUR", help="people, data, approval: what else it costs"
    )

    parser.add_argument(
        "--prove",
        action="store_true",
        help="load the weights that are here and prove that teacher and student read the same text",
    )


def main(args: argparse.Namespace) -> int:
    """Print the plan, then end as the run would: with the first thing that stops it."""
    config = load_config(args, fetch=False)
    _check(args)
    plan, stop = build(config, args.gpu or GPUS, args.gpus, args.zone, args.volume, args.one_off_eur)
    plan["actual"] = _actual.compare(plan, run_path(args, config))
    plan["proof"] = _proof.prove(config, run_path(args, config)) if args.prove else None
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
    built, written = writing.preview(config)
    exam, questions = _exam.examination(config)
    teachers = [
        _teacher(
            config,
            number,
            [*(written if number == 0 else ()), *_requests(config, items)],
            questions if number == 0 and "teacher" in config.eval.arms else (),
            zone,
        )
        for number, items in enumerate(_shares(config, built.prompts))
    ]
    tokens = sum((t.tokens for t in teachers[1:]), teachers[0].tokens)
    learnt = tokens
    reader = _tokens.tokenizer_of(config.student.model, config)
    if config.student.prompt is not None or written or reader[0] is not None:  # the student reads other words or tokens
        items = writing.preview(config, config.student_prompts())[0].prompts
        with_ = reader if reader[0] is not None else _tokens.cached_tokenizer(config.teacher, config)
        learnt = _tokens.count_tokens(_requests(config, items), *with_)
    student = _training.size_of(config.student.model, config)
    work = _training.training(config, learnt, student, teachers[0].size) if student else None
    money = _money.together([t.facts for t in teachers], config.generate.max_cost_eur)
    found = gates.verdicts(config)
    cards = [_training.on_gpu(row, count, work, zone) for row in catalog.gpus() if row.id in gpus] if work else []
    trained = min((card["eur"] for card in cards if card["fits"] and card["eur"] is not None), default=0.0)
    plan = {
        "name": config.name,
        "config_sha256": config.hash(),
        "prompts": {
            "path": _origin(config),
            "read": built.read,
            "used": len(built.prompts),
            "skipped": len(built.skipped),
        },
        "teacher": {"route": teachers[0].facts["route"], **asdict(tokens), **money},
        "teachers": [t.facts for t in teachers],
        "not_counted": [role for role, _ in gates.asked(config)][len(teachers) :],
        "training": work,
        "gpus": cards,
        "zone": _zone(zone),
        "evaluation": exam,
        "permission": gates.as_json(found),
        "policy": config.policy.model_dump(mode="json"),
        "gpai": _law.gpai(config, [(t.tokens, t.size) for t in teachers], learnt, student) if student else None,
        "advice": _method.advice(config),
        "worth_it": _money.worth_it(config, tokens, volume, one_off_eur + trained + (money["expected_eur"] or 0)),
    }
    stops = [_refusal(found), *(t.problem for t in teachers), _money.no_cap(money)]
    return plan, next((stop for stop in stops if stop is not None), None)


@dataclass(frozen=True)
class _Teacher:
    """What one teacher is asked, and what that takes."""

    tokens: _tokens.Tokens
    size: Size | None
    facts: dict[str, Any]
    problem: DistillError | None


def _origin(config: RunConfig) -> str:
    source = config.prompts.source
    if source is not None:
        return f"made by the source {source.kind}"
    return str(prompts.locate(config.prompts.path, config.resolve))


def _shares(config: RunConfig, items: Sequence[Prompt]) -> list[list[Prompt]]:
    """The prompts of each teacher, as the run will deal them out."""
    shares: list[list[Prompt]] = [[] for _ in config.teachers()]
    for item, number in zip(items, mix.assign(config, items), strict=True):
        shares[number].append(item)
    return shares


def _teacher(
    config: RunConfig, number: int, asked: Sequence[Request], questions: Sequence[Request], zone: str
) -> _Teacher:
    settings = config.teachers()[number]
    reader = _tokens.cached_tokenizer(settings, config)
    tokens = _tokens.count_tokens(asked, *reader)
    exam = _tokens.count_tokens(questions, *reader) if questions else None
    where = "teacher" if number == 0 else f"generate.mix.{number - 1}.teacher"
    money, problem = _money.of_teacher(settings, tokens, asked, exam, where)
    route = route_of(settings)
    size = None if settings.kind == gates.FAKE else _training.size_of(route.official_model, config)
    energy = _energy.answers(tokens, size, route, zone)
    return _Teacher(tokens, size, {"route": str(route), **asdict(tokens), **money, "energy": energy}, problem)


def _requests(config: RunConfig, items: Sequence[Prompt]) -> list[Request]:
    """What a teacher would be asked (the seed of a sample does not change its length)."""
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


def _zone(zone: str) -> dict[str, Any]:
    return next(row for row in catalog.grid() if row.zone == zone).model_dump(mode="json")
