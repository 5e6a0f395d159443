"""Stage 3: teacher, base student, student and the humble baseline answer the same items; then the report.

Writes eval/<arm>.parquet, eval/report.json, report.html and its translations. The gate (exit 20/21) is judged last.
"""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

from distill import gates, pdf
from distill.errors import ConfigError, GateFailed, GateInconclusive
from distill.progress import say
from distill.query import went
from distill.query.store import Store
from evals import arms, baseline, bill, cascade_file, measures, meter, money, planned, samples
from evals.analysis import Arm, Question, analyse
from evals.asking import Exam, exams
from evals.leaks import leaks
from evals.report.publish import publish
from evals.stats import detectable_before

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from distill.artifacts import RunFolder
    from distill.config import RunConfig

VERSION = 1
DISCORDANT = 0.2
UNTOUCHED = ("base", "base_forced", "base_prompted")
SETTINGS = ("name", "seed", "prompts", "teacher", "generate", "student", "eval")
AFTER = ("generate", "train")


def inputs(config: RunConfig) -> list[Path]:
    """The task files. A data set of a hub is pinned by its name."""
    paths = [task.path for task in config.eval.tasks]  # type: ignore[attr-defined]
    return [config.resolve(path) for path in paths if not path.startswith("hub:")]


def run(config: RunConfig, folder: RunFolder) -> Sequence[Path]:
    """Ask every arm, compare, write. Raises GateFailed or GateInconclusive at the very end."""
    if not config.eval.tasks:
        raise ConfigError(
            "eval.tasks is empty", next="name a task: eval.tasks: [{kind: classification, path: test.jsonl}]"
        )
    if config.eval.pdf:
        pdf.require()
    gates.check_regions(config)  # an alternative or a judge may be new since the teacher was asked
    base, tokens = config.resolve("."), config.generate.max_new_tokens
    questions = exams(config.eval.tasks, config.prompts, tokens, base, config.seed)
    students = exams(config.eval.tasks, config.student_prompts(), tokens, base, config.seed)
    announce(questions, config.eval.margin)
    with meter.opened(config.eval.energy is not None) as counters, Store(folder.db) as store:
        models = arms.subjects(config, folder, questions, students, counters)
        found = arms.answered(config, folder, models, students, store)
        levels = folder.eval / "load.json"
        taken = measures.taken(config.eval.load, models, counters, store, levels, money.computer())
        found, judges, paid = _judged(config, folder, found, questions, store)
    measured = measures.parts(config.eval.load, config.eval.energy, taken, found)
    one_off = bill.one_off(config, folder, found, paid, measured["load"])
    for arm in found:
        facts = {"arm": arm.name, "model": arm.model, "held": arm.held, "speed": arm.speed and arm.speed.as_dict()}
        samples.write(folder.eval / f"{arm.name}.parquet", arm.samples, facts)
        if arm.voted:
            samples.write(folder.eval / f"{arm.name}.votes.parquet", arm.voted, {**facts, "speed": None})
    question = replace(
        _question(config, folder, found, questions),
        money=money.Money(config.eval.serving, one_off, money.computer()),
    )
    report = analyse(found, replace(question, extra={**question.extra, **measured, "judges": judges}))
    pages = publish(report, folder.report_json, folder.path, config.eval.languages, config.eval.pdf)
    say(report["verdict"]["sentence"])
    served = cascade_file.write(report, config, questions, students, folder)
    _gate(config, report, pages[0])
    voted = [folder.eval / f"{arm.name}.votes.parquet" for arm in found if arm.voted]
    written = [*(folder.eval / f"{arm.name}.parquet" for arm in found), *voted, *served]
    return [*written, folder.report_json, *pages]


def announce(questions: Sequence[Exam], margin: float, who: str = "eval") -> None:
    """Say before anything is asked what so many items can show, if a fifth of them are answered differently."""
    alone = {(q.config.title, q.item.id) for q in questions if q.item.cluster == q.item.id}
    clusters = len(alone) + len({q.item.cluster for q in questions if q.item.cluster != q.item.id})
    best, worst = (100 * detectable_before(n, DISCORDANT) for n in (len(questions), clusters))
    can = f"{best:.1f}" if clusters == len(questions) else f"{best:.1f} to {worst:.1f}"
    say(
        f"{who}: {len(questions)} items in {clusters} clusters can show a difference of about {can} points; "
        f"the margin is {100 * margin:g}"
    )


