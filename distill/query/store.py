"""Every answer ever received and the ledger, in one SQLite file: what was committed is never lost or bought twice.

WAL with ``synchronous=FULL``; one writer thread takes everything queued, writes it in one transaction and
resolves the callers only after COMMIT returned (group commit). Readers have their own read-only connection.

::

    request   key (SHA-256 of the canonical request), the canonical request itself
    attempt   one send: reserved -> received | released (did no work) | uncertain (sent, no answer: stays charged)
    response  the raw bytes of a received attempt, with their hash
    ledger, budget   see distill.query.ledger

A process that dies leaves its attempts ``reserved``; the next one to open the file makes them ``uncertain``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import sqlite3
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from distill.errors import DistillError, IntegrityError
from distill.query import attempts, batch_jobs, database, ledger
from distill.query.attempts import Plan, Received

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import TracebackType

T = TypeVar("T")

GROUP = 512  # most operations in one transaction


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """The last answer received for a key. ``cost_nano``: what its sends cost together; None = no price was known."""

    raw: bytes
    status: int
    latency_s: float | None
    cost_nano: int | None
    received: float
    answers: int = 1
    """How many answers were received for this key (more than one only after unreadable ones)."""


@dataclass(frozen=True, slots=True)
class Totals:
    """Counts over the whole store."""

    requests: int
    answers: int
    uncertain: int
    released: int
    balance: ledger.Balance


class Store:
    """See the module. A context manager; one at a time per file (RunLocked otherwise)."""

    def __init__(self, path: Path):
        self.path = Path(path)
        self._failure: DistillError | None = None
        self._disk_full: Exception | None = None
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._reading = threading.Lock()
        self._lock = database.take_lock(self.path)
        try:
            self._writer = database.open_writer(self.path, attempts.SCHEMA + ledger.SCHEMA)
            self._writer.executescript(batch_jobs.SCHEMA)
            self._reader = database.connect(self.path)
            self._reader.execute("PRAGMA query_only = ON")
            self.recovered = self._recover()
            self._ballast = database.Ballast(self.path)
        except BaseException as error:
            os.close(self._lock)
            if isinstance(error, sqlite3.Error):
                raise database.explain(error, self.path) from error
            raise
        self._thread = threading.Thread(target=self._write_loop, name="store-writer", daemon=True)
        self._thread.start()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Commit what is queued, stop the writer, close the file."""
        if self._lock < 0:
            return
        self._jobs.put(None)
        self._thread.join()
        with contextlib.suppress(sqlite3.Error):
            self._reader.close()
        with contextlib.suppress(sqlite3.Error):
            self._writer.close()
        self._ballast.drop()
        os.close(self._lock)
        self._lock = -1

    # -- reading ------------------------------------------------------------------------------------------

    def get(self, key: str) -> StoredAnswer | None:
        """The answer committed for ``key``. Raises IntegrityError when its bytes are not what their hash says."""
        return self.get_many([key]).get(key)

    def get_many(self, keys: Iterable[str]) -> dict[str, StoredAnswer]:
        """The committed answers of those keys that have one."""
        found: dict[str, StoredAnswer] = {}
        with self._reading, database.explained(self.path):
            for key in keys:
                if row := self._reader.execute(attempts.LAST_ANSWER, (bytes.fromhex(key),)).fetchone():
                    codec, blob, digest, status, latency, received, cost, answers = row
                    raw = database.checked(codec, blob, digest, f"{self.path}, request {key[:12]}")
                    found[key] = StoredAnswer(raw, status, latency, cost, received, answers)
        return found

    def canonical(self, key: str) -> bytes | None:
        """The canonical request that ``key`` is the hash of, or None when it was never asked."""
        with self._reading, database.explained(self.path):
            row = self._reader.execute(
                "SELECT codec, canonical FROM request WHERE key = ?", (bytes.fromhex(key),)
            ).fetchone()
        return database.unpack(*row) if row else None

    def totals(self) -> Totals:
        """Counts and the run's budget."""
        with self._reading, database.explained(self.path):
            states = dict(self._reader.execute("SELECT state, count(*) FROM attempt GROUP BY state").fetchall())
            (requests,) = self._reader.execute("SELECT count(*) FROM request").fetchone()
            book = ledger.balance(self._reader)
        return Totals(requests, states.get("received", 0), states.get("uncertain", 0), states.get("released", 0), book)

    def audit(self) -> list[str]:
        """Every contradiction in the file: damaged pages, wrong hashes, books that do not add up. Empty = sound."""
        with self._reading, database.explained(self.path):
            found = [row[0] for row in self._reader.execute("PRAGMA quick_check").fetchall() if row[0] != "ok"]
            found += [f"row without its parent in {row[0]}" for row in self._reader.execute("PRAGMA foreign_key_check")]
            found += ledger.audit(self._reader)
            for attempt, codec, blob, digest in self._reader.execute(
                "SELECT attempt_id, codec, raw, sha256 FROM response"
            ):
                try:
                    database.checked(codec, blob, digest, f"attempt {attempt}")
                except IntegrityError as error:
                    found.append(str(error))
        return found

    # -- writing: each coroutine returns after COMMIT ------------------------------------------------------

    async def reserve(self, groups: Sequence[Sequence[Plan]]) -> list[list[int]]:
        """Attempt ids of the leading groups whose worst case fits under the cap; a shorter list = it is reached."""
        return await self._submit(lambda: attempts.reserve(self._writer, groups), admits=True)

    async def settle(self, answers: Sequence[Received]) -> None:
        """Commit answers and their bill in one transaction. Raises DiskProblem."""
        await self._submit(lambda: attempts.settle(self._writer, answers))

    async def release(self, ids: Sequence[int], reason: str, status: int | None = None) -> None:
        """These attempts did no work: their reservation is free again."""
        await self._submit(lambda: attempts.end(self._writer, ids, "released", reason, status))

    async def uncertain(self, ids: Sequence[int], reason: str, status: int | None = None) -> None:
        """These attempts were sent and brought no answer: they stay charged at worst case."""
        await self._submit(lambda: attempts.end(self._writer, ids, "uncertain", reason, status))

    async def write(self, work: Callable[[sqlite3.Connection], T], admits: bool = False) -> T:
        """What ``work`` gives, run in a transaction of the writer. ``admits``: it lets a new call leave."""
        return await self._submit(lambda: work(self._writer), admits)

    def set_cap(self, cap_nano: int) -> None:
        """Set what the run may spend, in nano-EUR."""
        self._submit_and_wait(lambda: ledger.set_cap(self._writer, cap_nano))

    def put(self, key: str, canonical: bytes, answer: Received) -> None:
        """Commit an answer that needed no reservation (an import). ``answer.attempt`` is ignored."""

        def write() -> None:
            ((attempt,),) = attempts.reserve(self._writer, [[Plan(key, canonical)]])
            free = Received(attempt, answer.raw, answer.status, answer.latency_s, None, answer.request_id)
            attempts.settle(self._writer, [free])

        self._submit_and_wait(write)

    # -- the writer thread --------------------------------------------------------------------------------

    async def _submit(self, work: Callable[[], T], admits: bool = False) -> T:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._jobs.put(_Job(work, future, loop, admits))
        return await future

    def _submit_and_wait(self, work: Callable[[], T]) -> T:
        future: Future[T] = Future()
        self._jobs.put(_Job(work, future, None))
        return future.result()

    def _write_loop(self) -> None:
        while (job := self._jobs.get()) is not None:
            jobs, last = [job], False
            with contextlib.suppress(queue.Empty):
                while len(jobs) < GROUP:
                    more = self._jobs.get_nowait()
                    if more is None:
                        last = True
                        break
                    jobs.append(more)
            self._commit(jobs)
            if last:
                break

    def _commit(self, jobs: list[_Job]) -> None:
        """All of ``jobs`` in one transaction; when one of them is faulty, each in its own."""
        if self._disk_full is not None:
            for job in (refused := [job for job in jobs if job.admits]):
                job.error = self._disk_full
            _resolve(refused)
            jobs = [job for job in jobs if not job.admits]
        try:
            if self._failure:
                raise self._failure
            self._writer.execute("BEGIN IMMEDIATE")
            for job in jobs:
                job.result = job.work()
            self._writer.execute("COMMIT")
        except Exception as error:
            with contextlib.suppress(sqlite3.Error):
                self._writer.execute("ROLLBACK")
            self._not_committed(jobs, error)
        else:
            _resolve(jobs)

    def _not_committed(self, jobs: list[_Job], error: Exception) -> None:
        failure = database.explain(error, self.path) if isinstance(error, sqlite3.Error) else error
        if database.is_full(error) and self._ballast.drop():
            # What was paid for fits into the space of the ballast; no further call is admitted.
            self._disk_full = failure
            self._commit(jobs)
            return
        if isinstance(failure, DistillError):
            # After a failed write or sync nothing on this connection can be trusted: it never writes again.
            self._failure = failure
        elif len(jobs) > 1:
            for job in jobs:
                self._commit([job])
            return
        for job in jobs:
            job.error = failure
        _resolve(jobs)

    def _recover(self) -> int:
        """Attempts of a dead process become uncertain (not those of a batch, which goes on); how many there were."""
        self._writer.execute("BEGIN IMMEDIATE")
        rows = self._writer.execute(
            "SELECT id FROM attempt WHERE state = 'reserved' AND id NOT IN (SELECT attempt_id FROM job_attempt)"
        ).fetchall()
        attempts.end(self._writer, [row[0] for row in rows], "uncertain", "process_died", None)
        self._writer.execute("COMMIT")
        return len(rows)


# -- jobs ----------------------------------------------------------------------------------------------------


class _Job:
    """Work for the writer thread and whom to tell when it is durable. ``admits``: it lets a new call leave."""

    __slots__ = ("admits", "error", "future", "loop", "result", "work")

    def __init__(
        self, work: Callable[[], Any], future: Any, loop: asyncio.AbstractEventLoop | None, admits: bool = False
    ):
        self.work, self.future, self.loop, self.admits = work, future, loop, admits
        self.result: Any = None
        self.error: BaseException | None = None

    def tell(self) -> None:
        if self.future.done():  # the waiter was cancelled
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


def _resolve(jobs: list[_Job]) -> None:
    """Tell everyone: one wake-up of the event loop for the whole group."""
    waiting = [job for job in jobs if job.loop is not None]
    for job in jobs:
        if job.loop is None:
            job.tell()
    if waiting:

        def tell() -> None:
            for job in waiting:
                job.tell()

        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop = waiting[0].loop
            assert loop is not None
            loop.call_soon_threadsafe(tell)
