"""Requests and answers taken out of a store for good: a person asked for it. What stays is the key and the money."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from typing import TYPE_CHECKING

from distill.query import database

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from distill.query.store import Store

COPIES = (".v*", ".damaged*", ".reading*", ".new*")  # what upgrades and salvage leave beside a store


def holding(path: Path, text: str) -> set[str]:
    """Keys of the requests that hold ``text``, or whose answers do. The store must not be open."""
    written = {text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]}  # as JSON may spell it
    wanted = [spelling.encode("utf-8", "surrogatepass") for spelling in written]
    query = (
        "SELECT q.key, q.codec, q.canonical, r.codec, r.raw FROM request q"
        " LEFT JOIN attempt a ON a.request_id = q.id LEFT JOIN response r ON r.attempt_id = a.id"
    )
    found = set()
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection, database.explained(path):
        for key, codec, canonical, answer_codec, raw in connection.execute(query):
            texts = (database.unpack(codec, canonical), database.unpack(answer_codec, raw) if raw else b"")
            if any(spelling in one for spelling in wanted for one in texts):
                found.add(key.hex())
    return found


def erase(store: Store, keys: Iterable[str]) -> int:
    """Erase these requests and their answers, and rewrite the file; how many there were. They are never asked again."""
    count = store.erase(keys)
    for pattern in COPIES:
        for copy in store.path.parent.glob(store.path.name + pattern):
            copy.unlink()
    return count


def struck(connection: sqlite3.Connection) -> set[str]:
    """Keys of what was erased. The index is made by the first erasure, so a store without one is not searched."""
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'request_erased'").fetchone() is None:
        return set()
    return {key.hex() for (key,) in connection.execute("SELECT key FROM request WHERE canonical = x''")}


def strike(connection: sqlite3.Connection, keys: Iterable[str]) -> int:
    """The rows, inside the writer's transaction."""
    connection.execute("CREATE INDEX IF NOT EXISTS request_erased ON request (key) WHERE canonical = x''")
    count = 0
    for key in keys:
        row = connection.execute(
            "UPDATE request SET codec = 0, canonical = x'' WHERE key = ? AND canonical <> x'' RETURNING id",
            (bytes.fromhex(key),),
        ).fetchone()
        if row is None:
            continue
        connection.execute(
            "DELETE FROM response WHERE attempt_id IN (SELECT id FROM attempt WHERE request_id = ?)", row
        )
        connection.execute("UPDATE attempt SET provider_request_id = '' WHERE request_id = ?", row)
        count += 1
    return count
