"""Group commit: one thread writes everything queued in one transaction, and tells nobody before COMMIT returned."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from distill.errors import DistillError
from distill.query import database

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

T = TypeVar("T")

GROUP = 512  # most operations in one transaction


class GroupCommit:
    """The only writer of a store. ``connection`` is used by its thread alone from now on."""

    def __init__(self, path: Path, connection: sqlite3.Connection, ballast: database.Ballast, mark: database.Mark):
        self._path, self._connection, self._ballast, self._mark = path, connection, ballast, mark
        self._failure: DistillError | None = None
        self._disk_full: Exception | None = None
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write_loop, name="store-writer", daemon=True)
        self._thread.start()

    async def submit(
        self, work: Callable[[], T], admits: bool = False, committed: Callable[[], None] | None = None
    ) -> T:
        """What ``work`` gives, once it is durable. ``committed`` is called then, even when nobody waits any more."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._jobs.put(_Job(work, future, loop, admits, committed))
        return await future

    def submit_and_wait(self, work: Callable[[], T]) -> T:
        """The same, from ordinary code."""
        future: Future[T] = Future()
        self._jobs.put(_Job(work, future, None))
        return future.result()

    def close(self) -> None:
        """Commit what is queued and end the thread."""
        self._jobs.put(None)
        self._thread.join()

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
            self._connection.execute("BEGIN IMMEDIATE")
            for job in jobs:
                job.result = job.work()
            ((uuid, commits),) = self._connection.execute(
                "UPDATE store SET commits = commits + 1 RETURNING uuid, commits"
            ).fetchall()
            self._connection.execute("COMMIT")
        except Exception as error:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            self._not_committed(jobs, error)
        else:
            self._mark.set(uuid, commits)
            for job in jobs:
                if job.committed is not None:
                    job.committed()
            _resolve(jobs)

    def _not_committed(self, jobs: list[_Job], error: Exception) -> None:
        failure = database.explain(error, self._path) if isinstance(error, sqlite3.Error) else error
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


class _Job:
    """Work for the writer thread and whom to tell when it is durable. ``admits``: it lets a new call leave."""

    __slots__ = ("admits", "committed", "error", "future", "loop", "result", "work")

    def __init__(
        self,
        work: Callable[[], Any],
        future: Any,
        loop: asyncio.AbstractEventLoop | None,
        admits: bool = False,
        committed: Callable[[], None] | None = None,
    ):
        self.work, self.future, self.loop, self.admits, self.committed = work, future, loop, admits, committed
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
