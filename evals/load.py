"""Latency under load: the evaluation's own items, with a fixed number of requests in flight, level after level.

Stored answers are never used here. A finished level is kept (`eval/load.json`) and not measured again while engine,
machine, settings and items are the same; the objective may change, since every request's timing is kept.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill import costs, plugins
from distill.artifacts import write_json
from distill.errors import BudgetReached, DistillError, TeacherUnavailable
from distill.progress import say
from distill.providers._base import Context
from distill.query.stop import Stop
from distill.records import canonical_json
from evals import asking, load_report
from evals.closed_loop import Client
from evals.load_ledger import Ledger
from evals.load_report import Level
from evals.meter import Window, is_here
from evals.timing import read_object

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from distill.config import Load
    from distill.costs import Price
    from distill.plugins import PluginConfig
    from distill.query.store import Store
    from distill.records import Request
    from evals.analysis import Arm
    from evals.asking import Desk, Exam


@dataclass(frozen=True)
class Subject:
    """A model of the evaluation, as it was asked there."""

    name: str
    settings: PluginConfig
    questions: Sequence[Exam]
    held: bool
    desk: Desk

    def asked(self, arm: Arm, store: Store, *, confidence: bool, votes: int = 0) -> Arm:
        """``arm`` with the answers of this model."""
        who, what, held = self.settings, self.questions, self.held
        return asking.ask(arm, who, what, store, self.desk, held=held, confidence=confidence, votes=votes)


@dataclass(frozen=True)
class Swept:
    """What was measured of one model; concurrencies ascending."""

    name: str
    engine: str
    streamed: bool
    """It was seen when the tokens came."""
    levels: Sequence[Level]


def sweep(load: Load, subjects: Sequence[Subject], store: Store, path: Path, machine: str) -> list[Swept]:
    """Measure every level of every model named in ``load`` (of all, when none is). ``path``: where it is kept.

    Raises TeacherUnavailable (a model answers nothing), TeacherRefused, Preempted, Interrupted; finished levels stay.
    """
    found = []
    for subject in subjects:
        if load.arms and subject.name not in load.arms:
            continue
        price = costs.price_of(subject.settings)
        provider = _built(subject, load)
        try:
            if why := _left_out(subject, provider, price, load):
                say(f"eval load: {subject.name} left out: {why}")
                continue
            levels = _Sweep(load, subject, provider, price, store, path, machine).levels()
        finally:
            provider.close()
        if not levels:
            continue
        found.append(Swept(subject.name, _engine(provider), _is_timed(levels), levels))
    return found


def report(load: Load, swept: Sequence[Swept], subjects: Sequence[Subject]) -> dict[str, Any]:
    """`load` of report.json."""
    arms = []
    for one in swept:
        levels = [load_report.summary(level, load.objective) for level in one.levels]
        best = load_report.best(levels, load.objective.share)
        arms.append({"name": one.name, "engine": one.engine, "streamed": one.streamed, "best": best, "levels": levels})
    prompts = max((len(_written(s)) for s in subjects if s.name in {one.name for one in swept}), default=0)
    return {"objective": load.objective.model_dump(), "prompts": prompts, "arms": arms}


def best_level(load: Load, one: Swept) -> Level | None:
    """The level that the report calls the best."""
    levels = [load_report.summary(level, load.objective) for level in one.levels]
    best = load_report.best(levels, load.objective.share)
    return None if best is None else one.levels[best]


def _written(subject: Subject) -> list[Exam]:
    """Items that are answered by writing."""
    return [q for q in subject.questions if not q.config.read_only]


def _built(subject: Subject, load: Load) -> Any:
    """The provider; an engine in this process takes batches as large as the highest concurrency."""
    settings = subject.settings
    if "batch_size" in type(settings).model_fields:
        settings = settings.model_copy(update={"batch_size": max(load.concurrency)})
    return plugins.load("distill.providers", settings.kind).build(settings, Context(folder=subject.desk.folder))


def _left_out(subject: Subject, provider: Any, price: Price | None, load: Load) -> str:
    """Why a model is not measured; "" when it is."""
    if not _written(subject):
        return "its items are read, not answered"
    if (price is not None or provider.capabilities.paid) and not load.paid:
        return "its calls cost money; load.paid: true measures it, under the cap"
    return ""


def _is_timed(levels: Sequence[Level]) -> bool:
    return any(t.first_s is not None for level in levels for t in level.timings)


def _engine(provider: Any) -> str:
    """What was measured, in words."""
    identity = provider.identity()
    if not Client(provider).batched:
        return f"{identity['kind']} endpoint at {identity.get('base_url', 'this process')}, one request per connection"
    name = identity.get("engine", identity["kind"])
    return f"{name} in this process; in flight = prompts of a batch, whose answers come back together"


class _Sweep:
    """The levels of one model."""

    def __init__(
        self, load: Load, subject: Subject, provider: Any, price: Price | None, store: Store, path: Path, machine: str
    ):
        self.load, self.subject, self.provider, self.price, self.store = load, subject, provider, price, store
        self._path, self._identity, self._machine = path, provider.identity(), machine
        self._requests = asking.requests_for(subject.name, _written(subject), provider, subject.held, False)
        self._client = Client(provider)
        self._next = 0

    def levels(self) -> list[Level]:
        """Kept ones as they are, the others measured; fewer when the budget does not allow them."""
        found = []
        for concurrency in sorted(self.load.concurrency):
            requests = self._take(concurrency)
            mark = self._mark(concurrency, requests)
            level = self._kept(concurrency, mark)
            if level is None:
                try:
                    level = asyncio.run(self._measured(concurrency, requests))
                except BudgetReached as error:
                    say(f"eval load: {self.subject.name} at {concurrency} and above left out: {error}")
                    break
                self._keep(concurrency, mark, level)
                self._tell(level)
            found.append(level)
        return found

    def _take(self, concurrency: int) -> list[Request]:
        """The uncounted round and the counted requests. Items go round: a server may keep what it has just read."""
        size = concurrency if self._client.batched else 1
        count = concurrency + -(-self.load.requests // size) * size
        start, self._next = self._next, self._next + count
        return [self._requests[n % len(self._requests)] for n in range(start, start + count)]

    def _mark(self, concurrency: int, requests: Sequence[Request]) -> str:
        keys = [request.key(self._identity) for request in requests]
        return hashlib.sha256(canonical_json([self._machine, concurrency, keys])).hexdigest()

    async def _measured(self, concurrency: int, requests: list[Request]) -> Level:
        """One level. The first signal lets nothing more leave."""
        work = asyncio.create_task(self._level(concurrency, requests))
        ending: list[DistillError] = []

        def stop(why: DistillError) -> None:
            ending.append(why)
            work.cancel()

        with Stop(stop):
            try:
                return await work
            except asyncio.CancelledError:
                if ending:
                    raise ending[0] from None
                raise

    async def _level(self, concurrency: int, requests: list[Request]) -> Level:
        till = self._ledger(concurrency)
        meter = self.subject.desk.meter if is_here(self.subject.settings) else None
        if meter is not None:
            await asyncio.to_thread(meter.settle)
        try:
            if till is not None:
                await till.reserve(requests)
            await asyncio.to_thread(getattr, self.provider, "vocab", None)  # loads the weights
            self._client.till = till
            warm, _ = await self._client.run(requests[:concurrency], concurrency)
            if all(timing.error for timing in warm):
                raise self._silent(warm[0].error)
            window = Window(meter)
            window.open()
            timings, seconds = await self._client.run(requests[concurrency:], concurrency, concurrency)
            window.answered(sum(not timing.error for timing in timings))
            window.close()
            if all(timing.error for timing in timings):
                raise self._silent(timings[-1].error)
        finally:
            if till is not None:
                await till.settled()
            if (aclose := getattr(self.provider, "aclose", None)) is not None:
                await aclose()
        return Level(concurrency, seconds, timings, window.spent)

    def _ledger(self, concurrency: int) -> Ledger | None:
        if self.price is None:
            return None
        level = {"concurrency": concurrency, "requests": self.load.requests}
        return Ledger(self.provider, self.store, self.price, self.subject.desk.max_cost_eur, level)

    def _silent(self, reason: str) -> TeacherUnavailable:
        return TeacherUnavailable(
            f"{self.subject.name} answers nothing under load ({reason})",
            where="eval.load",
            safe="every answer of the evaluation and every finished level",
            next="look at the endpoint, then run the same command",
        )

    def _tell(self, level: Level) -> None:
        facts = load_report.summary(level, self.load.objective)
        late = f", e2e p95 {facts['e2e']['p95']:.3g} s" if facts["e2e"] else ""
        errors = f", {facts['errors']} errors" if facts["errors"] else ""
        say(
            f"eval load: {self.subject.name}, {level.concurrency} in flight: "
            f"{facts['requests_per_s']:.3g} answers/s{late}{errors}"
        )

    # -- what is kept -----------------------------------------------------------------------------------------

    def _kept(self, concurrency: int, mark: str) -> Level | None:
        entry = read_object(self._path).get(self.subject.name, {}).get(str(concurrency), {})
        try:
            return Level.of(entry["level"]) if entry.get("of") == mark else None
        except (KeyError, TypeError, AttributeError):
            return None

    def _keep(self, concurrency: int, mark: str, level: Level) -> None:
        kept = read_object(self._path)
        kept.setdefault(self.subject.name, {})[str(concurrency)] = {"of": mark, "level": level.as_dict()}
        write_json(self._path, kept)
