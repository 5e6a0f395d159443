"""Put the same questions to a model, through the durable store: a killed evaluation asks nothing twice.

An answer that is missing or broken counts as wrong and is counted; an unknown price stays unknown.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from distill import plugins
from distill.errors import ConfigError
from distill.providers._base import Context
from evals import consistency, likelihood
from evals.confidence import mean_probability
from evals.economics import billed, machine_price, self_hosted
from evals.meter import is_here
from evals.samples import Sample
from evals.tasks._base import completed, select, sliced
from evals.timing import Timed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from distill.config import Prompts, Serving
    from distill.query.ask import Outcome
    from distill.query.store import Store
    from distill.records import Request
    from evals.analysis import Arm
    from evals.meter import Meter
    from evals.tasks._base import Item, TaskConfig, TaskModule


@dataclass(frozen=True)
class Exam:
    """One item of one task, and what is asked."""

    module: TaskModule
    config: TaskConfig
    item: Item
    request: Request


@dataclass(frozen=True)
class Desk:
    """Where an evaluation works, and what it may spend."""

    folder: Path
    """Relative paths of settings start here."""
    speeds: Path
    """File that keeps measured speeds."""
    max_cost_eur: float
    serving: Serving
    """The machine this process runs on."""
    remote: Serving | None = None
    """The machine of a self-hosted server."""
    meter: Meter | None = None
    """This machine's energy counters, where electricity is wanted."""
    judging: dict[str, bool] = field(default_factory=dict)
    """Request key of every question to a judge -> whether it is billed by tokens."""


def exams(
    tasks: Sequence[plugins.PluginConfig], prompts: Prompts, max_new_tokens: int, folder: Path, seed: int
) -> list[Exam]:
    """Everything that is asked, in a fixed order."""
    from distill.prompts import locate

    found: list[Exam] = []
    for raw in tasks:
        module = cast("TaskModule", plugins.load("evals.tasks", raw.kind))
        task = completed(cast("TaskConfig", raw), prompts, max_new_tokens)
        path = locate(task.path, lambda name: (folder / name).expanduser().resolve())
        items = select(module.examples(task, path), task, seed)
        found += [Exam(module, task, item, module.prompt(item, task)) for item in items]
    return found


def ask(
    arm: Arm,
    settings: Any,
    questions: Sequence[Exam],
    store: Store,
    desk: Desk,
    *,
    held: bool,
    confidence: bool = False,
    votes: int = 0,
) -> Arm:
    """``arm`` with the model's answers, its speed and its costs.

    ``held``: to the legal answers, where the engine can. ``confidence``: ask for log-probabilities, where it can.
    ``votes``: so many further answers are drawn to each item, for what most of them say.
    """
    from distill import costs
    from distill.query.ask import ask_all

    module = plugins.load("distill.providers", settings.kind)
    meter = desk.meter if is_here(settings) else None
    provider = Timed(module.build(settings, Context(folder=desk.folder)), desk.speeds, arm.name, held, meter)
    try:
        written = [q for q in questions if not q.config.read_only]
        given = [q for q in questions if q.config.read_only]
        read, readings = likelihood.read(provider, arm.name, given) if given else ([], {})
        requests = requests_for(arm.name, written, provider, held, confidence)
        price = costs.price_of(settings)
        title = f"eval {arm.name}"
        outcomes = ask_all(provider, requests, store, title=title, price=price, max_cost_eur=desk.max_cost_eur)
        outcomes = charged(outcomes, store, price)
        ballots = consistency.drawn(requests, votes)
        polled = _polled(provider.plain, ballots, store, title, price, desk.max_cost_eur) if votes else []
    finally:
        provider.close()
    answered = replace(
        arm,
        samples=[*(_sample(q, o) for q, o in zip(written, outcomes, strict=True)), *read],
        readings=readings,
        model=arm.model or str(getattr(settings, "model", "")),
        held=any(r.choices for r in requests),
        legal=shared_choices(questions),
        speed=provider.speed,
        count=counter(provider),
        spent=provider.spent,
    )
    discount = price.batch_discount or 0.0 if price is not None and getattr(settings, "batch", False) else 0.0
    serving = desk.serving if settings.kind == "transformers" else desk.remote
    if votes:
        answered = _voted(answered, written, polled, votes, price, serving)
    return _priced(answered, price, serving, 1 - discount)


