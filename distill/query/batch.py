"""Asking through a batch API: hours instead of seconds, usually at half the price, and nothing bought twice.

::

    pending --plan (durable)--> upload --> create --> poll --> results, by key --commit--> done
       ^                                                  `-- no result: free again, or uncertain --> pending

The process may die at any arrow: the next start finds the batch by its tag and goes on (see batch_jobs.py). A signal
leaves running batches alone; the same command collects them.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

from distill.errors import BudgetReached, DistillError, TeacherRefused
from distill.progress import Progress, say
from distill.providers._base import NoAnswer
from distill.query import batch_jobs, ledger
from distill.query.attempts import Plan
from distill.query.items import Batch, Item
from distill.query.pressure import Lane, Policy
from distill.query.results import Results, unavailable
from distill.query.stop import Stop
from distill.records import Answer, Request, canonical_json

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from distill.costs import Price
    from distill.providers._batches import Batches, Line, Remote
    from distill.query.batch_jobs import Job, Sent
    from distill.query.store import Store

T = TypeVar("T")
TRANSFER_S = 600.0
TRIES = 8
COMMIT = 256  # results in one transaction
MAX_UPLOAD = 100 * 1024 * 1024  # bytes of one file; endpoints take 100 to 200 MB
BILLED = frozenset({"completed", "vanished"})  # a request without a result may have been worked on


def endpoint_of(provider: Any) -> str:
    """Whose jobs are whose: the hash of the provider's identity."""
    return hashlib.sha256(canonical_json(provider.identity())).hexdigest()


