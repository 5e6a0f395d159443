"""One send = one attempt: its life in the tables ``request``, ``attempt`` and ``response``.

::

    reserved --+-- received    the raw bytes and the bill are in the same transaction; found in the spool after a
               |               kill: the bytes at once, the money stays reserved until someone reads the bill
               +-- released    the call did no work
               `-- uncertain   sent, no answer: stays charged at worst case

Every function works inside the writer's transaction.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from distill.query import ledger
from distill.query.database import pack

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from distill.query.keys import Account

SCHEMA = """
CREATE TABLE request (
  id INTEGER PRIMARY KEY,
  key BLOB NOT NULL UNIQUE CHECK (length(key) = 32),
  codec INTEGER NOT NULL,
  canonical BLOB NOT NULL,
  created REAL NOT NULL
) STRICT;
CREATE TABLE attempt (
  id INTEGER PRIMARY KEY,
  request_id INTEGER NOT NULL REFERENCES request (id),
  state TEXT NOT NULL CHECK (state IN ('reserved', 'received', 'released', 'uncertain')),
  reserved_nano INTEGER CHECK (reserved_nano >= 0),
  charged_nano INTEGER CHECK (charged_nano >= 0),
  started REAL NOT NULL,
  ended REAL,
  status INTEGER,
  reason TEXT NOT NULL DEFAULT '',
  provider_request_id TEXT NOT NULL DEFAULT '',
  budget TEXT REFERENCES budget (id)
) STRICT;
CREATE INDEX attempt_of_request ON attempt (request_id);
CREATE INDEX attempt_open ON attempt (id) WHERE state = 'reserved';
CREATE TABLE response (
  attempt_id INTEGER PRIMARY KEY REFERENCES attempt (id),
  codec INTEGER NOT NULL,
  raw BLOB NOT NULL,
  sha256 BLOB NOT NULL CHECK (length(sha256) = 32),
  latency_s REAL,
  received REAL NOT NULL
) STRICT;
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """A send about to happen. ``worst_nano``: the most it can cost; None where no price applies."""

    key: str
    canonical: bytes
    worst_nano: int | None = None


@dataclass(frozen=True, slots=True)
class Received:
    """An answer to be committed: the attempt it ends, the bytes, and what it cost."""

    attempt: int
    raw: bytes
    status: int = 200
    latency_s: float | None = None
    cost_nano: int | None = None
    request_id: str = ""


LAST_ANSWER = """
SELECT r.codec, r.raw, r.sha256, a.status, r.latency_s, r.received,
  (SELECT sum(charged_nano) FROM attempt WHERE request_id = q.id AND state = 'received'),
  (SELECT count(*) FROM attempt WHERE request_id = q.id AND state = 'received'),
  a.id, CASE WHEN a.charged_nano IS NULL THEN a.reserved_nano END
FROM request q JOIN attempt a ON a.request_id = q.id JOIN response r ON r.attempt_id = a.id
WHERE q.key = ? ORDER BY a.id DESC LIMIT 1
"""

# What all sends of a request were charged, failed ones too; how many of them have no price.
CHARGES = """
SELECT lower(hex(q.key)), coalesce(sum(coalesce(a.charged_nano, a.reserved_nano)), 0), sum(a.reserved_nano IS NULL)
FROM request q JOIN attempt a ON a.request_id = q.id WHERE a.state <> 'released' GROUP BY q.id
"""


def reserve(
    connection: sqlite3.Connection, groups: Sequence[Sequence[Plan]], account: Account | None = None
) -> list[list[int]]:
    """Attempts of the leading groups whose worst case fits."""
    now = time.time()
    granted: list[list[int]] = []
    for group in groups:
        worst = sum(plan.worst_nano or 0 for plan in group)
        priced = any(plan.worst_nano is not None for plan in group)
        if priced and not ledger.reserve(connection, worst, account):
            break
        ids = []
        for plan in group:
            key = bytes.fromhex(plan.key)
            connection.execute(
                "INSERT INTO request (key, codec, canonical, created) VALUES (?, ?, ?, ?) ON CONFLICT (key) DO NOTHING",
                (key, *pack(plan.canonical), now),
            )
            cursor = connection.execute(
                "INSERT INTO attempt (request_id, state, reserved_nano, started, budget)"
                " SELECT id, 'reserved', ?, ?, ? FROM request WHERE key = ?",
                (plan.worst_nano, now, account.id if account and priced else None, key),
            )
            ids.append(int(cursor.lastrowid or 0))
        if priced:
            ledger.write(connection, "reserve", [(i, p.worst_nano or 0) for i, p in zip(ids, group, strict=True)])
        granted.append(ids)
    return granted


