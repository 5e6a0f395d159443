"""Every answer ever received and the ledger, in one SQLite file: what was committed is never lost or bought twice.

WAL with ``synchronous=FULL`` and one writer (distill.query.writer). Readers have their own read-only connection.

::

    request   key (SHA-256 of the canonical request), the canonical request itself
    attempt   one send: reserved -> received | released (did no work) | uncertain (sent, no answer: stays charged)
    response  the raw bytes of a received attempt, with their hash
    ledger, budget   see distill.query.ledger

A process that dies leaves its attempts ``reserved``. The next one to open the file keeps the answers that were
received (distill.query.spool) and makes the others ``uncertain``.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from distill.errors import DistillError, IntegrityError
from distill.query import attempts, batch_jobs, database, erase, ledger
from distill.query.attempts import Plan, Received
from distill.query.spool import Spool
from distill.query.writer import GroupCommit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import TracebackType

    from distill.query.keys import Account

T = TypeVar("T")


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
    unbilled: tuple[int, int] | None = None
    """Attempt and reservation of an answer that a killed process had received and not yet booked (``Store.bill``)."""


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
        self._reading = threading.Lock()
        self.account: Account | None = None
        self._accounts: dict[str, Account] = {}
        self._lock = database.take_lock(self.path)
        try:
            mark = database.Mark(self._lock)
            self._writer = database.open_writer(self.path, attempts.SCHEMA + ledger.SCHEMA, mark)
            self._writer.executescript(batch_jobs.SCHEMA)
            self._reader = database.connect(self.path)
            self._reader.execute("PRAGMA query_only = ON")
            self._spool = Spool(self.path)
            self.recovered = self._recover()
            self._ballast = database.Ballast(self.path)
        except BaseException as error:
            for connection in (getattr(self, "_reader", None), getattr(self, "_writer", None)):
                if connection is not None:
                    connection.close()
            os.close(self._lock)
            if isinstance(error, sqlite3.IntegrityError):  # rows that contradict each other
                raise database.damaged(self.path) from error
            if isinstance(error, sqlite3.Error):
                raise database.explain(error, self.path) from error
            raise
        self._commits = GroupCommit(self.path, self._writer, self._ballast, mark)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Commit what is queued, stop the writer, close the file."""
        if self._lock < 0:
            return
        self._commits.close()
        for account in self._accounts.values():
            with contextlib.suppress(DistillError, sqlite3.Error):  # it keeps its share until it is opened again
                account.close(self._writer)
        with contextlib.suppress(sqlite3.Error):
            self._reader.close()
        with contextlib.suppress(sqlite3.Error):
            self._writer.close()
        self._ballast.drop()
        self._spool.close()
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
                    codec, blob, digest, status, latency, received, cost, answers, attempt, unbilled = row
                    raw = database.checked(codec, blob, digest, f"{self.path}, request {key[:12]}")
                    open_bill = None if unbilled is None else (attempt, unbilled)
                    found[key] = StoredAnswer(raw, status, latency, cost, received, answers, open_bill)
        return found

    def canonical(self, key: str) -> bytes | None:
        """The canonical request that ``key`` is the hash of, or None when it was never asked."""
        with self._reading, database.explained(self.path):
            row = self._reader.execute(
                "SELECT codec, canonical FROM request WHERE key = ?", (bytes.fromhex(key),)
            ).fetchone()
        return database.unpack(*row) if row else None

    def erased(self, keys: Iterable[str]) -> set[str]:
        """Those keys whose request was erased."""
        with self._reading, database.explained(self.path):
            return erase.struck(self._reader) & set(keys)

    def rows(self) -> dict[int, str]:
        """Attempt -> request key, of every attempt whose answer is stored."""
        with self._reading, database.explained(self.path):
            found = self._reader.execute(
                "SELECT a.id, q.key FROM response r JOIN attempt a ON a.id = r.attempt_id AND a.state = 'received'"
                " JOIN request q ON q.id = a.request_id"
            ).fetchall()
        return {attempt: key.hex() for attempt, key in found}

    def charges(self) -> dict[str, int | None]:
        """nano-EUR that all sends of each request were charged, failed ones too; None = no price was known.

        A request that only had sends that did no work is not among them: it cost nothing.
        """
        with self._reading, database.explained(self.path):
            found = self._reader.execute(attempts.CHARGES).fetchall()
        return {key: None if unpriced else int(charged) for key, charged, unpriced in found}

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
        """Attempt ids of the leading groups whose worst case fits under the caps; a shorter list = one is reached."""
        return await self._commits.submit(lambda: attempts.reserve(self._writer, groups, self.account), admits=True)

    def receive(self, answers: Sequence[tuple[str, Received]]) -> None:
        """Request keys and answers, at once and before they are read: from here on a kill does not lose them."""
        self._spool.keep(answers)

    async def settle(self, answers: Sequence[Received]) -> None:
        """Commit answers and their bill in one transaction. Raises DiskProblem."""
        ids = [answer.attempt for answer in answers]
        await self._commits.submit(
            lambda: attempts.settle(self._writer, answers), committed=lambda: self._spool.committed(ids)
        )

    async def release(self, ids: Sequence[int], reason: str, status: int | None = None) -> None:
        """These attempts did no work: their reservation is free again."""
        await self._commits.submit(lambda: attempts.end(self._writer, ids, "released", reason, status))

    async def uncertain(self, ids: Sequence[int], reason: str, status: int | None = None) -> None:
        """These attempts were sent and brought no answer: they stay charged at worst case."""
        await self._commits.submit(lambda: attempts.end(self._writer, ids, "uncertain", reason, status))

    async def write(self, work: Callable[[sqlite3.Connection], T], admits: bool = False) -> T:
        """What ``work`` gives, run in a transaction of the writer. ``admits``: it lets a new call leave."""
        return await self._commits.submit(lambda: work(self._writer), admits)

    def bill(self, costs: Sequence[tuple[int, int]]) -> None:
        """Book (attempt, nano-EUR) of answers that were stored without a bill."""
        self._commits.submit_and_wait(lambda: attempts.bill(self._writer, costs))

    def set_cap(self, cap_nano: int, account: Account | None = None) -> None:
        """Set what the run may spend, in nano-EUR, and the key's budget that later reservations must fit under too."""

        def write() -> None:
            ledger.set_cap(self._writer, cap_nano)
            if account is not None:
                account.open(self._writer)

        self._commits.submit_and_wait(write)
        self.account = account
        if account is not None:
            self._accounts[account.id] = account

    def put(self, key: str, canonical: bytes, answer: Received) -> None:
        """Commit an answer that needed no reservation (an import). ``answer.attempt`` is ignored."""

        def write() -> None:
            ((attempt,),) = attempts.reserve(self._writer, [[Plan(key, canonical)]])
            free = Received(attempt, answer.raw, answer.status, answer.latency_s, None, answer.request_id)
            attempts.settle(self._writer, [free])

        self._commits.submit_and_wait(write)

    def erase(self, keys: Iterable[str]) -> int:
        """Strike these requests and their answers, and rewrite the file without them; how many there were."""
        self._writer.execute("PRAGMA secure_delete = ON")
        count = self._commits.submit_and_wait(lambda: erase.strike(self._writer, keys))
        with database.explained(self.path):
            for statement in ("PRAGMA wal_checkpoint(TRUNCATE)", "VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"):
                self._writer.execute(statement).fetchall()
        return count

    def _recover(self) -> int:
        """Answers that a dead process had received are kept; its other attempts (not those of a batch, which goes on)
        become uncertain: how many.
        """
        self._writer.execute("BEGIN IMMEDIATE")
        self.replayed = attempts.replay(self._writer, self._spool.found)
        rows = self._writer.execute(
            "SELECT id FROM attempt WHERE state = 'reserved' AND id NOT IN (SELECT attempt_id FROM job_attempt)"
        ).fetchall()
        attempts.end(self._writer, [row[0] for row in rows], "uncertain", "process_died", None)
        self._writer.execute("COMMIT")
        self._spool.clear()
        return len(rows)
