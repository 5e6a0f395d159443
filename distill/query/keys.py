"""A cap on everything asked with one key: runs take shares of it from a small file they all know.

Each run reserves and settles in its own store, under the share it was granted; the file is touched only when a share
grows, before the reservation that needs it, and when a store closes. A killed run keeps its share until it is opened
again, so ``spent + reserved + uncertain`` of all runs together never passes the cap.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.artifacts import disk_problem
from distill.query import database, ledger

if TYPE_CHECKING:
    from collections.abc import Iterator

SHARES = 2048  # a share grows by this part of the cap, or by what one reservation needs

SCHEMA = """
CREATE TABLE IF NOT EXISTS share (
  budget TEXT NOT NULL,
  run BLOB NOT NULL,
  nano INTEGER NOT NULL CHECK (nano >= 0),
  PRIMARY KEY (budget, run)
) STRICT
"""


def state_dir() -> Path:
    """Where what belongs to a user, not to a run, is kept: $ALAMBIC_STATE, else the user's state folder."""
    if own := os.environ.get("ALAMBIC_STATE"):
        return Path(own)
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "alambic"


@dataclass(frozen=True, slots=True)
class Account:
    """A key's budget of one month. ``id`` names key, endpoint and month, never the key itself."""

    id: str
    cap_nano: int
    path: Path

    @classmethod
    def of(cls, config: Any) -> Account | None:
        """The account behind a provider's configuration, or None when it sets no ``max_cost_eur_per_month``."""
        cap = getattr(config, "max_cost_eur_per_month", None)
        if cap is None:
            return None
        month = datetime.datetime.now(datetime.UTC).strftime("%Y-%m")
        key = getattr(config, "api_key_env", "") or "no key"
        return cls(f"{key} at {getattr(config, 'base_url', '')} in {month}", ledger.nano(cap), state_dir() / "keys.db")

    def open(self, connection: sqlite3.Connection) -> None:
        """Give the run of this store a budget of this account; a share that the file forgot is entered again."""
        connection.execute("INSERT INTO budget (id, cap_nano) VALUES (?, 0) ON CONFLICT (id) DO NOTHING", (self.id,))
        self.grow(connection, 0)

    def grow(self, connection: sqlite3.Connection, amount: int) -> None:
        """Ask for room for ``amount`` more; the store's budget then says what was granted."""
        book = ledger.balance(connection, self.id)
        need = book.committed + amount
        run = _run(connection)
        with self._shares() as file:
            shares = dict(file.execute("SELECT run, nano FROM share WHERE budget = ?", (self.id,)).fetchall())
            held = max(shares.pop(run, 0), book.committed)  # never less than before: this transaction may yet fail
            left = self.cap_nano - sum(shares.values())
            share = max(held, min(left, need + self.cap_nano // SHARES)) if need <= left else held
            self._enter(file, run, share)
        ledger.set_cap(connection, share, self.id)

    def close(self, connection: sqlite3.Connection) -> None:
        """Give back what was not used."""
        with self._shares() as file:
            self._enter(file, _run(connection), ledger.balance(connection, self.id).committed)

    def _enter(self, file: sqlite3.Connection, run: bytes, share: int) -> None:
        file.execute(
            "INSERT INTO share (budget, run, nano) VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET nano = ?3",
            (self.id, run, share),
        )

    @contextlib.contextmanager
    def _shares(self) -> Iterator[sqlite3.Connection]:
        """The file, inside one transaction. No write-ahead log: many processes write here."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise disk_problem(error, self.path) from error
        with database.explained(self.path):
            file = sqlite3.connect(self.path, timeout=60, isolation_level=None)
            try:
                file.execute("PRAGMA synchronous = FULL")
                file.execute("BEGIN IMMEDIATE")
                file.execute(SCHEMA)
                yield file
                file.execute("COMMIT")
            finally:
                file.close()


def _run(connection: sqlite3.Connection) -> bytes:
    (uuid,) = connection.execute("SELECT uuid FROM store").fetchone()
    return bytes(uuid)