def settle(connection: sqlite3.Connection, answers: Sequence[Received]) -> None:
    """Keep raw bytes and bill of answers to reserved attempts. No bill: charged at worst case."""
    now = time.time()
    bill = []
    for answer in answers:
        held, charged, budget = connection.execute(
            "UPDATE attempt SET state = 'received', ended = ?, status = ?, charged_nano = coalesce(?, reserved_nano),"
            " provider_request_id = ? WHERE id = ? AND state = 'reserved'"
            " RETURNING reserved_nano, charged_nano, budget",
            (now, answer.status, answer.cost_nano, answer.request_id, answer.attempt),
        ).fetchone()
        _keep(connection, answer, now)
        if held is not None:
            bill.append(ledger.Ended(answer.attempt, held, charged, budget))
    ledger.close(connection, "settle", bill)


def _keep(connection: sqlite3.Connection, answer: Received, now: float) -> None:
    connection.execute(
        "INSERT INTO response (attempt_id, codec, raw, sha256, latency_s, received) VALUES (?, ?, ?, ?, ?, ?)",
        (answer.attempt, *pack(answer.raw), hashlib.sha256(answer.raw).digest(), answer.latency_s, now),
    )


def replay(connection: sqlite3.Connection, found: Sequence[tuple[str, float, Received]]) -> int:
    """Keep (key, time, answer) that a killed process had received; how many. The bill comes later (:func:`bill`)."""
    kept = 0
    for key, at, answer in found:
        row = connection.execute(
            "UPDATE attempt SET state = 'received', ended = ?, status = ?, provider_request_id = ?"
            " WHERE id = ? AND state = 'reserved' AND request_id = (SELECT id FROM request WHERE key = ?) RETURNING id",
            (at, answer.status, answer.request_id, answer.attempt, bytes.fromhex(key)),
        ).fetchone()
        if row is not None:
            _keep(connection, answer, at)
            kept += 1
    return kept


def bill(connection: sqlite3.Connection, costs: Sequence[tuple[int, int]]) -> None:
    """(attempt, nano-EUR) of answers that :func:`replay` kept."""
    ended = []
    for attempt, cost in costs:
        row = connection.execute(
            "UPDATE attempt SET charged_nano = ? WHERE id = ? AND state = 'received' AND charged_nano IS NULL"
            " AND reserved_nano IS NOT NULL RETURNING reserved_nano, budget",
            (cost, attempt),
        ).fetchone()
        if row is not None:
            ended.append(ledger.Ended(attempt, row[0], cost, row[1]))
    ledger.close(connection, "settle", ended)


def end(connection: sqlite3.Connection, attempts: Sequence[int], state: str, reason: str, status: int | None) -> None:
    """Attempts that brought no answer: ``released`` or ``uncertain``."""
    now = time.time()
    ended = []
    for attempt in attempts:
        row = connection.execute(
            "UPDATE attempt SET state = ?1, ended = ?2, reason = ?3, status = ?4,"
            " charged_nano = CASE WHEN ?1 = 'uncertain' THEN reserved_nano END"
            " WHERE id = ?5 AND state = 'reserved' RETURNING reserved_nano, budget",
            (state, now, reason[:200], status, attempt),
        ).fetchone()
        if row and row[0] is not None:
            charged = row[0] if state == "uncertain" else 0
            ended.append(ledger.Ended(attempt, row[0], charged, row[1]))
    ledger.close(connection, "uncertain" if state == "uncertain" else "release", ended)
