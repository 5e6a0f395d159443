"""The money side of the store: integer nano-EUR, reserved at worst case before a call leaves, settled after.

Every function works inside the caller's transaction, so an answer and its bill are committed together.
``budget`` holds CHECK constraints: ``spent + reserved + uncertain <= cap`` cannot be broken by a bug, only refused.
Its row ``run`` is the run's; where a key has a cap of its own, a row of the key's name holds the share granted to
this run (distill.query.keys), and a reservation must fit under both.

::

    reserve --+-- settle      an answer came; what it cost is spent, the rest of the reservation is freed
              +-- release     the call did no work (never left, or was refused by the server)
              `-- uncertain   sent, but no answer came: charged at worst case, for good
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from distill.query.keys import Account

NANO = 1_000_000_000
RUN = "run"

SCHEMA = """
CREATE TABLE budget (
  id TEXT PRIMARY KEY,
  cap_nano INTEGER NOT NULL CHECK (cap_nano >= 0),
  spent_nano INTEGER NOT NULL DEFAULT 0 CHECK (spent_nano >= 0),
  reserved_nano INTEGER NOT NULL DEFAULT 0 CHECK (reserved_nano >= 0),
  uncertain_nano INTEGER NOT NULL DEFAULT 0 CHECK (uncertain_nano >= 0),
  CHECK (spent_nano + reserved_nano + uncertain_nano <= cap_nano)
) STRICT;
CREATE TABLE ledger (
  id INTEGER PRIMARY KEY,
  attempt_id INTEGER NOT NULL REFERENCES attempt (id),
  kind TEXT NOT NULL CHECK (kind IN ('reserve', 'settle', 'release', 'uncertain')),
  nano INTEGER NOT NULL CHECK (nano >= 0),
  at REAL NOT NULL
) STRICT;
"""


@dataclass(frozen=True, slots=True)
class Balance:
    """One budget, in nano-EUR."""

    cap: int = 0
    spent: int = 0
    reserved: int = 0
    uncertain: int = 0

    @property
    def committed(self) -> int:
        """What may have to be paid: spent, reserved and uncertain together."""
        return self.spent + self.reserved + self.uncertain


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of one reservation, in nano-EUR. ``budget``: the key's, where it has one."""

    attempt: int
    held: int
    charged: int = 0
    budget: str | None = None


def nano(eur: float) -> int:
    """EUR as integer nano-EUR, rounded down: a cap is never widened by rounding."""
    return int(eur * NANO)


def set_cap(connection: sqlite3.Connection, cap: int, budget: str = RUN) -> None:
    """Set a cap. One below what is already committed becomes exactly that: nothing more fits under it."""
    connection.execute(
        "INSERT INTO budget (id, cap_nano) VALUES (?, ?) ON CONFLICT (id) DO UPDATE"
        " SET cap_nano = max(excluded.cap_nano, spent_nano + reserved_nano + uncertain_nano)",
        (budget, cap),
    )


def reserve(connection: sqlite3.Connection, amount: int, account: Account | None = None) -> bool:
    """Reserve ``amount`` of the run's budget, and of the key's where it has one; False = it does not fit."""
    if not _fits(connection, amount, RUN):
        return False
    if account is None or _fits(connection, amount, account.id):
        return True
    account.grow(connection, amount)
    if _fits(connection, amount, account.id):
        return True
    _move(connection, RUN, -amount)
    return False


def _fits(connection: sqlite3.Connection, amount: int, budget: str) -> bool:
    cursor = connection.execute(
        "UPDATE budget SET reserved_nano = reserved_nano + ?1"
        " WHERE id = ?2 AND spent_nano + reserved_nano + uncertain_nano + ?1 <= cap_nano",
        (amount, budget),
    )
    return cursor.rowcount == 1


def _move(connection: sqlite3.Connection, budget: str, reserved: int, spent: int = 0, uncertain: int = 0) -> None:
    connection.execute(
        "UPDATE budget SET reserved_nano = reserved_nano + ?1, spent_nano = spent_nano + ?2,"
        " uncertain_nano = uncertain_nano + ?3 WHERE id = ?4",
        (reserved, spent, uncertain, budget),
    )


def close(connection: sqlite3.Connection, kind: str, ended: Sequence[Ended]) -> None:
    """End reservations with lines of one ``kind``; what is not charged is free again."""
    if not ended:
        return
    for budget in {RUN, *(end.budget for end in ended if end.budget)}:
        mine = [end for end in ended if budget in (RUN, end.budget)]
        held, charged = sum(end.held for end in mine), sum(end.charged for end in mine)
        _move(connection, budget, -held, **{"uncertain" if kind == "uncertain" else "spent": charged})
    write(connection, kind, [(end.attempt, end.charged if kind == "settle" else end.held) for end in ended])


def write(connection: sqlite3.Connection, kind: str, entries: list[tuple[int, int]]) -> None:
    """Append (attempt, nano-EUR) lines of one kind."""
    now = time.time()
    connection.executemany(
        "INSERT INTO ledger (attempt_id, kind, nano, at) VALUES (?, ?, ?, ?)",
        [(attempt, kind, amount, now) for attempt, amount in entries],
    )


def balance(connection: sqlite3.Connection, budget: str = RUN) -> Balance:
    """The run's budget, or another; all zero when no cap was ever set."""
    row = connection.execute(
        "SELECT cap_nano, spent_nano, reserved_nano, uncertain_nano FROM budget WHERE id = ?", (budget,)
    ).fetchone()
    return Balance(*row) if row else Balance()


def audit(connection: sqlite3.Connection) -> list[str]:
    """Differences between the budget and the sum of its ledger lines; empty when the books agree."""
    book = balance(connection)
    sums = dict(connection.execute("SELECT kind, sum(nano) FROM ledger GROUP BY kind").fetchall())
    (settled,) = connection.execute(
        "SELECT coalesce(sum(reserved_nano), 0) FROM attempt WHERE state = 'received' AND charged_nano IS NOT NULL"
    ).fetchone()
    open_nano = sums.get("reserve", 0) - settled - sums.get("release", 0) - sums.get("uncertain", 0)
    pairs = [
        ("spent", book.spent, sums.get("settle", 0)),
        ("uncertain", book.uncertain, sums.get("uncertain", 0)),
        ("reserved", book.reserved, open_nano),
    ]
    (wrong,) = connection.execute(
        "SELECT count(*) FROM attempt a LEFT JOIN"
        " (SELECT attempt_id, sum(nano) FILTER (WHERE kind = 'reserve') AS held,"
        "  sum(nano) FILTER (WHERE kind IN ('settle', 'uncertain')) AS charged FROM ledger GROUP BY attempt_id) l"
        " ON l.attempt_id = a.id WHERE a.reserved_nano IS NOT l.held OR a.charged_nano IS NOT l.charged"
    ).fetchone()
    pairs += [("attempts that differ from their lines", wrong, 0), *_key_pairs(connection)]
    return [f"{name}: budget says {a}, ledger says {b}" for name, a, b in pairs if a != b]


def _key_pairs(connection: sqlite3.Connection) -> list[tuple[str, int, int]]:
    return [
        (f"of {key}", budget, attempts)
        for key, budget, attempts in connection.execute(
            "SELECT id, spent_nano + reserved_nano + uncertain_nano,"
            " (SELECT coalesce(sum(coalesce(charged_nano, reserved_nano)), 0) FROM attempt"
            "  WHERE budget = b.id AND state <> 'released') FROM budget b WHERE id <> ?",
            (RUN,),
        )
    ]
