"""What is intact in a damaged store, as a new store; the damaged files stay beside it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill.artifacts import fsync_dir
from distill.errors import IntegrityError
from distill.query import database, ledger
from distill.query.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ATTEMPT = ("state", "reserved_nano", "charged_nano", "started", "ended", "status", "reason", "provider_request_id")


@dataclass(frozen=True)
class Salvaged:
    """``kept`` answers; ``lost``: paid answers whose bytes or request are damaged, ``lost_nano`` what they cost."""

    kept: int
    lost: int
    lost_nano: int
    damaged: Path


def salvage(path: Path) -> Salvaged:
    """Replace the store at ``path`` by one with every intact answer. Raises RunLocked, DiskProblem."""
    lock = database.take_lock(path)
    reading, new = path.with_name(f"{path.name}.reading"), path.with_name(f"{path.name}.new")
    try:
        for suffix in ("", "-wal"):
            _remove(reading.with_name(reading.name + suffix))
            _remove(new.with_name(new.name + suffix))
            if (source := path.with_name(path.name + suffix)).exists():
                shutil.copyfile(source, reading.with_name(reading.name + suffix))
        old = sqlite3.connect(reading, isolation_level=None)
        old.text_factory = lambda data: data.decode("utf-8", "replace")
        try:
            Store(new).close()
            kept, lost, lost_nano = _copy(old, new)
        finally:
            old.close()
        aside = _free_name(path)
        for suffix in ("", "-wal", "-spool0", "-spool1"):
            if (source := path.with_name(path.name + suffix)).exists():
                source.rename(aside.with_name(aside.name + suffix))
        database.Mark(lock).clear()
        new.rename(path)
        fsync_dir(path.parent)
    finally:
        os.close(lock)
        for name in (reading, new):
            for suffix in ("", "-wal", "-shm", "-lock"):
                _remove(name.with_name(name.name + suffix))
    Store(path).close()  # reservations of the dead process become uncertain
    return Salvaged(kept, lost, lost_nano, aside)


def _copy(old: sqlite3.Connection, path: Path) -> tuple[int, int, int]:
    new = database.connect(path)
    kept = lost = lost_nano = 0
    try:
        new.execute("PRAGMA synchronous = FULL")
        new.execute("BEGIN IMMEDIATE")
        for number in range(1, _most(old) + 1):
            attempt = _row(old, f"SELECT request_id, {', '.join(ATTEMPT)} FROM attempt WHERE id = ?", number)
            if attempt is None:
                lost += _row(old, "SELECT 1 FROM response WHERE attempt_id = ?", number) is not None
                continue
            facts = dict(zip(ATTEMPT, attempt[1:], strict=True))
            request, response = _request(old, attempt[0]), _response(old, number)
            if facts["state"] == "received" and (request is None or response is None):
                lost, lost_nano = lost + 1, lost_nano + (_money(facts["charged_nano"]) or 0)
            if request is not None and _insert(new, number, request, response, facts):
                kept += response is not None
        _books(old, new)
        new.execute("COMMIT")
    finally:
        new.close()
    return kept, lost, lost_nano


def _insert(
    new: sqlite3.Connection,
    number: int,
    request: tuple[Any, ...],
    response: tuple[Any, ...] | None,
    facts: dict[str, Any],
) -> bool:
    """Enter an attempt, and its answer where that is whole; False when the row contradicts the schema."""
    held, charged = _money(facts["reserved_nano"]), _money(facts["charged_nano"])
    if facts["state"] == "received" and response is None:  # paid, and lost: it stays charged
        facts |= {"state": "uncertain", "reason": "damaged"}
        held = charged = charged if charged is not None else held
    facts |= {"reserved_nano": held, "charged_nano": charged}
    new.execute("SAVEPOINT attempt")
    try:
        new.execute(
            "INSERT INTO request (key, codec, canonical, created) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", request
        )
        new.execute(
            f"INSERT INTO attempt (id, request_id, {', '.join(ATTEMPT)})"
            " SELECT ?, id, ?, ?, ?, ?, ?, ?, ?, ? FROM request WHERE key = ?",
            (number, *facts.values(), request[0]),
        )
        if response is not None:
            new.execute(
                "INSERT INTO response (attempt_id, codec, raw, sha256, latency_s, received) VALUES (?, ?, ?, ?, ?, ?)",
                (number, *response),
            )
    except sqlite3.IntegrityError:
        new.execute("ROLLBACK TO attempt")
        return False
    finally:
        new.execute("RELEASE attempt")
    return True


def _books(old: sqlite3.Connection, new: sqlite3.Connection) -> None:
    """Budget and ledger, written anew from the attempts; the cap is the old one where it can be read."""
    cap = _row(old, "SELECT cap_nano FROM budget WHERE id = ?", ledger.RUN)
    rows = new.execute("SELECT id, state, reserved_nano, charged_nano FROM attempt WHERE reserved_nano IS NOT NULL")
    lines = []
    spent = uncertain = reserved = 0
    for number, state, held, charged in rows.fetchall():
        lines.append(("reserve", number, held))
        if state == "released":
            lines.append(("release", number, held))
        elif state == "uncertain":
            lines.append(("uncertain", number, held))
            uncertain += held
        elif state == "received" and charged is not None:
            lines.append(("settle", number, charged))
            spent += charged
        else:
            reserved += held
    total = ledger.Balance(_money(cap[0]) or 0 if cap else 0, spent, reserved, uncertain)
    if lines or total.cap:
        new.execute(
            "INSERT INTO budget (id, cap_nano, spent_nano, reserved_nano, uncertain_nano) VALUES (?, ?, ?, ?, ?)",
            (ledger.RUN, max(total.cap, total.committed), spent, reserved, uncertain),
        )
    for kind, number, amount in lines:
        ledger.write(new, kind, [(number, amount)])
    for table in ("job", "job_attempt"):
        with contextlib.suppress(sqlite3.Error):
            found = old.execute(f"SELECT * FROM {table}").fetchall()
            marks = ", ".join("?" * len(found[0])) if found else ""
            new.executemany(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", found)


def _row(old: sqlite3.Connection, query: str, *values: Any) -> tuple[Any, ...] | None:
    """The first row, or None: also where the pages that hold it are damaged."""
    try:
        row: tuple[Any, ...] | None = old.execute(query, values).fetchone()
    except sqlite3.Error:
        return None
    return row


def _request(old: sqlite3.Connection, number: Any) -> tuple[Any, ...] | None:
    row = _row(old, "SELECT key, codec, canonical, created FROM request WHERE id = ?", number)
    with contextlib.suppress(Exception):  # a damaged blob fails in any way
        if row is not None and hashlib.sha256(database.unpack(row[1], row[2])).digest() == row[0]:
            return row
    return None


def _response(old: sqlite3.Connection, number: int) -> tuple[Any, ...] | None:
    row = _row(old, "SELECT codec, raw, sha256, latency_s, received FROM response WHERE attempt_id = ?", number)
    with contextlib.suppress(IntegrityError, TypeError):
        if row is not None:
            database.checked(row[0], row[1], row[2], "")
            return row
    return None


def _most(old: sqlite3.Connection) -> int:
    """The highest attempt number that any table still tells."""
    columns = (("id", "attempt"), ("attempt_id", "response"), ("attempt_id", "ledger"))
    found = [_row(old, f"SELECT max({column}) FROM {table}") for column, table in columns]
    return max([row[0] for row in found if row and isinstance(row[0], int)], default=0)


def _money(value: Any) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None


def _free_name(path: Path) -> Path:
    names: Iterator[Path] = (path.with_name(f"{path.name}.damaged{n or ''}") for n in range(10_000))
    return next(name for name in names if not name.exists())


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
