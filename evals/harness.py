"""Tasks of lm-evaluation-harness put to our systems: its prompts, filters and metrics over our engines and our store.

Generation works with every engine; log-likelihoods with one that has its weights and tokenizer in this process.
Answers are kept and paid once like all others, and come back with tokens, cost and latency, which the harness lacks.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from distill import plugins
from distill.errors import ConfigError, MissingDependency
from distill.progress import say
from distill.providers._base import Context
from distill.records import Message, Request, Sampling
from evals import foreign, samples
from evals.asking import charged

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from distill.query.ask import Outcome
    from distill.query.store import Store
    from evals.analysis import Arm
    from evals.asking import Desk
    from evals.samples import Sample

LONGEST = 256


@dataclass(frozen=True)
class Plan:
    """Which tasks, and how many documents of each (None = all)."""

    names: tuple[str, ...]
    folder: Path | None = None
    """Folder of task files of one's own."""
    limit: int | None = None


def ask(arm: Arm, settings: Any, plan: Plan, store: Store, desk: Desk) -> Arm:
    """``arm`` with its answers to the documents of every task."""
    try:
        from lm_eval import simple_evaluate
        from lm_eval.tasks import TaskManager
    except ImportError:
        raise MissingDependency("lm_eval", "--lm-eval", "lm-eval") from None
    provider = plugins.load("distill.providers", settings.kind).build(settings, Context(folder=desk.folder))
    model = bridge(provider, settings, store, desk, arm.name)
    try:
        found = simple_evaluate(
            model=model,
            tasks=list(plan.names),
            task_manager=TaskManager(
                include_path=str(plan.folder) if plan.folder else None, include_defaults=plan.folder is None
            ),
            limit=plan.limit,
            apply_chat_template=True,
            log_samples=True,
            bootstrap_iters=0,
        )
    except KeyError as error:
        raise ConfigError(f"lm-eval knows no task {error}", where="--lm-eval", next="lm-eval ls tasks") from None
    finally:
        provider.close()
    rows: list[Sample] = []
    for task, logged in found["samples"].items():
        rows += _rows(task, logged, model.asked)
    return replace(arm, samples=rows, model=str(getattr(settings, "model", "")))


def _rows(task: str, logged: list[dict[str, Any]], asked: dict[str, Outcome]) -> list[Sample]:
    """The logged documents of a task as samples, with what their answers took where one answer belongs to one."""
    found = []
    for number, row in enumerate(foreign.translated(logged, task), start=1):
        sample = samples.sample_of(row, f"{task}, document {number}", task)
        outcome = asked.get(sample.prompt)
        if outcome is not None:
            usage, reject = outcome.completion.usage, outcome.completion.reject
            usable = reject in ("", "truncated")
            sample = replace(
                sample,
                prompt_tokens=usage.prompt,
                completion_tokens=usage.completion,
                latency_s=outcome.latency_s,
                cost_nano=outcome.cost_nano,
                request_key=outcome.key,
                reject=reject,
                correct=sample.correct if usable else 0.0,
            )
        found.append(sample)
    return found


def bridge(provider: Any, settings: Any, store: Store, desk: Desk, title: str) -> Any:
    """Our provider as the harness's `LM`. ``asked``: prompt -> outcome of what was generated."""
    from lm_eval.api.model import LM

    class Bridge(LM):
        def __init__(self) -> None:
            super().__init__()
            self.asked: dict[str, Outcome] = {}

        @property
        def tokenizer_name(self) -> str:
            """Name under which the harness keeps rendered prompts."""
            return str(getattr(settings, "model", settings.kind))

        def chat_template(self, chat_template: Any = False) -> str:
            """The engine's own template is used when a request is read."""
            return "alambic"

        def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
            """The turns as text; they are read back when they are asked."""
            del add_generation_prompt
            return json.dumps(chat_history, ensure_ascii=False)

        def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
            """The answers, cut at the task's own marks; a broken one is empty."""
            from distill import costs
            from distill.query.ask import ask_all

            del disable_tqdm
            made = [_request(*instance.args) for instance in requests]
            price, cap = costs.price_of(settings), desk.max_cost_eur
            outcomes = ask_all(provider, made, store, title=f"eval {title}", price=price, max_cost_eur=cap)
            outcomes = charged(outcomes, store, price)
            self.asked |= {instance.args[0]: outcome for instance, outcome in zip(requests, outcomes, strict=True)}
            texts = [o.completion.text if o.completion.reject in ("", "truncated") else "" for o in outcomes]
            return [_cut(text, r.sampling.stop) for text, r in zip(texts, made, strict=True)]

        def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
            """Of each continuation, without the end of the turn, as the harness counts."""
            del disable_tqdm
            if not hasattr(provider, "likelihoods"):
                raise ConfigError(
                    f"{title} gives no log-likelihood of a given answer",
                    where="--lm-eval",
                    next="a task that generates, or a model of kind: transformers",
                )
            say(f"eval {title}: {len(requests)} log-likelihoods")
            pairs = [_pair(provider.tokenizer, *instance.args) for instance in requests]
            return [
                (sum(one.logprobs_T), one.top_ids_TK[:, 0].tolist() == answer)
                for (_, answer), one in zip(pairs, provider.likelihoods(pairs), strict=True)
            ]

        def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
            """Not offered: a chat model's own measure is the task `perplexity`."""
            raise ConfigError("perplexity tasks of lm-eval are not asked", next="kind: perplexity in a suite")

    return Bridge()


def _turns(context: str) -> tuple[Message, ...]:
    """The turns that `apply_chat_template` wrote down, or one of the user."""
    try:
        found = json.loads(context)
        return tuple(Message(turn["role"], turn["content"]) for turn in found)
    except (ValueError, TypeError, KeyError):
        return (Message("user", context),)


def _request(context: str, settings: dict[str, Any]) -> Request:
    until = settings.get("until") or ()
    stop = (until,) if isinstance(until, str) else tuple(until)
    longest = int(settings.get("max_gen_toks") or LONGEST)
    # A chat model ends its turn itself, and a server's list of stops is short: the cut is made here as well.
    return Request(_turns(context), Sampling(max_new_tokens=longest, stop=stop[:4]))


def _cut(text: str, stops: Sequence[str]) -> str:
    places = [place for stop in stops if stop and (place := text.find(stop)) >= 0]
    return text[: min(places)] if places else text


def _pair(tokenizer: Any, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """(context, continuation) as ids: the chat and the beginning of an answer."""
    from distill import models

    head = models.encode_chat(tokenizer, _turns(context))
    return head, list(tokenizer.encode(continuation.lstrip(), add_special_tokens=False))
