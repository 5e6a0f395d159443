"""The arms of a run: teacher, base student free and held to the legal answers, student, humble baseline."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from distill import plugins
from distill.errors import DataError
from distill.progress import say
from evals import baseline
from evals.analysis import Arm
from evals.asking import Desk, Exam, shared_choices
from evals.economics import machine_price, self_hosted
from evals.load import Subject
from evals.samples import Sample
from evals.verdict import percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distill.artifacts import RunFolder
    from distill.config import RunConfig
    from distill.query.store import Store
    from evals.meter import Meter

LABELS = {
    "teacher": "the teacher",
    "base": "the untouched student",
    "base_forced": "the untouched student held to the legal answers",
    "base_prompted": "the untouched student with the teacher's prompt, held to the legal answers",
    "student": "the student",
    "baseline": "logistic regression on the teacher's labels",
    "baseline_gold": "logistic regression on the gold labels",
}


def subjects(
    config: RunConfig, folder: RunFolder, questions: Sequence[Exam], students: Sequence[Exam], meter: Meter | None
) -> list[Subject]:
    """The arms that are models, and how each is asked.

    ``students``: the same items as the student is asked them. Before and after training differ in the weights alone,
    so the untouched student reads them too.
    """
    found, place = list[Subject](), replace(desk(config, folder), meter=meter)
    for name in dict.fromkeys(config.eval.arms):
        if name == "baseline":
            continue
        if why := _left_out(name, config, questions):
            say(f"eval {name}: left out, {why}")
            continue
        held = name in ("base_forced", "base_prompted", "teacher")
        mine = questions if name in ("teacher", "base_prompted") else students
        found.append(Subject(name, _settings(name, config, folder), mine, held, place))
    for number, other in enumerate(config.eval.alternatives, start=1):
        found.append(Subject(f"alternative-{number}", other, questions, True, place))
    return found


def answered(
    config: RunConfig, folder: RunFolder, models: Sequence[Subject], students: Sequence[Exam], store: Store
) -> list[Arm]:
    """Every configured arm with its answers, in the configured order; ``students`` are what the baseline reads."""
    found, known = list[Arm](), {subject.name: subject for subject in models}
    for name in dict.fromkeys((*config.eval.arms, *known)):
        if name == "baseline":
            found += humble(config, folder, students)
        elif name in known:
            subject = known[name]
            own = config.student.model if name == "student" else ""  # not the folder its weights are in
            label = LABELS.get(name) or str(getattr(subject.settings, "model", subject.settings.kind))
            votes = _votes(config, subject.questions) if name == "student" else 0
            arm = Arm(name, label, (), model=own)
            found.append(subject.asked(arm, store, confidence=name == "student", votes=votes))
            right = sum(s.correct for s in found[-1].samples) / len(subject.questions)
            say(f"eval {name}: {percent(right)}")
    return found


def _votes(config: RunConfig, questions: Sequence[Exam]) -> int:
    """Answers drawn to each item of the student; 0 where a judge would have to read each of them."""
    if config.eval.self_consistency and any(q.config.judged_by for q in questions):
        say("eval student: self_consistency is left out, a judge reads the answers")
        return 0
    return config.eval.self_consistency or 0


def desk(config: RunConfig, folder: RunFolder) -> Desk:
    """Where a run's evaluation works, and what it may spend."""
    return Desk(
        config.resolve("."),
        folder.eval / "speed.json",
        config.generate.max_cost_eur,
        config.eval.serving,
        config.eval.teacher_serving,
    )


def _left_out(name: str, config: RunConfig, questions: Sequence[Exam]) -> str:
    """Why an arm would say nothing new; "" when it does."""
    if name in ("base_forced", "base_prompted") and not all(q.request.choices for q in questions):
        return "the task has no list of legal answers"
    if name == "base_prompted" and config.student.prompt is None and "base_forced" in config.eval.arms:
        return "the student reads the teacher's prompt anyway: see base_forced"
    return ""


def _settings(name: str, config: RunConfig, folder: RunFolder) -> plugins.PluginConfig:
    """The provider settings of an arm."""
    if name == "teacher":
        return config.teacher
    if name != "student":
        return _local(config, config.student.model, None)
    facts = json.loads((folder.student / "student.json").read_text("utf-8"))
    if facts["adapter"]:
        return _local(config, config.student.model, str((folder.student / "adapter").resolve()))
    return _local(config, f"path:{folder.student.resolve()}", None)


def _local(config: RunConfig, model: str, adapter: str | None) -> plugins.PluginConfig:
    """The in-process engine."""
    values: dict[str, Any] = {
        "kind": "transformers",
        "model": model,
        "adapter": adapter,
        "dtype": config.student.dtype,
        "batch_size": config.eval.batch_size,
    }
    made: plugins.PluginConfig = plugins.load("distill.providers", "transformers").Config(**values)
    return made


def humble(config: RunConfig, folder: RunFolder, questions: Sequence[Exam]) -> list[Arm]:
    """The baseline on the teacher's labels, and on the gold labels of the same rows where they have them."""
    tasks = {q.config.title: q.config for q in questions}
    if len(tasks) != 1 or any(t.kind != "classification" or not t.choices for t in tasks.values()):
        say("eval baseline: left out, it needs one classification task with choices")
        return []
    rows = baseline.training_rows(folder.train_data)
    if not rows:
        raise DataError("no training rows", where=str(folder.train_data), next="distill generate")
    task, module = questions[0].config, questions[0].module
    taught = [(text, module.normal(answer, task)) for text, answer, _ in rows]
    known = [(text, str(row[task.gold_field])) for text, _, row in rows if row.get(task.gold_field)]
    made = [_humble_arm("baseline", [p for p in taught if p[1]], config, questions)]
    if len(known) == len(rows):
        made.append(_humble_arm("baseline_gold", known, config, questions))
    return made


def _humble_arm(name: str, pairs: Sequence[tuple[str, str]], config: RunConfig, questions: Sequence[Exam]) -> Arm:
    asked = [q.request.messages[-1].content for q in questions]
    answers, speed = baseline.classify([p[0] for p in pairs], [p[1] for p in pairs], asked, config.seed)
    samples = [
        Sample(
            id=q.item.id,
            task=q.config.title,
            cluster=q.item.cluster,
            lang=q.item.lang,
            gold=q.module.gold_text(q.item),
            prompt=text,
            text=answer,
            predicted=q.module.normal(answer, q.config),
            correct=q.module.score(q.item, answer, q.config),
            finish="stop",
        )
        for q, text, answer in zip(questions, asked, answers, strict=True)
    ]
    serving = config.eval.serving
    return Arm(
        name,
        LABELS[name],
        samples,
        model=f"TF-IDF + logistic regression, {len(pairs)} rows",
        legal=shared_choices(questions),
        speed=speed,
        costs=self_hosted(samples, speed, serving),
        cost_source=machine_price(serving),
        machine=serving,
    )
