"""Requests in, answers out: each distinct request is asked once, paid once, and committed before it is used.

The seam is ``provider.ask`` (one send of one batch, no retries). Everything that decides is here and in
pressure.py: what is still to be asked, whether it fits the budget, when it leaves, and whether it is repeated.

::

    pending --reserve (durable)--> ready --lane--> in flight --+-- answer --commit--> done
       ^                                                       `-- none ----commit--> pending again, or given up
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from distill.errors import (
    BudgetReached,
    ConfigError,
    DistillError,
    OutOfMemory,
    Refused,
    TeacherRefused,
    TeacherUnavailable,
)
from distill.progress import Progress, progress, say
from distill.providers._base import NoAnswer
from distill.query import ledger
from distill.query.attempts import Plan, Received
from distill.query.pressure import Lane, Policy
from distill.query.stop import Stop
from distill.records import Completion

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from distill.costs import Price
    from distill.providers._base import Provider
    from distill.query.store import Store
    from distill.records import Answer, Request

# Bytes that are no answer at all: paid, kept, and asked again while attempts are left.
UNREADABLE = frozenset({"error_body", "html", "not_json", "not_an_object", "no_choices", "parser_error"})
AHEAD = 64  # most batches reserved before they can leave
REFUSED_AT_START = 10  # that many permanent failures before the first answer: the request itself is wrong


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one request. ``completion.reject`` is empty, or the typed reason why it cannot be used.

    ``cost_nano``: what was paid for it, whenever that was; None = no price known. ``cached``: not asked just now.
    """

    key: str
    completion: Completion
    cost_nano: int | None
    latency_s: float | None
    cached: bool


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
    config = getattr(provider, "config", None)
    identity = provider.identity()
    items: dict[str, Item] = {}
    keys: list[str] = []
    for request in requests:
        canonical = request.canonical(identity)
        key = request.key(identity)
        keys.append(key)
        if key not in items:
            items[key] = Item(key, request, canonical)
    run = Query(provider, store, price, policy or Policy.of(config), getattr(config, "concurrency", 1))
    done = run.committed(items)
    pending = [item for key, item in items.items() if key not in done]
    if pending:
        check(provider, [item.request for item in pending], price, max_cost_eur)
        if price is not None:
            store.set_cap(ledger.nano(max_cost_eur))
        with progress(title, len(items), "answers") as bar:
            bar.resume_at(len(done))
            asyncio.run(run.ask(pending, bar))
        if run.reasons:
            say(f"{title}: " + ", ".join(f"{count} {reason}" for reason, count in run.reasons.most_common()))
    return _in_order(keys, done | run.outcomes)


def check(provider: Provider, requests: Iterable[Request], price: Price | None, max_cost_eur: float) -> None:
    """Refuse, before anything is sent, what cannot be paid for or cannot be done. Raises ConfigError."""
    able = provider.capabilities
    model = getattr(getattr(provider, "config", None), "model", "")
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


async def _wait(event: asyncio.Event, seconds: float | None) -> None:
    """Until ``event`` is set from now on, at most ``seconds``."""
    event.clear()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


@dataclass(slots=True)
class Item:
    """A request on its way."""

    key: str
    request: Request
    canonical: bytes
    worst: int | None = None
    attempts: int = 0
    """Sends that used up the attempt budget."""
    uncertain: int = 0
    started: float | None = None
    paused_s: float = 0.0
    """The lane's pauses before the first send: they do not count against the deadline."""
    stored: Outcome | None = None
    """An unreadable answer that is kept if nothing better comes."""


@dataclass(slots=True)
class Batch:
    """Items that leave together, and the attempts reserved for them."""

    items: list[Item]
    attempts: list[int] = field(default_factory=list)


