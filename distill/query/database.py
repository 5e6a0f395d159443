"""An SQLite file that keeps its word: opened, checked and locked; its errors as endings a person understands."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import sqlite3
import struct
import zlib
from typing import TYPE_CHECKING

from distill.artifacts import disk_problem, fsync_dir
from distill.errors import DataError, DiskProblem, EnvironmentProblem, IntegrityError, RunLocked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

APPLICATION_ID = 0x416C6D62  # "Almb"
SCHEMA_VERSION = 2
SALVAGE = "take what is intact with: distill salvage RUN_FOLDER"
RAW, ZLIB = 0, 1
COMPRESS_FROM = 4096  # bytes; below that the compressor costs more time than a committed row

SCHEMA = """
CREATE TABLE store (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  uuid BLOB NOT NULL CHECK (length(uuid) = 16),
  commits INTEGER NOT NULL
) STRICT;
INSERT INTO store (id, uuid, commits) VALUES (1, randomblob(16), 0);
"""


def take_lock(path: Path) -> int:
    """The handle of the locked file beside the store. Raises RunLocked, DiskProblem."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(path.with_name(path.name + "-lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise disk_problem(error, path) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise RunLocked(
            "the store is open in another process", where=str(path), next="wait for it, then run the same command"
        ) from None
    return handle


class Mark:
    """How many commits the store has acknowledged, written beside it after each: a store with fewer was cut short.

    Not synced: after a power cut it may say too little, never too much.
    """

    TEXT = struct.Struct("<16sQ")

    def __init__(self, handle: int):
        self._handle = handle

    def clear(self) -> None:
        """A new store begins."""
        os.ftruncate(self._handle, 0)

    def set(self, uuid: bytes, commits: int) -> None:
        """The store acknowledges its ``commits``-th commit."""
        with contextlib.suppress(OSError):  # a full disk: the commits themselves say so
            os.pwrite(self._handle, self.TEXT.pack(uuid, commits), 0)

    def check(self, uuid: bytes | None, commits: int, path: Path) -> None:
        """Raise IntegrityError when the store has fewer commits than it acknowledged."""
        data = os.pread(self._handle, self.TEXT.size, 0)
        if len(data) < self.TEXT.size:
            return
        marked, acknowledged = self.TEXT.unpack(data)
        if commits < acknowledged and uuid in (marked, None):
            raise IntegrityError(
                f"{acknowledged - commits} acknowledged commits are missing (no {path.name}-wal, or an older file)",
                where=str(path),
                next=f"put the missing file back, or {SALVAGE}",
            )


def connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False, cached_statements=64)


def open_writer(path: Path, schema: str, mark: Mark) -> sqlite3.Connection:
    fresh = not path.exists()
    if fresh:
        mark.clear()
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise disk_problem(error, path) from error
    connection = connect(path)
    try:
        _prepare(connection, path, schema, mark, fresh)
    except BaseException:
        connection.close()  # a log left open here would hide the one that a person puts back
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path, schema: str, mark: Mark, fresh: bool) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if not tables:
        mark.check(None, 0, path)
    if tables and application != APPLICATION_ID:
        raise DataError("this file is not a store of answers", where=str(path), next="choose another run folder")
    if version > SCHEMA_VERSION:
        raise DataError(
            f"written by a newer version (schema {version}, known: {SCHEMA_VERSION})",
            where=str(path),
            next="pip install --upgrade alambic",
        )
    # SQLite keeps the old mode in silence when a switch fails, so every answer is compared.
    _pragma(connection, path, "journal_mode", "WAL", "wal")
    _pragma(connection, path, "synchronous", "FULL", 2)
    _pragma(connection, path, "foreign_keys", "ON", 1)
    _pragma(connection, path, "wal_autocheckpoint", "4000", 4000)
    if not tables:
        connection.executescript(
            f"BEGIN IMMEDIATE; {SCHEMA} {schema} PRAGMA application_id = {APPLICATION_ID};"
            f" PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
        )
    elif version < SCHEMA_VERSION:
        _upgrade(connection, path, version)
    if fresh or not tables:
        fsync_dir(path.parent)
    row = connection.execute(
        "SELECT uuid, commits FROM store WHERE typeof(uuid) = 'blob' AND typeof(commits) = 'integer'"
    ).fetchone()
    if row is None:
        raise damaged(path)
    mark.check(row[0], row[1], path)


def _upgrade(connection: sqlite3.Connection, path: Path, version: int) -> None:
    """A store of an older version as one of this version, in one transaction; a copy of the old one stays."""
    kept = path.with_name(f"{path.name}.v{version}")
    kept.unlink(missing_ok=True)
    connection.execute("VACUUM INTO ?", (str(kept),))
    fsync_dir(path.parent)
    connection.executescript(
        f"BEGIN IMMEDIATE; {SCHEMA} ALTER TABLE attempt ADD COLUMN budget TEXT REFERENCES budget (id);"
        f" PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
    )


def _pragma(connection: sqlite3.Connection, path: Path, name: str, value: str, expected: object) -> None:
    connection.execute(f"PRAGMA {name} = {value}").fetchone()
    (answer,) = connection.execute(f"PRAGMA {name}").fetchone()
    if answer != expected:
        raise EnvironmentProblem(
            f"this file system does not allow {name}={value} (got {answer!r})",
            where=str(path),
            next="put the run folder on a local disk with --out DIR",
        )


class Ballast:
    """Disk space held back while a store is open, given up when the disk is full: paid answers then still fit."""

    def __init__(self, path: Path, size: int = 4 * 1024 * 1024):
        self._path = path.with_name(path.name + "-ballast")
        try:
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(handle, 0, size)
            finally:
                os.close(handle)
        except OSError as error:
            self._path.unlink(missing_ok=True)
            raise disk_problem(error, path) from error

    def drop(self) -> bool:
        """Give the space back; False when that was done before."""
        try:
            self._path.unlink()
        except FileNotFoundError:
            return False
        return True


def is_full(error: Exception) -> bool:
    """True when SQLite ran out of space (and nothing else is wrong)."""
    return isinstance(error, sqlite3.Error) and (getattr(error, "sqlite_errorcode", 0) & 0xFF) == sqlite3.SQLITE_FULL


def pack(data: bytes) -> tuple[int, bytes]:
    if len(data) >= COMPRESS_FROM and len(small := zlib.compress(data, 1)) < len(data):
        return ZLIB, small
    return RAW, data


def unpack(codec: int, blob: bytes) -> bytes:
    return zlib.decompress(blob) if codec == ZLIB else blob


def checked(codec: int, blob: bytes, digest: bytes, where: str) -> bytes:
    try:
        raw = unpack(codec, blob)
    except zlib.error:
        raw = None
    if raw is None or hashlib.sha256(raw).digest() != digest:
        raise IntegrityError("a stored answer is damaged", where=where, next=SALVAGE)
    return raw


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """SQLite errors inside the block as known endings."""
    try:
        yield
    except sqlite3.Error as error:
        raise explain(error, path) from error


def damaged(path: Path) -> IntegrityError:
    """The one line for a store whose content cannot be."""
    return IntegrityError("the store of answers is damaged", where=str(path), next=SALVAGE)


def explain(error: sqlite3.Error, path: Path) -> Exception:
    """The known ending behind an SQLite error; an unknown one stays what it is (our bug)."""
    code = getattr(error, "sqlite_errorcode", None) or 0
    if code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return damaged(path)
    if code & 0xFF in (
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
    ):
        return DiskProblem(
            f"cannot write: {error}",
            where=str(path),
            safe="every answer committed so far",
            next="free the disk, then run the same command",
        )
    return error