def translations(questions: Sequence[Exam]) -> tuple[str, ...]:
    """Tasks that have a score of the whole set."""
    return tuple(dict.fromkeys(q.config.title for q in questions if q.config.kind == "translation"))


def texts(questions: Sequence[Exam]) -> tuple[str, ...]:
    """Tasks whose answers are text."""
    return tuple(dict.fromkeys(q.config.title for q in questions if q.config.writes_text))


def _judged(
    config: RunConfig, folder: RunFolder, found: list[Arm], questions: Sequence[Exam], store: Store
) -> tuple[list[Arm], list[dict[str, Any]], bill.Paid]:
    """The arms with a judge's scores, where a task names one; then what the ledger was charged."""
    from evals.judge import judged

    said: list[dict[str, Any]] = []
    desk = arms.desk(config, folder)
    if any(q.config.judged_by for q in questions):
        _, reference = roles([arm.name for arm in found])
        found, said = judged(found, questions, reference, store, desk)
    return found, said, bill.Paid.of(store, desk.judging)


def roles(names: Sequence[str]) -> tuple[str, str]:
    """(candidate, reference) among the arms. Raises ConfigError when there are not two."""
    models = [n for n in names if not n.startswith(("baseline", "alternative"))]
    candidate = "student" if "student" in names else (models or names)[-1]
    reference = "teacher" if "teacher" in names else names[0]
    if candidate == reference:
        raise ConfigError("eval.arms needs two systems to compare", next="eval.arms: [teacher, student]")
    return candidate, reference


def _question(config: RunConfig, folder: RunFolder, found: Sequence[Arm], questions: Sequence[Exam]) -> Question:
    names = [arm.name for arm in found]
    candidate, reference = roles(names)
    before = [a for a in found if a.name in UNTOUCHED and a.name not in (reference, candidate)]
    # The best of the untouched ones: a gain over a weak prompt would be no gain.
    base = max(before, key=lambda a: sum(s.correct for s in a.samples)).name if before else None
    sizes = [len(q.request.choices) for q in questions if q.request.choices]
    return Question(
        candidate=candidate,
        reference=reference,
        base=base,
        humble=tuple(n for n in names if n.startswith("baseline")),
        margin=config.eval.margin,
        draws=config.eval.draws,
        seed=config.seed,
        examples=config.eval.examples,
        translations=translations(questions),
        texts=texts(questions),
        chance=fmean(1 / size for size in sizes) if len(sizes) == len(questions) else 0.0,
        extra=_extra(config, folder, questions),
    )


def _extra(config: RunConfig, folder: RunFolder, questions: Sequence[Exam]) -> dict[str, Any]:
    """The sets and what else the records alone do not say."""
    return {
        "kind": "run",
        "name": config.name,
        "sets": _sets(questions),
        "leaks": _leaks(folder, questions),
        "went": went.table(folder.db),
        "planned": planned.recorded(folder),
        "gate": config.eval.gate,
    }


def _leaks(folder: RunFolder, questions: Sequence[Exam]) -> dict[str, Any] | None:
    """Items that were trained on; None without training data."""
    if not folder.train_data.is_file():
        return None
    trained = [text for text, _, _ in baseline.training_rows(folder.train_data)]
    found = leaks([q.request.messages[-1].content for q in questions], trained)
    if found["exact"] or found["near"]:
        say(f"eval: WARNING: {found['exact']} items were trained on word for word, {found['near']} nearly so")
    return found


def _sets(questions: Sequence[Exam]) -> list[dict[str, Any]]:
    """What was asked: name, kind, items, licence, legal answers."""
    return [
        {
            "name": title,
            "kind": q.config.kind,
            "items": sum(x.config.title == title for x in questions),
            "licence": q.config.licence,
            "choices": list(q.config.choices or ()),
        }
        for title, q in {q.config.title: q for q in questions}.items()
    ]


def _gate(config: RunConfig, report: dict[str, Any], path: Path) -> None:
    """Turn the verdict into an exit code, when the configuration asks for a gate."""
    if config.eval.gate == "none":
        return
    verdict = report["verdict"]
    outcome = verdict["outcome"] if config.eval.gate == "teacher" else verdict["gain"]
    if outcome == "pass":
        return
    error = GateFailed if outcome == "fail" else GateInconclusive
    raise error(
        verdict["sentence"], safe=f"every answer and {path}", next="more data, more steps, or a wider eval.margin"
    )
