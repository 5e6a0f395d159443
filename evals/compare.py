"""`distill compare`: any systems on the same items, with paired intervals, euros and a verdict. No run is needed.

A SYSTEM is a file of answers (`samples.jsonl`, `samples.parquet`), a YAML file with the settings of a provider, or
a model (catalogue name, hub:ID@REVISION, a folder). Files of answers need no model, no torch and no network.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.errors import ConfigError, GateFailed, GateInconclusive
from evals import measures, meter, money, samples, systems
from evals.analysis import Arm, Question, analyse
from evals.economics import billed
from evals.load import Subject
from evals.verdict import euros, interval, percent, points

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from distill.config import Load
    from evals.asking import Exam
    from evals.suite import Suite

EPILOG = """a row of a file of answers: {"id": "7", "cluster": "doc-3", "lang": "fr", "gold": "mail", "text": "mail",
  "usage": {"prompt": 120, "completion": 2}, "cost": 0.00002}   (needed: id, and text with gold, or correct)

examples:
  distill compare teacher.jsonl student.jsonl --margin 0.03 --gate
  distill compare big=mistral.yaml small=path/to/student --suite suite.yaml"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `distill compare`."""
    parser.epilog = EPILOG
    add = parser.add_argument
    add("systems", nargs="+", metavar="SYSTEM", help="[NAME=] samples.jsonl | samples.parquet | provider.yaml | model")
    add("--suite", type=Path, metavar="FILE", help="tasks to ask (needed unless all systems are files), or one of ours")
    add("--lm-eval", metavar="TASKS", help="tasks of lm-evaluation-harness, separated by commas, in place of a suite")
    add("--lm-eval-path", type=Path, metavar="DIR", help="folder of lm-eval task files of your own")
    add("--limit", type=_count, metavar="N", help="documents of each lm-eval task")
    add("--pin", action="append", type=_pin, default=[], metavar="SET=COMMIT", help="commit of a hub's data set")
    add("--reference", metavar="NAME", help="the system compared with (default: the first)")
    add("--candidate", metavar="NAME", help="the system judged (default: the first that is not the reference)")
    add("--margin", type=_share, default=0.05, metavar="SHARE", help="accuracy that may be lost (default 0.05)")
    add("--out", type=Path, default=Path("compare"), metavar="DIR", help="folder of the report (default: compare)")
    add("--pdf", action="store_true", help="write the report as PDF too (pip install 'alambic[pdf]')")
    add("--gate", action="store_true", help="exit 20 when the candidate fails, 21 when there are too few items")
    add("--hold", action="store_true", help="hold systems to the legal answers where their engine can")
    add("--seed", type=_natural, default=0, help="seed of the bootstrap")
    add("--draws", type=_draws, default=10_000, help="bootstrap draws (default 10,000)")
    add("--max-cost-eur", type=_euros, default=0.0, metavar="EUR", help="cap on what paid systems may cost")


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise ValueError
    return value


def _count(text: str) -> int:
    if int(text) < 1:
        raise ValueError
    return int(text)


def _pin(text: str) -> tuple[str, str]:
    name, _, commit = text.partition("=")
    if not re.fullmatch(r"[0-9a-f]{40}", commit) or not name:
        raise ValueError
    return name, commit


