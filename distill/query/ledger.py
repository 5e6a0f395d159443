"""The money side of the store: integer nano-EUR, reserved at worst case before a call leaves, settled after.

Every function works inside the caller's transaction, so an answer and its bill are committed together.
``budget`` holds CHECK constraints: ``spent + reserved + uncertain <= cap`` cannot be broken by a bug, only refused.

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


def nano(eur: float) -> int:
    """EUR as integer nano-EUR, rounded down: a cap is never widened by rounding."""
    return int(eur * NANO)


def set_cap(connection: sqlite3.Connection, cap: int) -> None:
    """Set the cap. One below what is already committed becomes exactly that: nothing more fits under it."""
    connection.execute(
        "INSERT INTO budget (id, cap_nano) VALUES (?, ?) ON CONFLICT (id) DO UPDATE"
        " SET cap_nano = max(excluded.cap_nano, spent_nano + reserved_nano + uncertain_nano)",
        (RUN, cap),
    )


def fits(connection: sqlite3.Connection, amount: int) -> bool:
    """Move ``amount`` into the reservation when it fits under the cap; False, and nothing done, when it does not."""
    cursor = connection.execute(
        "UPDATE budget SET reserved_nano = reserved_nano + ?1"
        " WHERE id = ?2 AND spent_nano + reserved_nano + uncertain_nano + ?1 <= cap_nano",
        (amount, RUN),
    )
    return cursor.rowcount == 1


def move(connection: sqlite3.Connection, reserved: int, *, spent: int = 0, uncertain: int = 0) -> None:
    """End reservations of ``reserved``: ``spent`` and ``uncertain`` of it are charged, the rest is free again."""
    connection.execute(
        "UPDATE budget SET reserved_nano = reserved_nano - ?1, spent_nano = spent_nano + ?2,"
        " uncertain_nano = uncertain_nano + ?3 WHERE id = ?4",
        (reserved, spent, uncertain, RUN),
    )


def write(connection: sqlite3.Connection, kind: str, entries: list[tuple[int, int]]) -> None:
    """Append (attempt, nano-EUR) lines of one kind."""
    now = time.time()
    connection.executemany(
        "INSERT INTO ledger (attempt_id, kind, nano, at) VALUES (?, ?, ?, ?)",
        [(attempt, kind, amount, now) for attempt, amount in entries],
    )


def balance(connection: sqlite3.Connection) -> Balance:
    """The run's budget; all zero when no cap was ever set."""
    row = connection.execute(
        "SELECT cap_nano, spent_nano, reserved_nano, uncertain_nano FROM budget WHERE id = ?", (RUN,)
    ).fetchone()
    return Balance(*row) if row else Balance()


def audit(connection: sqlite3.Connection) -> list[str]:
    """Differences between the budget and the sum of its ledger lines; empty when the books agree."""
    book = balance(connection)
    sums = dict(connection.execute("SELECT kind, sum(nano) FROM ledger GROUP BY kind").fetchall())
    (settled,) = connection.execute(
        "SELECT coalesce(sum(reserved_nano), 0) FROM attempt WHERE state = 'received' AND reserved_nano IS NOT NULL"
    ).fetchone()
    open_nano = sums.get("reserve", 0) - settled - sums.get("release", 0) - sums.get("uncertain", 0)
    pairs = [
        ("spent", book.spent, sums.get("settle", 0)),
        ("uncertain", book.uncertain, sums.get("uncertain", 0)),
        ("reserved", book.reserved, open_nano),
    ]
    return [f"{name}: budget says {a}, ledger says {b}" for name, a, b in pairs if a != b]
