"""Batch jobs in the store: which reserved attempts went to the provider in which file.

::

    planned --upload--> uploaded --create--> running --ingest--> done
        `------------------`--- never arrived: its attempts are free again --> dropped

The row is durable before anything leaves, and its random ``tag`` travels with the batch as metadata: whatever the
moment of a crash, the next start finds out whether the batch exists. Its attempts stay ``reserved`` while it is open.
Every function works inside the writer's transaction.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from distill.query import attempts

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from distill.query.attempts import Plan
    from distill.query.keys import Account

SCHEMA = """
CREATE TABLE IF NOT EXISTS job (
  id INTEGER PRIMARY KEY,
  tag TEXT NOT NULL UNIQUE,
  endpoint TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('planned', 'uploaded', 'running', 'done', 'dropped')),
  remote TEXT NOT NULL DEFAULT '',
  created REAL NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS job_attempt (
  attempt_id INTEGER PRIMARY KEY REFERENCES attempt (id),
  job_id INTEGER NOT NULL REFERENCES job (id)
) STRICT;
CREATE INDEX IF NOT EXISTS attempts_of_job ON job_attempt (job_id);
"""
OPEN = "('planned', 'uploaded', 'running')"


@dataclass(frozen=True, slots=True)
class Job:
    """An open job. ``remote``: the provider's id, empty until the batch is known to exist."""

    id: int
    tag: str
    state: str
    remote: str
    created: float


@dataclass(frozen=True, slots=True)
class Sent:
    """A request of a job. ``open``: it has no result yet."""

    key: str
    attempt: int
    worst_nano: int | None
    open: bool


def plan(
    connection: sqlite3.Connection, plans: Sequence[Plan], tag: str, endpoint: str, account: Account | None = None
) -> tuple[Job | None, int]:
    """A job of the leading ``plans`` that fit under the cap, reserved; how many they are. None when not even one."""
    granted = attempts.reserve(connection, [[one] for one in plans], account)
    if not granted:
        return None, 0
    now = time.time()
    cursor = connection.execute(
        "INSERT INTO job (tag, endpoint, state, created) VALUES (?, ?, 'planned', ?)", (tag, endpoint, now)
    )
    number = int(cursor.lastrowid or 0)
    connection.executemany(
        "INSERT INTO job_attempt (attempt_id, job_id) VALUES (?, ?)", [(attempt, number) for (attempt,) in granted]
    )
    return Job(number, tag, "planned", "", now), len(granted)


def advance(connection: sqlite3.Connection, job: Job, state: str, remote: str = "") -> None:
    """Note how far a job came."""
    connection.execute("UPDATE job SET state = ?, remote = ? WHERE id = ?", (state, remote or job.remote, job.id))


def drop(connection: sqlite3.Connection, job: Job) -> None:
    """The batch does not exist: nothing of it was sent."""
    attempts.end(connection, [one.attempt for one in sent(connection, job) if one.open], "released", "not_sent", None)
    advance(connection, job, "dropped")


def open_jobs(connection: sqlite3.Connection, endpoint: str) -> list[Job]:
    """Jobs of this endpoint that have not ended, oldest first."""
    rows = connection.execute(
        f"SELECT id, tag, state, remote, created FROM job WHERE endpoint = ? AND state IN {OPEN} ORDER BY id",
        (endpoint,),
    )
    return [Job(*row) for row in rows]


def sent(connection: sqlite3.Connection, job: Job) -> list[Sent]:
    """The job's requests, as they stand in its file."""
    rows = connection.execute(
        "SELECT q.key, a.id, a.reserved_nano, a.state = 'reserved' FROM job_attempt j"
        " JOIN attempt a ON a.id = j.attempt_id JOIN request q ON q.id = a.request_id WHERE j.job_id = ? ORDER BY a.id",
        (job.id,),
    )
    return [Sent(key.hex(), attempt, worst, bool(still)) for key, attempt, worst, still in rows]
