"""Who answers: teacher, base student free and held to the legal answers, student, humble baseline.

Every answer goes through the run's store, so a killed evaluation asks nothing twice. An answer that is missing or
broken counts as wrong and is counted.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from distill import plugins
from distill.errors import DataError
from distill.progress import say
from distill.providers._base import Context
from evals import baseline
from evals.analysis import Arm
from evals.economics import billed, self_hosted
from evals.samples import Sample
from evals.timing import Timed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distill.artifacts import RunFolder
    from distill.config import RunConfig
    from distill.providers._base import Provider
    from distill.query.ask import Outcome
    from distill.query.store import Store
    from distill.records import Request
    from evals.tasks._base import Item, TaskConfig, TaskModule

LABELS = {
    "teacher": "the teacher",
    "base": "the untouched student",
    "base_forced": "the untouched student held to the legal answers",
    "student": "the student",
    "baseline": "logistic regression on the teacher's labels",
    "baseline_gold": "logistic regression on the gold labels",
}


@dataclass(frozen=True)
class Exam:
    """One item of one task, and what is asked."""

    module: TaskModule
    config: TaskConfig
    item: Item
    request: Request


def exams(config: RunConfig) -> list[Exam]:
    """Everything that is asked, in a fixed order."""
    from evals.tasks._base import completed, select

    found: list[Exam] = []
    for raw in config.eval.tasks:
        module: Any = plugins.load("evals.tasks", raw.kind)
        task = completed(raw, config.prompts, config.generate.max_new_tokens)  # type: ignore[type-var]
        items = select(module.examples(task, config.resolve(task.path)), task, config.seed)
        found += [Exam(module, task, item, module.prompt(item, task)) for item in items]
    return found


def local_config(config: RunConfig, adapter: str | None, model: str | None = None) -> plugins.PluginConfig:
    """The in-process engine for a student, with or without its adapter."""
    module = plugins.load("distill.providers", "transformers")
    return module.Config(  # type: ignore[no-any-return]
        kind="transformers",
        model=model or config.student.model,
        adapter=adapter,
        dtype=config.student.dtype,
        batch_size=config.eval.batch_size,
    )


def student_config(config: RunConfig, folder: RunFolder) -> plugins.PluginConfig:
    """The trained student: its adapter on the untouched base, or its own full weights."""
    facts = json.loads((folder.student / "student.json").read_text("utf-8"))
    if facts["adapter"]:
        return local_config(config, str((folder.student / "adapter").resolve()))
    return local_config(config, None, f"path:{folder.student.resolve()}")


def build(settings: Any, config: RunConfig) -> Provider:
    """The provider a configuration describes."""
    return plugins.load("distill.providers", settings.kind).build(settings, Context(folder=config.resolve(".")))  # type: ignore[no-any-return]


def requests_for(arm: str, questions: Sequence[Exam], provider: Provider) -> list[Request]:
    """What an arm is asked. Held to the legal answers: the teacher where its engine can, and `base_forced`."""
    held = arm == "base_forced" or (arm == "teacher" and provider.capabilities.choices)
    requests = [q.request if held else replace(q.request, choices=()) for q in questions]
    if arm == "student" and provider.capabilities.top_logprobs:
        requests = [replace(request, top_logprobs=1) for request in requests]
    return requests


def ask(arm: str, settings: Any, config: RunConfig, folder: RunFolder, questions: Sequence[Exam], store: Store) -> Arm:
    """Answers of a model to every question, with speed and money."""
    from distill import costs
    from distill.query.ask import ask_all

    provider: Any = build(settings, config)
    local = settings.kind == "transformers"
    try:
        requests = requests_for(arm, questions, provider)
        held = any(r.choices for r in requests)
        if local:
            provider = Timed(provider, folder.eval / "speed.json", arm, held)
        outcomes = ask_all(
            provider,
            requests,
            store,
            title=f"eval {arm}",
            price=costs.price_of(settings),
            max_cost_eur=config.generate.max_cost_eur,
        )
    finally:
        provider.close()
    samples = [_sample(q, o) for q, o in zip(questions, outcomes, strict=True)]
    made = Arm(
        arm,
        LABELS[arm],
        samples,
        model=str(getattr(settings, "model", "")),
        held=held,
        legal=tuple(questions[0].config.choices or ()),
        speed=provider.speed if local else None,
    )
    return _priced(made, settings, config, local)


def _priced(arm: Arm, settings: Any, config: RunConfig, local: bool) -> Arm:
    """The arm with its costs: by the ledger where the engine has a price, else by the machine it runs on."""
    from distill import costs

    price = costs.price_of(settings)
    if price is not None:
        return replace(arm, costs=billed(arm.samples), price=price_facts(price), cost_source=f"{price}; {price.source}")
    serving = config.eval.serving if local else config.eval.teacher_serving
    if serving is None or serving.eur_per_hour is None:
        return replace(arm, cost_source="unknown: no price and no eval.serving.eur_per_hour")
    source = f"{serving.eur_per_hour:g} EUR/h, {100 * serving.utilisation:g} % utilised"
    return replace(
        arm,
        costs=self_hosted(arm.samples, arm.speed, serving),
        cost_source=source + (f"; {serving.source}" if serving.source else ""),
    )


def price_facts(price: Any) -> dict[str, Any]:
    """EUR per million tokens of a dated price."""
    return {"input": price.input / 1e9, "output": price.output / 1e9, "as_of": str(price.as_of)}


def _sample(question: Exam, outcome: Outcome) -> Sample:
    """One record. A truncated answer is read as far as it goes; any other broken one is empty and wrong."""
    completion, item = outcome.completion, question.item
    usable = completion.reject in ("", "truncated")
    text = completion.text if usable else ""
    logprobs = completion.logprobs.logprobs if completion.logprobs else ()
    return Sample(
        id=item.id,
        task=question.config.title,
        cluster=item.cluster,
        lang=item.lang,
        gold=question.module.gold_text(item),
        prompt=question.request.messages[-1].content,
        text=text,
        predicted=question.module.normal(text, question.config),
        correct=question.module.score(item, text, question.config) if usable else 0.0,
        prompt_tokens=completion.usage.prompt,
        completion_tokens=completion.usage.completion,
        cached_tokens=completion.usage.cached,
        latency_s=outcome.latency_s,
        finish=completion.finish,
        reject=completion.reject,
        request_key=outcome.key,
        cost_nano=outcome.cost_nano,
        confidence=min(1.0, math.exp(sum(logprobs) / len(logprobs))) if logprobs else None,
    )


def humble(config: RunConfig, folder: RunFolder, questions: Sequence[Exam]) -> list[Arm]:
    """The baseline on the teacher's labels, and on the gold labels of the same rows where they have them."""
    tasks = {q.config.title: q.config for q in questions}
    if len(tasks) != 1 or any(not t.choices for t in tasks.values()):
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
        held=True,
        legal=tuple(questions[0].config.choices or ()),
        speed=speed,
        costs=self_hosted(samples, speed, serving),
        cost_source=f"{serving.eur_per_hour:g} EUR/h" if serving.eur_per_hour is not None else "unknown",
    )