class BatchQuery:
    """One ``ask_all`` through batches. ``submit`` False: only what an earlier run left open is collected."""

    def __init__(self, provider: Any, store: Store, price: Price | None, policy: Policy, *, submit: bool):
        self.provider, self.store, self.price, self.policy, self.submit = provider, store, price, policy, submit
        self.api: Batches = provider.batches
        self.config = provider.config
        self.results = Results(
            provider, store, price, policy, Lane(1, policy), self._stop, self._put_back, batched=True
        )
        self.ending: BaseException | None = None
        self._endpoint = endpoint_of(provider)
        self._wanted: dict[str, Item] = {}
        self._pending: deque[Item] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._full = False
        self._failed = 0  # jobs in a row that never ran

    async def ask(self, items: list[Item], bar: Progress) -> None:
        """Collect open jobs, send the rest in new ones, until all are done; or raise why not."""
        self.results.bar, self.results.asked = bar, len(items)
        self._halt = asyncio.Event()
        self._prepare(items)
        jobs = await self.store.write(lambda c: batch_jobs.open_jobs(c, self._endpoint))
        for job in jobs:
            under_way = {one.key for one in await self._sent(job) if one.open}
            self._pending = deque(item for item in self._pending if item.key not in under_way)
        with Stop(self._stop) as stop:
            for job in jobs:
                self._start(self._adopt(job))
            try:
                await self._dispatch()
            finally:
                await stop.wait(self._tasks, self.policy.grace_s)
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)
                await self.provider.aclose()
        if self.ending is not None:
            raise self.ending

    def _prepare(self, items: list[Item]) -> None:
        if self.price is not None:
            from distill.costs import worst_case_nano

            if self.price.batch_discount is None and self.submit:
                say("batch: no batch price is known for this model; it is counted at the full price")
            for item in items:
                item.worst = worst_case_nano(item.request, self.price, batch=True)
        self._wanted = {item.key: item for item in items}
        self._pending.extend(items)

    def _stop(self, why: BaseException) -> None:
        if self.ending is None:
            self.ending = why
        self._halt.set()

    def _put_back(self, items: list[Item], _: float) -> None:
        self._pending.extend(items)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._full = False
        if task.cancelled() or (error := task.exception()) is None:
            return
        if isinstance(error, NoAnswer):
            error = unavailable(f"batch: {error.reason} {error.detail}".strip())
        self._stop(error)

    async def _dispatch(self) -> None:
        """Keep as many jobs running as allowed, until nothing is left."""
        while self.ending is None:
            while self.submit and self._pending and len(self._tasks) < self.config.batch_jobs and not self._full:
                await self._submit()
            if self._tasks:
                halted = asyncio.create_task(self._halt.wait())
                await asyncio.wait([*self._tasks, halted], return_when=asyncio.FIRST_COMPLETED)
                halted.cancel()
            elif not (self.submit and self._pending):
                return
            elif self._full:
                self._stop(self._budget_reached())

    async def _sleep(self, seconds: float) -> None:
        """Wait, or until the query ends."""
        try:
            async with asyncio.timeout(seconds):
                await self._halt.wait()
        except TimeoutError:
            pass

    async def _sent(self, job: Job) -> list[Sent]:
        return await self.store.write(lambda c: batch_jobs.sent(c, job))

    async def _note(self, job: Job, state: str, remote: str = "") -> None:
        await self.store.write(lambda c: batch_jobs.advance(c, job, state, remote))

    # -- on the way up --------------------------------------------------------------------------------------

    async def _submit(self) -> None:
        """Write down the next job, then start it."""
        shard: list[Item] = []
        lines: list[bytes] = []
        size = 0
        while self._pending and len(shard) < self.config.batch_requests:
            line = self.api.line(self._pending[0].key, self._pending[0].request)
            if shard and size + len(line) > MAX_UPLOAD:
                break
            shard.append(self._pending.popleft())
            lines.append(line)
            size += len(line)
        plans = [Plan(item.key, item.canonical, item.worst) for item in shard]
        tag, account = secrets.token_hex(16), self.store.account
        job, count = await self.store.write(
            lambda c: batch_jobs.plan(c, plans, tag, self._endpoint, account), admits=True
        )
        self._pending.extendleft(reversed(shard[count:]))
        self._full = count < len(shard)
        if job is not None:
            self._start(self._send(job, b"".join(lines[:count]), count))

    async def _send(self, job: Job, data: bytes, count: int) -> None:
        asked = False

        async def create() -> Remote:
            nonlocal asked
            if asked and (found := await self.api.find(job.tag, job.created)):
                return found  # the first try arrived, only its answer was lost
            asked = True
            return await self.api.create(file, job.tag)

        try:
            file = await self._patiently(lambda: self.api.upload(job.tag, data))
            await self._note(job, "uploaded")
            remote = await self._patiently(create)
        except (NoAnswer, TeacherRefused) as error:
            if isinstance(error, NoAnswer) and not error.permanent:
                raise  # it may exist: the next start will see
            await self.store.write(lambda c: batch_jobs.drop(c, job))
            if isinstance(error, NoAnswer):
                raise _refused(f"it takes no batches: {error.reason} {error.detail}") from None
            raise
        await self._note(job, "running", remote.id)
        say(f"batch {remote.id}: {count} requests sent; stopping this command does not stop it")
        await self._follow(job, remote)

    async def _adopt(self, job: Job) -> None:
        """Go on with a job of an earlier process, or forget it when it never arrived."""
        remote = await self._patiently(
            lambda: self.api.look(job.remote) if job.remote else self.api.find(job.tag, job.created)
        )
        if remote is None and not job.remote:
            missing = [one.key for one in await self._sent(job) if one.open]
            await self.store.write(lambda c: batch_jobs.drop(c, job))
            self._pending.extend(self._wanted[key] for key in missing if key in self._wanted)
            return
        if remote is None:
            await self._ingest(job, "vanished", [])
            return
        if not job.remote:
            await self._note(job, "running", remote.id)
        say(f"batch {remote.id}: found again, {remote.status}")
        await self._follow(job, remote)

    async def _patiently(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What ``call`` gives, repeated with growing waits while it brings no answer. Raises NoAnswer in the end."""
        for attempt in range(1, TRIES + 1):
            try:
                async with asyncio.timeout(TRANSFER_S):
                    return await call()
            except TimeoutError:
                failure = NoAnswer("timeout")
            except NoAnswer as error:
                failure = error
            if failure.permanent or attempt == TRIES or self.ending is not None:
                raise failure
            asked = min(failure.retry_after_s or 0.0, self.policy.retry_after_cap_s)
            await self._sleep(max(self.policy.backoff(attempt), asked))
        raise AssertionError("unreachable")

    # -- on the way down ------------------------------------------------------------------------------------

    async def _follow(self, job: Job, remote: Remote) -> None:
        """Poll until the batch ends, then take in what it brought."""
        found: Remote | None = remote
        answered = time.monotonic()
        while found is None or not found.ended:
            await self._sleep(self.config.batch_poll_s)
            if self.ending is not None:
                return
            try:
                found = await self.api.look(remote.id)
                answered = time.monotonic()
            except NoAnswer:
                if time.monotonic() - answered > max(self.policy.patience_s, 10 * self.config.batch_poll_s):
                    raise
                continue
            if found is None:
                await self._ingest(job, "vanished", [])
                return
        lines: list[Line] = []
        for file in found.files:
            try:
                lines += await self._patiently(lambda file=file: self.api.results(file))  # type: ignore[misc]
            except NoAnswer as failure:
                if failure.status != 404:
                    raise
                self.results.faults["results_gone"] += 1
        await self._ingest(job, found.status, lines)
        if found.status == "failed":
            await self._never_ran(found.failed)
        else:
            self._failed = 0

    async def _ingest(self, job: Job, status: str, lines: list[Line]) -> None:
        """Commit every result under its key; what has none is free again, or uncertain."""
        every = {one.key: one for one in await self._sent(job)}
        left = {key: one for key, one in every.items() if one.open}
        answers: list[tuple[Sent, Line]] = []
        refused: list[tuple[Sent, Line]] = []
        taken: set[str] = set()
        for line in lines:
            if line.key not in every or line.key in taken:
                self.results.faults["duplicate_id" if line.key in taken else "foreign_id"] += 1
                continue
            taken.add(line.key)
            if (one := left.pop(line.key, None)) is not None:
                (answers if line.body else refused).append((one, line))
        for start in range(0, len(answers), COMMIT):
            await self._answered(answers[start : start + COMMIT])
        reason = "no_result" if status == "completed" else f"batch_{status}"
        await asyncio.gather(
            *(self._no_result(one, line.code or f"http_{line.status}", line, billed=False) for one, line in refused),
            *(self._no_result(one, reason, None, status in BILLED, status != "failed") for one in left.values()),
        )
        await self._note(job, "done")
        self._refuse_if_hopeless(refused, bool(answers))

    def _item(self, one: Sent) -> Item:
        """The item of a result, as dear as reserved at most; an answer that nobody asks for any more is kept too."""
        item = self._wanted.get(one.key) or Item(one.key, Request(()), b"")
        item.worst = one.worst_nano
        return item

    async def _answered(self, found: list[tuple[Sent, Line]]) -> None:
        batch = Batch([self._item(one) for one, _ in found], [one.attempt for one, _ in found])
        answers = [Answer(line.body, line.status or 200, None, line.request_id) for _, line in found]
        await self.results.answered(batch, answers)

    async def _no_result(self, one: Sent, reason: str, line: Line | None, billed: bool, counts: bool = True) -> None:
        """End the attempt and, where it is still wanted, try again as the policy allows."""
        self.results.faults[reason] += 1
        status = line.status if line else None
        end = self.store.uncertain if billed else self.store.release
        await end([one.attempt], reason, status)
        if (item := self._wanted.get(one.key)) is not None:
            item.attempts += counts
            item.uncertain += billed
            permanent = status is not None and 400 <= status < 500 and status not in (408, 409, 425, 429)
            self.results.again(item, reason, NoAnswer(reason, status=status, permanent=permanent))

    def _refuse_if_hopeless(self, refused: list[tuple[Sent, Line]], answers: bool) -> None:
        """A batch of which every request was refused for good is not followed by another."""
        for_good = [line for _, line in refused if line.status in (400, 401, 403, 404, 413, 422)]
        if for_good and not answers and len(for_good) == len(refused):
            said = f"{for_good[0].status} {for_good[0].code} {for_good[0].detail}"
            self._stop(_refused(f"every request of a batch is refused: {' '.join(said.split())}"))

    async def _never_ran(self, said: str) -> None:
        """The endpoint took a batch and then refused it: perhaps too many are running, else it is refused for good."""
        self._failed += 1
        if self._failed >= 2 and len(self._tasks) <= 1:
            self._stop(_refused(f"batches fail before they run: {said or 'no reason given'}"))
            return
        say(f"batch: one failed before it ran ({said or 'no reason given'}); trying again")
        await self._sleep(self.config.batch_poll_s)

    def _budget_reached(self) -> DistillError:
        book = self.store.totals().balance
        return BudgetReached(
            f"the next request may cost more than is left of {book.cap / ledger.NANO:g} EUR"
            f" (spent {book.spent / ledger.NANO:.6f}, uncertain {book.uncertain / ledger.NANO:.6f},"
            f" {len(self._pending)} requests to go)",
            safe="every answer received so far",
            next="raise generate.max_cost_eur, then run the same command",
        )


def _refused(what: str) -> TeacherRefused:
    return TeacherRefused(
        what, where="teacher.batch", safe="every answer received so far", next="set teacher.batch: false, or mend it"
    )