class Query:
    """One ``ask_all``: its queues, its lane, and why it ends."""

    def __init__(self, provider: Provider, store: Store, price: Price | None, policy: Policy, concurrency: int):
        self.provider, self.store, self.price, self.policy = provider, store, price, policy
        self.lane = Lane(concurrency, policy)
        self.outcomes: dict[str, Outcome] = {}
        self.reasons: Counter[str] = Counter()
        self.ending: BaseException | None = None
        self.batch_size = max(1, provider.batch_size)
        self._pending: deque[Batch] = deque()
        self._later: list[tuple[float, int, Batch]] = []
        self._ready: deque[Batch] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._busy = 0  # batches taken from a queue and not yet given back, done or given up
        self._split = False
        self._refused = 0
        self._answers = 0
        self._spent = 0
        self._full = False  # the budget refused a reservation; cleared when one is settled

    # -- before ---------------------------------------------------------------------------------------------

    def committed(self, items: dict[str, Item]) -> dict[str, Outcome]:
        """Outcomes of what the store already holds. Unreadable answers with attempts left are asked again."""
        done: dict[str, Outcome] = {}
        for key, answer in self.store.get_many(items).items():
            outcome = Outcome(key, self._parse(answer.raw), answer.cost_nano, answer.latency_s, True)
            if outcome.completion.reject in UNREADABLE and answer.answers < self.policy.max_attempts:
                items[key].attempts, items[key].stored = answer.answers, outcome
            else:
                done[key] = outcome
        return done

    def _batches(self, items: list[Item]) -> list[Batch]:
        """Batches of like requests; for engines in this process longest first, so that too big shows at once."""
        if self.batch_size == 1:
            return [Batch([item]) for item in items]
        kinds: dict[Any, list[Item]] = {}
        for item in items:
            request = item.request
            kinds.setdefault((request.sampling, request.choices, request.top_logprobs), []).append(item)
        batches = []
        for alike in kinds.values():
            alike.sort(key=lambda item: -sum(len(message.content) for message in item.request.messages))
            batches += [
                Batch(alike[start : start + self.batch_size]) for start in range(0, len(alike), self.batch_size)
            ]
        return batches

    # -- the loop ---------------------------------------------------------------------------------------------

    async def ask(self, items: list[Item], bar: Progress) -> None:
        """Ask ``items`` until all are done, or raise why not."""
        self.bar = bar
        if self.price is not None:
            from distill.costs import worst_case_nano

            for item in items:
                item.worst = worst_case_nano(item.request, self.price)
        self._pending.extend(self._batches(items))
        self._wake, self._fed = asyncio.Event(), asyncio.Event()
        with Stop(self._stop) as self.stop:
            feeder = asyncio.create_task(self._feed())
            try:
                await self._dispatch()
            finally:
                feeder.cancel()
                await asyncio.gather(feeder, return_exceptions=True)
                await self._finish()
                if (aclose := getattr(self.provider, "aclose", None)) is not None:
                    await aclose()
        if self.ending is not None:
            raise self.ending

    def _stop(self, why: BaseException) -> None:
        """No more calls leave. The first reason is the one that is told."""
        if self.ending is None:
            self.ending = why
        self._wake.set()

    def _over(self) -> bool:
        return self.ending is not None or not (self._busy or self._pending or self._later or self._ready or self._tasks)

    async def _feed(self) -> None:
        """Reserve what leaves next, some batches ahead, so that a commit never delays a call."""
        while self.ending is None:
            ahead = min(AHEAD, max(1, int(self.lane.limit) // 4)) if self.batch_size == 1 else 1
            now = time.monotonic()
            while self._later and self._later[0][0] <= now:
                self._pending.appendleft(heapq.heappop(self._later)[2])
            if len(self._ready) >= ahead or not self._pending or self._full:
                due = self._later[0][0] - now if self._later and len(self._ready) < ahead else None
                await _wait(self._fed, due)
                continue
            await self._reserve(ahead)

    async def _reserve(self, most: int) -> None:
        taken = [self._pending.popleft() for _ in range(min(most, len(self._pending)))]
        self._busy += len(taken)
        plans = [[Plan(item.key, item.canonical, item.worst) for item in batch.items] for batch in taken]
        try:
            granted = await self.store.reserve(plans)
        except Exception as error:
            self._stop(error)
            return
        finally:
            self._busy -= len(taken)
        for batch, attempts in zip(taken, granted, strict=False):
            batch.attempts = attempts
            self._ready.append(batch)
        if refused := taken[len(granted) :]:
            self._pending.extendleft(reversed(refused))
            self._full = True
            if not self._ready and not self._tasks:
                self._stop(self._budget_reached())
        self._wake.set()

    async def _dispatch(self) -> None:
        """Let ready batches leave as the lane allows."""
        while not self._over():
            now = time.monotonic()
            if self.lane.gone(now):
                self._stop(self._unavailable(f"no answer for {self.lane.silent_s(now):.0f} s"))
                break
            wait = self.lane.wait_s(now) if self._ready else None
            if not self._ready or wait != 0.0:
                await _wait(self._wake, wait)
                continue
            batch = self._ready.popleft()
            self._fed.set()
            self.lane.leave()
            task = asyncio.create_task(self._call(batch))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._stop(error)
        self._full = False
        self._fed.set()
        self._wake.set()

    async def _finish(self) -> None:
        """Wait for calls in flight (after a signal: as long as the grace lasts), free what did not leave."""
        if self._tasks:
            grace = self.policy.grace_s if self.ending is not None else None
            await self.stop.wait(self._tasks, grace)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        unsent = [attempt for batch in self._ready for attempt in batch.attempts]
        if unsent:
            try:
                await self.store.release(unsent, "not_sent")
            except DistillError as error:
                self._stop(error)

    # -- one batch ------------------------------------------------------------------------------------------

    async def _call(self, batch: Batch) -> None:
        """Send a batch once and commit what came of it."""
        started = time.monotonic()
        for item in batch.items:
            if item.started is None:
                item.started, item.paused_s = started, self.lane.paused_s
        try:
            try:
                async with asyncio.timeout(self._time_left(batch, started)):
                    answers = await self.provider.ask([item.request for item in batch.items])
                self._check_count(batch, answers)
            finally:
                self.lane.back()
                self._wake.set()
        except NoAnswer as failure:
            await self._no_answer(batch, failure)
        except TimeoutError:
            await self._no_answer(batch, NoAnswer("timeout"))
        except (TeacherRefused, Refused) as refusal:
            self._stop(refusal)  # before the commit: nothing more leaves while it is written
            await self.store.release(batch.attempts, "refused")
        except TeacherUnavailable as error:
            await self._no_answer(batch, NoAnswer("unavailable", detail=str(error)))
        except OutOfMemory as error:
            await self._too_big(batch, error)
        except BaseException as error:
            # Cancelled at the end of the grace, or a fault in the provider: it was sent, nobody knows the bill.
            cancelled = isinstance(error, asyncio.CancelledError)
            await asyncio.shield(self.store.uncertain(batch.attempts, "cancelled" if cancelled else "provider_fault"))
            raise
        else:
            await self._answered(batch, answers)

    def _check_count(self, batch: Batch, answers: list[Answer]) -> None:
        if len(answers) != len(batch.items):
            kind = self.provider.identity().get("kind")
            raise RuntimeError(f"provider {kind} gave {len(answers)} answers to {len(batch.items)} requests")

    def _time_left(self, batch: Batch, now: float) -> float | None:
        limits = [] if self.policy.timeout_s is None else [self.policy.timeout_s]
        if self.policy.deadline_s is not None:
            limits += [self.policy.deadline_s - self._age(item, now) for item in batch.items]
        return max(0.0, min(limits)) if limits else None

    def _age(self, item: Item, now: float) -> float:
        return now - (item.started or now) - (self.lane.paused_s - item.paused_s)

    async def _answered(self, batch: Batch, answers: list[Answer]) -> None:
        """Commit raw bytes and bill in one transaction, then use them."""
        completions = [self._parse(answer.raw) for answer in answers]
        costs = [self._charge(item, completion) for item, completion in zip(batch.items, completions, strict=True)]
        await self.store.settle(
            [
                Received(attempt, answer.raw, answer.status, answer.latency_s, cost, answer.request_id)
                for attempt, answer, cost in zip(batch.attempts, answers, costs, strict=True)
            ]
        )
        self.lane.told(getattr(self.provider, "pace", None), time.monotonic())
        for item, completion, answer, cost in zip(batch.items, completions, answers, costs, strict=True):
            self._spent += cost or 0
            self._answers += 1
            self.lane.answered(not completion.reject)
            before = item.stored.cost_nano or 0 if item.stored else 0
            total = None if cost is None else cost + before
            outcome = Outcome(item.key, completion, total, answer.latency_s, False)
            if completion.reject in UNREADABLE:
                item.stored = outcome
                item.attempts += 1
                self._again(item, completion.reject)
            else:
                self._done(item, outcome)
        self._judge()

    def _charge(self, item: Item, completion: Completion) -> int | None:
        """What the answer cost. A usage that is absent, or more than the request can hold, is charged at worst case."""
        if self.price is None or item.worst is None:
            return None
        from distill.costs import cost_nano

        usage = completion.usage
        if usage.prompt <= 0 or (completion.text and usage.completion <= 0):
            return item.worst
        cost = cost_nano(usage, self.price)
        if cost > item.worst:
            self.reasons["usage_too_large"] += 1
        return min(cost, item.worst)

    def _parse(self, raw: bytes) -> Completion:
        try:
            return self.provider.parse(raw)
        except Exception:
            return Completion("", "error", reject="parser_error")

    async def _no_answer(self, batch: Batch, failure: NoAnswer) -> None:
        """Account for a send without an answer, and repeat it where that is allowed."""
        now = time.monotonic()
        self.reasons[failure.reason] += len(batch.items)
        self.lane.told(getattr(self.provider, "pace", None), now)
        # First the lane, then the commit: nothing more leaves to a teacher that said stop while it is written.
        outage = self._throttled(failure, now) if failure.throttled else self._failed(batch, failure, now)
        if failure.billed is False:
            await self.store.release(batch.attempts, failure.reason, failure.status)
        else:
            await self.store.uncertain(batch.attempts, failure.reason, failure.status)
        if failure.throttled:
            self._put_later(batch.items, self.lane.paused_until)
            return
        for item in batch.items:
            # What an outage does is the lane's failure, not the request's: it costs the request no attempt.
            item.attempts += failure.billed is not False or not outage
            item.uncertain += failure.billed is not False
            self._again(item, failure.reason, failure)

    def _failed(self, batch: Batch, failure: NoAnswer, now: float) -> bool:
        """Tell the lane of a failure; True when the endpoint seems to be down."""
        outage = self.lane.failed(now)
        if failure.permanent and not self._answers:
            self._refused += len(batch.items)
            if self._refused >= REFUSED_AT_START:
                self._stop(TeacherRefused(f"every request is refused: {failure.reason} {failure.detail}".strip()))
        elif failure.billed is not False and self.lane.failures >= self.policy.breaker_failures:
            self._stop(self._unavailable(f"{self.lane.failures} failures in a row, the last: {failure.reason}"))
        return outage

    def _throttled(self, failure: NoAnswer, now: float) -> bool:
        """Too many requests: the lane pauses and the batch waits; no attempt is used up."""
        if (failure.retry_after_s or 0) > self.policy.retry_after_cap_s:
            self._stop(self._unavailable(f"it asks for a pause of {failure.retry_after_s:.0f} s"))
        self.lane.throttle(failure.retry_after_s, now)
        return False

    def _again(self, item: Item, reason: str, failure: NoAnswer | None = None) -> None:
        """Queue another attempt, or give the item up with its reason."""
        now = time.monotonic()
        over = self.policy.deadline_s is not None and self._age(item, now) >= self.policy.deadline_s
        spent = item.attempts >= self.policy.max_attempts or item.uncertain > self.policy.retry_uncertain
        if spent or over or (failure is not None and failure.permanent):
            self._done(
                item, item.stored or Outcome(item.key, Completion("", "error", reject=reason), None, None, False)
            )
            return
        wait = self.policy.backoff(item.attempts)
        if failure is not None and failure.retry_after_s is not None:
            wait = max(wait, min(failure.retry_after_s, self.policy.retry_after_cap_s))
        self._put_later([item], now + wait)

    def _put_later(self, items: list[Item], when: float) -> None:
        heapq.heappush(self._later, (when, id(items), Batch(items)))

    async def _too_big(self, batch: Batch, error: OutOfMemory) -> None:
        """Memory ran out: halve the batches once; if that is not enough, stop."""
        await self.store.release(batch.attempts, "out_of_memory")
        if len(batch.items) == 1 or (self._split and len(batch.items) <= self.batch_size):
            self._stop(error)
            return
        if not self._split:
            self._split = True
            self.batch_size = max(1, self.batch_size // 2)
            say(f"out of memory: going on with {self.batch_size} requests at once")
            waiting = [item for other in self._pending for item in other.items]
            self._pending.clear()
            self._pending.extend(self._batches(waiting))
        for start in range(0, len(batch.items), self.batch_size):
            self._pending.appendleft(Batch(batch.items[start : start + self.batch_size]))

    def _done(self, item: Item, outcome: Outcome) -> None:
        self.outcomes[item.key] = outcome
        if outcome.completion.reject:
            self.reasons[outcome.completion.reject] += 1
        facts: dict[str, object] = {}
        if self.price is not None:
            facts["EUR"] = f"{self._spent / ledger.NANO:.4f}"
        self.bar.advance(1, **facts)

    # -- why it ends ------------------------------------------------------------------------------------------

    def _judge(self) -> None:
        """A paid teacher whose answers cannot be used is not asked further."""
        share = self.lane.unusable()
        if self.price is not None and share > self.policy.breaker_rate:
            common = ", ".join(reason for reason, _ in self.reasons.most_common(2))
            self._stop(self._unavailable(f"{share:.0%} of its last answers are unusable ({common})"))

    def _unavailable(self, what: str) -> TeacherUnavailable:
        return TeacherUnavailable(
            f"the teacher does not answer as it should: {what}",
            safe="every answer received so far",
            next="look at the endpoint, then run the same command",
        )

    def _budget_reached(self) -> BudgetReached:
        book = self.store.totals().balance
        left = len(self._pending) + len(self._later)
        return BudgetReached(
            f"the next call may cost more than is left of {book.cap / ledger.NANO:g} EUR"
            f" (spent {book.spent / ledger.NANO:.6f}, uncertain {book.uncertain / ledger.NANO:.6f},"
            f" {left * self.batch_size} requests to go)",
            safe="every answer received so far",
            next="raise generate.max_cost_eur, then run the same command",
        )
