"""Requests in, answers out: each distinct request is asked once, paid once, and committed before it is used.

The seam is ``provider.ask``: one send of one batch, no retries. What leaves when is decided in flow.py, how hard
the teacher is asked in pressure.py, what becomes of answers and failures in results.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
from typing import TYPE_CHECKING, Any

from distill.errors import ConfigError
from distill.progress import progress, say
from distill.query import batch_jobs, ledger, probe
from distill.query.batch import BatchQuery, endpoint_of
from distill.query.flow import Query
from distill.query.items import Item, Outcome
from distill.query.keys import Account
from distill.query.pressure import Policy

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable, Iterator, Sequence

    from distill.costs import Price
    from distill.progress import Progress
    from distill.providers._base import Provider
    from distill.query.results import Results
    from distill.query.store import Store
    from distill.records import Request

__all__ = ["Outcome", "Policy", "ask_all", "check"]


def ask_all(
    provider: Provider,
    requests: Sequence[Request],
    store: Store,
    *,
    title: str,
    price: Price | None = None,
    max_cost_eur: float = 0.0,
    policy: Policy | None = None,
) -> list[Outcome]:
    """One outcome for each request, in order. What is committed is not asked again; the rest is asked now.

    Raises BudgetReached, TeacherRefused, TeacherUnavailable, OutOfMemory, DiskProblem, Preempted, Interrupted:
    all of them after what was in flight is committed, and all go on with the same command.
    """
    config = config_of(provider)
    identity = provider.identity()
    items: dict[str, Item] = {}
    keys: list[str] = []
    for request in requests:
        canonical = request.canonical(identity)
        key = hashlib.sha256(canonical).hexdigest()  # request.key(), without encoding the request twice
        keys.append(key)
        if key not in items:
            items[key] = Item(key, request, canonical)
    run = Query(provider, store, price, policy or Policy.of(config), getattr(config, "concurrency", 1))
    done = run.results.committed(items)
    pending = [item for key, item in items.items() if key not in done]
    if pending:
        check(provider, [item.request for item in pending], price, max_cost_eur)
        if price is not None:
            store.set_cap(ledger.nano(max_cost_eur), Account.of(config))
        with progress(title, len(items), "answers") as bar:
            bar.resume_at(len(done))
            with _rare_collections():
                parts = asyncio.run(_asked(run, pending, bar))
        for results in parts:
            _report(title, "sends without an answer", results.faults)
            if len(results.models) > 1:
                _report(title, "answers of several models", results.models)
            _report(title, "answers that cannot be used", results.rejects)
            done |= results.outcomes
    return _in_order(keys, done)


@contextlib.contextmanager
def _rare_collections() -> Iterator[None]:
    """Leave the requests alone in the search for garbage: looking at all of them again took a tenth of the work."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


async def _asked(run: Query, pending: list[Item], bar: Progress) -> list[Results]:
    """Ask ``pending``: in batches where the teacher is set so, after what an earlier run left open in batches."""
    parts = []
    wanted = [item.request for item in pending]
    if probe.wants_more_than_text(run.provider, wanted):
        try:
            probe.refuse(await probe.abilities(run.provider, run.store, run.price), run.provider, wanted)
        finally:
            await run.provider.aclose()  # type: ignore[attr-defined]
    if hasattr(run.provider, "batches"):
        submit = bool(getattr(config_of(run.provider), "batch", False))
        jobs = await run.store.write(lambda c: batch_jobs.open_jobs(c, endpoint_of(run.provider)))
        if submit or jobs:
            batch = BatchQuery(run.provider, run.store, run.price, run.policy, submit=submit)
            batch.results.models = run.results.models
            await batch.ask(pending, bar)
            parts.append(batch.results)
            pending = [item for item in pending if item.key not in batch.results.outcomes]
    if pending:
        await run.ask(pending, bar)
        parts.append(run.results)
    return parts


def check(provider: Provider, requests: Iterable[Request], price: Price | None, max_cost_eur: float) -> None:
    """Refuse, before anything is sent, what cannot be paid for or cannot be done. Raises ConfigError."""
    able = provider.capabilities
    model = getattr(config_of(provider), "model", "")
    if able.paid and price is None:
        raise ConfigError(
            f"no dated price is known for {model!r}, so its cost cannot be capped",
            where="teacher.price",
            next="distill catalog prices lists what is known, or state `price: {input:, output:, as_of:}`",
        )
    if price is not None and not max_cost_eur > 0:
        raise ConfigError(
            f"{model!r} is paid and no cap is set",
            where="generate.max_cost_eur",
            next="distill plan estimates the cost; then set generate.max_cost_eur",
        )
    for request in requests:
        if request.top_logprobs > able.top_logprobs:
            raise ConfigError(
                f"{model!r} returns at most {able.top_logprobs} log-probabilities per token,"
                f" {request.top_logprobs} are wanted",
                where="teacher",
                next="lower generate.signals_top_k or use another teacher",
            )


def config_of(provider: Provider) -> Any:
    """The provider's settings, where it has any."""
    return getattr(provider, "config", None)


def _in_order(keys: list[str], outcomes: dict[str, Outcome]) -> list[Outcome]:
    seen: set[str] = set()
    result = []
    for key in keys:
        outcome = outcomes[key]
        if key in seen and not outcome.cached:
            outcome = Outcome(key, outcome.completion, outcome.cost_nano, outcome.latency_s, True)
        seen.add(key)
        result.append(outcome)
    return result


def _report(title: str, what: str, counts: Counter[str]) -> None:
    if counts:
        say(f"{title}: {what}: " + ", ".join(f"{count} {reason}" for reason, count in counts.most_common()))