def _polled(
    provider: Any, ballots: Sequence[Request], store: Store, title: str, price: Any, max_cost_eur: float
) -> list[Outcome]:
    """The drawn answers, in none of the arm's measures."""
    from distill.query.ask import ask_all

    found = ask_all(provider, ballots, store, title=f"{title}, votes", price=price, max_cost_eur=max_cost_eur)
    return charged(found, store, price)


def _voted(arm: Arm, questions: Sequence[Exam], polled: Sequence[Outcome], votes: int, price: Any, serving: Any) -> Arm:
    """The arm with what most of its drawn answers say, and what all of them cost."""
    each = [_sample(questions[n // votes], outcome) for n, outcome in enumerate(polled)]
    costs = _priced(replace(arm, samples=each), price, serving).costs
    keys = tuple(outcome.key for outcome in polled)
    return replace(
        arm, voted=consistency.tallied(each, votes), voted_costs=consistency.per_item(costs, votes), ballots=keys
    )


def counter(provider: Any) -> Callable[[str], int] | None:
    """Tokens of a text by the engine's own tokenizer; None where it is not here."""
    tokenizer = getattr(provider, "tokenizer", None)
    if tokenizer is None:
        return None
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False))


def charged(outcomes: Sequence[Outcome], store: Store, price: Any) -> list[Outcome]:
    """The outcomes at what all their sends were charged: repeated ones, and those without an answer.

    Without a price they stay as they are. A request whose sends all did no work cost nothing.
    """
    if price is None:
        return list(outcomes)
    charges = store.charges()
    return [replace(outcome, cost_nano=charges.get(outcome.key, 0)) for outcome in outcomes]


def requests_for(arm: str, questions: Sequence[Exam], provider: Any, held: bool, confidence: bool) -> list[Request]:
    """What is asked, as far as the engine can do it."""
    able = provider.capabilities
    for question in questions:
        if question.config.always_held and not able.choices:
            raise ConfigError(
                f"{arm} cannot be held to the options",
                where=question.config.title,
                next="by: letter asks for the letter, which any engine can write",
            )
    top = 1 if confidence and able.top_logprobs else 0
    return [
        replace(
            q.request,
            choices=q.request.choices if (held or q.config.always_held) and able.choices else (),
            top_logprobs=top,
        )
        for q in questions
    ]


def shared_choices(questions: Sequence[Exam]) -> tuple[str, ...]:
    """The legal answers, where every question has the same."""
    sets = {q.request.choices for q in questions}
    return sets.pop() if len(sets) == 1 else ()


def _priced(arm: Arm, price: Any, serving: Serving | None, kept: float = 1.0) -> Arm:
    """The arm with its costs: by the ledger where the engine has a price, else by the machine it runs on.

    ``kept``: the share of the listed price that is left when it is asked in batches.
    """
    if price is not None:
        # nano-EUR per million tokens, as EUR.
        facts = {"input": kept * price.input / 1e9, "output": kept * price.output / 1e9, "as_of": str(price.as_of)}
        return replace(arm, costs=billed(arm.samples), price=facts, cost_source=f"{price}; {price.source}")
    if serving is None or serving.eur_per_hour is None:
        return replace(arm, cost_source="no price is known", machine=serving)
    costs = self_hosted(arm.samples, arm.speed, serving)
    return replace(arm, costs=costs, cost_source=machine_price(serving), machine=serving)


def _sample(question: Exam, outcome: Outcome) -> Sample:
    """One record. A truncated answer is read as far as it goes; any other broken one is empty and wrong."""
    completion, item = outcome.completion, question.item
    usable = completion.reject in ("", "truncated")
    text = completion.text if usable else ""
    logprobs = completion.logprobs.logprobs if completion.logprobs else None
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
        confidence=mean_probability(logprobs),
        slices=sliced(item, question.config),
    )
