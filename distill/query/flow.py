"""The loop: what is reserved, what leaves when, and how it ends.

::

    pending --reserve (durable)--> ready --lane--> in flight --+-- answer --commit--> done
       ^                                                       `-- none ----commit--> pending again, or given up
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from distill.errors import BudgetReached, DistillError, OutOfMemory, Refused, TeacherRefused, TeacherUnavailable
from distill.progress import Progress, say
from distill.providers._base import NoAnswer
from distill.query import ledger
from distill.query.attempts import Plan
from distill.query.items import Batch, Item, batches
from distill.query.pressure import Lane, Policy
from distill.query.results import Results, unavailable
from distill.query.stop import Stop

if TYPE_CHECKING:
    from distill.costs import Price
    from distill.providers._base import Provider
    from distill.query.store import Store
    from distill.records import Answer

AHEAD = 128  # most batches reserved before they can leave


class Query:
    """One ``ask_all``: its queues, its lane, and why it ends."""

    def __init__(self, provider: Provider, store: Store, price: Price | None, policy: Policy, concurrency: int):
        self.provider, self.store, self.price, self.policy = provider, store, price, policy
        self.lane = Lane(concurrency, policy)
        self.results = Results(provider, store, price, policy, self.lane, self._stop, self._put_later)
        self.ending: BaseException | None = None
        self.batch_size = max(1, provider.batch_size)
        self.samples = provider.capabilities.samples if self.batch_size == 1 else 1
        self._pending: deque[Batch] = deque()
        self._later: list[tuple[float, int, Batch]] = []
        self._ready: deque[Batch] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._reserving = self._ends = 0
        self._split = self._closed = False
        self._full = False  # the budget refused a reservation; cleared when a call ended

    async def ask(self, items: list[Item], bar: Progress) -> None:
        """Ask ``items`` until all are done, or raise why not."""
        self.results.bar, self.results.asked = bar, len(items)
        # An API that is asked for more than text first shows with one answer that it can.
        self.lane.scouting = self.batch_size == 1 and any(i.request.top_logprobs or i.request.choices for i in items)
        self._pending.extend(self._weighed(batch) for batch in batches(items, self.batch_size, self.samples))
        self._wake, self._fed = asyncio.Event(), asyncio.Event()
        with Stop(self._stop) as self.stop:
            feeder = asyncio.create_task(self._feed())
            try:
                await self._dispatch()
            finally:
                self._closed = True
                self._fed.set()
                await feeder  # not cancelled: what it is reserving must be released below
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
        return self.ending is not None or not (
            self._reserving or self._pending or self._later or self._ready or self._tasks
        )

    async def _feed(self) -> None:
        """Reserve what leaves next, some batches ahead, so that a commit never delays a call."""
        while self.ending is None and not self._closed:
            ahead = min(AHEAD, max(1, int(self.lane.limit) // 2)) if self.batch_size == 1 else 1
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
        self._reserving, before = len(taken), self._ends
        plans = [[Plan(item.key, item.canonical, item.worst) for item in batch.items] for batch in taken]
        try:
            granted = await self.store.reserve(plans)
        except Exception as error:
            self._stop(error)
            return
        finally:
            self._reserving = 0
        for batch, attempts in zip(taken, granted, strict=False):
            batch.attempts = attempts
            self._ready.append(batch)
        if refused := taken[len(granted) :]:
            self._pending.extendleft(reversed(refused))
            # A call that ended meanwhile may have freed what was missing: then the answer is not the last word.
            self._full = before == self._ends
            if self._full and not self._ready and not self._tasks:
                self._stop(self._budget_reached())
        self._wake.set()

    async def _dispatch(self) -> None:
        """Let ready batches leave as the lane allows."""
        while not self._over():
            now = time.monotonic()
            if self.lane.gone(now):
                self._stop(unavailable(f"no answer for {self.lane.silent_s(now):.0f} s"))
                break
            wait = self.lane.wait_s(now) if self._ready else None
            if not self._ready or wait != 0.0:
                await _wait(self._wake, wait)
                continue
            batch = self._ready.popleft()
            self._fed.set()
            self.lane.leave(now)
            task = asyncio.create_task(self._call(batch))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._stop(error)
        self._ends += 1
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
        scout = self.lane.scouting
        try:
            answers = await self._send(batch, scout)
        except NoAnswer as failure:
            await self.results.no_answer(batch, failure)
        except TimeoutError:
            await self.results.no_answer(batch, NoAnswer("timeout"))
        except (TeacherRefused, Refused) as refusal:
            self._stop(refusal)  # before the commit: nothing more leaves while it is written
            await self.store.release(batch.attempts, "refused")
        except TeacherUnavailable as error:
            await self.results.no_answer(batch, NoAnswer("unavailable", detail=str(error)))
        except OutOfMemory as error:
            await self._too_big(batch, error)
        except BaseException as error:
            # Cancelled at the end of the grace, or a fault in the provider: it was sent, nobody knows the bill.
            cancelled = isinstance(error, asyncio.CancelledError)
            await asyncio.shield(self.store.uncertain(batch.attempts, "cancelled" if cancelled else "provider_fault"))
            raise
        else:
            if len(answers) < len(batch.items):
                batch = await self._too_few(batch, len(answers))
            await self.results.answered(batch, answers)
        finally:
            if scout:  # nothing leaves before its answer is judged
                self._back()

    async def _send(self, batch: Batch, scout: bool) -> list[Answer]:
        """One send, within the time that is left to it."""
        now = time.monotonic()
        for item in batch.items:
            if item.started is None:
                item.started, item.paused_s = now, self.lane.paused_s
        try:
            if (left := self._time_left(batch, now)) == 0.0:
                raise NoAnswer("deadline", billed=False)
            async with asyncio.timeout(left):
                answers = await self.provider.ask([item.request for item in batch.items])
        finally:
            # At once, not after the commit: others wait for room, and must know what the server said is left.
            ended = time.monotonic()
            self.lane.told(getattr(self.provider, "pace", None), ended, ended - now)
            if not scout:
                self._back()
        if not (1 if batch.shared else len(batch.items)) <= len(answers) <= len(batch.items):
            kind = self.provider.identity().get("kind")
            raise RuntimeError(f"provider {kind} gave {len(answers)} answers to {len(batch.items)} requests")
        return answers

    def _back(self) -> None:
        self.lane.back()
        self._wake.set()

    def _time_left(self, batch: Batch, now: float) -> float | None:
        limits = [] if self.policy.timeout_s is None else [self.policy.timeout_s]
        if self.policy.deadline_s is not None:
            limits += [self.policy.deadline_s - self.results.age(item, now) for item in batch.items]
        return max(0.0, min(limits)) if limits else None

    def _put_later(self, items: list[Item], when: float) -> None:
        heapq.heappush(self._later, (when, id(items), self._weighed(Batch(items))))

    def _weighed(self, batch: Batch) -> Batch:
        """The batch, with what each of its requests may cost at most."""
        if self.price is not None:
            from distill.costs import worst_case_nano

            for number, item in enumerate(batch.items):
                item.worst = worst_case_nano(item.request, self.price)
                if batch.shared and number:  # its prompt is paid with the first
                    silent = replace(item.request, sampling=replace(item.request.sampling, max_new_tokens=0))
                    item.worst -= worst_case_nano(silent, self.price) - 1
        return batch

    async def _too_few(self, batch: Batch, count: int) -> Batch:
        """The first ``count`` of samples that were asked together; the others are asked once more, one by one."""
        rest = batch.items[count:]
        self.results.faults["fewer_samples"] += len(rest)
        await self.store.release(batch.attempts[count:], "fewer_samples")
        for item in rest:
            item.attempts += 1
            self.results.again(item, "fewer_samples")
        return Batch(batch.items[:count], batch.attempts[:count], shared=True)

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
            self._pending.extend(batches(waiting, self.batch_size))  # an engine in this process: no price
        for start in range(0, len(batch.items), self.batch_size):
            self._pending.appendleft(Batch(batch.items[start : start + self.batch_size]))

    def _budget_reached(self) -> BudgetReached:
        book = self.store.totals().balance
        left = len(self._pending) + len(self._later)
        key = self.store.account
        worst = sum(item.worst or 0 for item in self._pending[0].items) if self._pending else 0
        if key is not None and book.committed + worst <= book.cap:
            return BudgetReached(
                f"the next call may cost more than is left of {key.cap_nano / ledger.NANO:g} EUR for {key.id}",
                safe="every answer received so far",
                next="raise teacher.max_cost_eur_per_month, or wait for the next month; then run the same command",
            )
        return BudgetReached(
            f"the next call may cost more than is left of {book.cap / ledger.NANO:g} EUR"
            f" (spent {book.spent / ledger.NANO:.6f}, uncertain {book.uncertain / ledger.NANO:.6f},"
            f" {left * self.batch_size} requests to go)",
            safe="every answer received so far",
            next="raise generate.max_cost_eur, then run the same command",
        )


async def _wait(event: asyncio.Event, seconds: float | None) -> None:
    """Until ``event`` is set from now on, at most ``seconds``."""
    event.clear()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