def _natural(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**31:
        raise ValueError
    return value


def _draws(text: str) -> int:
    value = int(text)
    if not 1000 <= value <= 1_000_000:
        raise ValueError
    return value


def _euros(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value >= 0):
        raise ValueError
    return value


# argparse names the type in its complaint.
_share.__name__, _natural.__name__, _draws.__name__, _euros.__name__, _pin.__name__, _count.__name__ = (
    "share between 0 and 1", "whole number", "number of draws from 1000 to 1000000", "amount in EUR",
    "OWNER/NAME=40 hexadecimal digits", "whole number above 0",
)  # fmt: skip


def main(args: argparse.Namespace) -> int:
    """Compare, print the table, write the report; the exit code is the gate's when one is asked for."""
    from distill import pdf
    from evals.report.publish import publish

    if args.pdf:
        pdf.require()
    chosen = systems.parse(args.systems)
    reference, candidate = _roles(args, [system.name for system in chosen])
    arms, extra = _arms(args, chosen, reference, candidate)
    texts = extra.pop("texts", None)
    question = Question(
        candidate=candidate,
        reference=reference,
        margin=args.margin,
        draws=args.draws,
        seed=args.seed,
        translations=tuple(s["name"] for s in extra["sets"] if s["kind"] == "translation"),
        texts=texts,
        extra={"kind": "compare", "gate": "teacher" if args.gate else "none", **extra},
    )
    report = analyse(arms, question)
    args.out.mkdir(parents=True, exist_ok=True)
    pages = publish(report, args.out / "report.json", args.out, as_pdf=args.pdf)
    show(report)
    print(f"report: {', '.join(map(str, pages))}")
    outcome = report["verdict"]["outcome"]
    if not args.gate or outcome == "pass":
        return 0
    error = GateFailed if outcome == "fail" else GateInconclusive
    raise error(report["verdict"]["headline"], safe=str(pages[0]))


def _roles(args: argparse.Namespace, names: Sequence[str]) -> tuple[str, str]:
    """(reference, candidate)."""
    if len(names) < 2:
        raise ConfigError("needs two systems or more", where="distill compare", next="distill compare --help")
    for name in (args.reference, args.candidate):
        if name is not None and name not in names:
            raise ConfigError(
                f"no system is called {name!r}", where="distill compare", next=f"one of: {', '.join(names)}"
            )
    reference = args.reference or next(name for name in names if name != args.candidate)
    candidate = args.candidate or next(name for name in names if name != reference)
    if reference == candidate:
        raise ConfigError("reference and candidate are the same system", where="distill compare")
    return reference, candidate


def _arms(
    args: argparse.Namespace, chosen: Sequence[systems.System], reference: str, candidate: str
) -> tuple[list[Arm], dict[str, Any]]:
    """The arms with their answers, and what the report says about the sets."""
    from evals import suite as suites

    if args.lm_eval:
        return _harness(args, chosen)
    suite = suites.load(args.suite, dict(args.pin)) if args.suite else None
    asked = [system.name for system in chosen if system.settings is not None]
    if asked and suite is None:
        raise ConfigError(
            f"{', '.join(asked)} must be asked something: name the items",
            where="distill compare",
            next="--suite suite.yaml",
        )
    questions = suites.questions(suite) if suite else []
    arms, taken = {s.name: systems.recorded(s, questions) for s in chosen if s.path is not None}, measures.Measured()
    if suite is not None and asked:
        answered, taken = _ask(args, chosen, suite, questions)
        arms |= answered
    if suite is None:
        first = next(iter(arms.values()))
        title = chosen[0].path.name if chosen[0].path else ""
        return list(arms.values()), {
            "name": f"{candidate} against {reference}",
            "sets": [_set(title, "samples", len(first.samples), "", ())],
        }
    asked_of = Counter(q.config.title for q in questions)
    sets = [_set(t.title, t.kind, asked_of[t.title], t.licence, t.choices or suite.choices) for t in suite.task_configs]
    found, judges = _judged(args, [arms[s.name] for s in chosen], questions, suite, reference)
    for arm in found:
        if arm.name in asked:
            written = {"arm": arm.name, "model": arm.model, "held": arm.held}
            samples.write(args.out / f"{file_name(arm.name)}.parquet", arm.samples, written)
    texts = tuple(dict.fromkeys(q.config.title for q in questions if q.config.writes_text))
    facts = {"name": suite.name or args.suite.stem, "sets": sets, "judges": judges, "texts": texts}
    return found, facts | measures.parts(suite.load, suite.energy, taken, found)


def _harness(args: argparse.Namespace, chosen: Sequence[systems.System]) -> tuple[list[Arm], dict[str, Any]]:
    """The arms' answers to tasks of lm-evaluation-harness."""
    from distill.artifacts import open_run
    from distill.config import Serving
    from distill.query.store import Store
    from evals import harness
    from evals.asking import Desk

    if args.suite:
        raise ConfigError("--suite and --lm-eval are two ways to ask: name one", where="distill compare")
    names = tuple(name.strip() for name in args.lm_eval.split(",") if name.strip())
    plan = harness.Plan(names, args.lm_eval_path, args.limit)
    found: list[Arm] = []
    with open_run(args.out) as folder, Store(folder.db) as store:
        for system in chosen:
            if system.settings is None:
                found.append(systems.recorded(system))
                continue
            desk = Desk(system.folder, args.out / "speed.json", args.max_cost_eur, Serving())
            arm = harness.ask(Arm(system.name, system.name, ()), system.settings, plan, store, desk)
            arm = replace(arm, costs=billed(arm.samples), cost_source="by the ledger")
            samples.write(args.out / f"{file_name(arm.name)}.parquet", arm.samples, {"arm": arm.name})
            found.append(arm)
    counts = Counter(sample.task for sample in found[0].samples)
    sets = [_set(name, "lm-eval", count, "", ()) for name, count in counts.items()]
    return found, {"name": ", ".join(names), "sets": sets}


def _judged(
    args: argparse.Namespace, arms: list[Arm], questions: Sequence[Exam], suite: Suite, reference: str
) -> tuple[list[Arm], list[dict[str, Any]]]:
    """The arms with a judge's scores, where the suite names one."""
    from distill.artifacts import open_run
    from distill.query.store import Store
    from evals.asking import Desk
    from evals.judge import judged

    if not any(task.judged_by for task in suite.task_configs):
        return arms, []
    desk = Desk(suite.folder, args.out / "speed.json", args.max_cost_eur, suite.serving)
    with open_run(args.out) as folder, Store(folder.db) as store:
        return judged(arms, questions, reference, store, desk)


def _set(name: str, kind: str, items: int, licence: str, choices: Sequence[str]) -> dict[str, Any]:
    return {"name": name, "kind": kind, "items": items, "licence": licence, "choices": list(choices)}


def _ask(
    args: argparse.Namespace, chosen: Sequence[systems.System], suite: Suite, questions: Sequence[Exam]
) -> tuple[dict[str, Arm], measures.Measured]:
    """Ask the systems that are models, then measure; answers are kept in DIR/run.db and never asked twice."""
    from distill.artifacts import open_run
    from distill.query.store import Store
    from evals.asking import Desk
    from evals.run import announce

    announce(questions, args.margin, "compare")
    loading, levels = suite.load, args.out / "load.json"
    _known(loading, [s.name for s in chosen if s.settings is not None])
    with (
        open_run(args.out) as folder,
        Store(folder.db) as store,
        meter.opened(suite.energy is not None) as counters,
    ):
        subjects = [
            Subject(
                s.name,
                s.settings,
                questions,
                args.hold,
                Desk(s.folder, args.out / "speed.json", args.max_cost_eur, suite.serving, meter=counters),
            )
            for s in chosen
            if s.settings is not None
        ]
        arms = {s.name: s.asked(Arm(s.name, s.name, ()), store, confidence=True) for s in subjects}
        return arms, measures.taken(loading, subjects, counters, store, levels, money.computer())


def _known(loading: Load | None, names: Sequence[str]) -> None:
    """Raise ConfigError for a system under `load.arms` that is no model here."""
    for name in loading.arms if loading else ():
        if name not in names:
            raise ConfigError(
                f"load.arms: no model is called {name!r}", where="--suite", next=f"one of: {', '.join(names)}"
            )


def file_name(name: str) -> str:
    """The name of a system as a file's: what it answered can be compared again, without asking."""
    return re.sub(r"[^\w.-]+", "_", name)


def show(report: dict[str, Any]) -> None:
    """The table and the verdict, on stdout."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=120)  # a file or a pipe has no width
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("system", overflow="fold")
    for title in ("accuracy, 95 %", f"{report['candidate']} minus it, points", "EUR per 1,000", "per 1,000 correct"):
        table.add_column(title, justify="right", overflow="fold")
    pairs = {pair["other"]: pair["difference"] for pair in report["pairs"]}
    for arm in report["arms"]:
        accuracy, cost, difference = arm["accuracy"], arm["cost"], pairs.get(arm["name"])
        table.add_row(
            arm["name"],
            f"{percent(accuracy['value'])} [{100 * accuracy['low']:.1f}, {100 * accuracy['high']:.1f}]",
            f"{points(difference['value'])} {interval(difference)}" if difference else "",
            *(
                euros(c["value"]) if (c := cost[key]) else "unknown"
                for key in ("per_1000_requests", "per_1000_correct")
            ),
        )
    console.print(table, markup=False, highlight=False)
    print(f"\n{report['verdict']['headline']}\n{report['verdict']['sentence']}")
