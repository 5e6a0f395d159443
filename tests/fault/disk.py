"""Between SQLite and the disk: a VFS of SQLite's own library that notes every write and sync, and fails on request.

The real store runs through it, unchanged. ``Recorder`` notes what the store does to its files; ``images`` makes from
that what a power cut may leave: what was synced, and of the rest nothing, all, any part in any order, or torn sectors.
"""

from __future__ import annotations

import ctypes
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

POINTER = ctypes.c_void_p
# A name is a pointer, never a copy: SQLite keeps it for as long as the file is open.
OPEN = ctypes.CFUNCTYPE(ctypes.c_int, POINTER, POINTER, POINTER, ctypes.c_int, POINTER)
DELETE = ctypes.CFUNCTYPE(ctypes.c_int, POINTER, POINTER, ctypes.c_int)
WRITE = ctypes.CFUNCTYPE(ctypes.c_int, POINTER, POINTER, ctypes.c_int, ctypes.c_int64)
TRUNCATE = ctypes.CFUNCTYPE(ctypes.c_int, POINTER, ctypes.c_int64)
SYNC = ctypes.CFUNCTYPE(ctypes.c_int, POINTER, ctypes.c_int)
WORDS_OF_METHODS = 19  # version and eighteen functions of sqlite3_io_methods
SECTOR = 512
FULL, IOERR_WRITE, IOERR_FSYNC = 13, 10 | 3 << 8, 10 | 4 << 8


class Vfs(ctypes.Structure):
    """sqlite3_vfs."""

    _fields_ = [
        ("version", ctypes.c_int), ("file_size", ctypes.c_int), ("max_path", ctypes.c_int), ("next", POINTER),
        ("name", ctypes.c_char_p), ("data", POINTER), ("open", POINTER), ("delete", POINTER),
        ("rest", POINTER * 13),
    ]  # fmt: skip


def library() -> ctypes.CDLL | None:
    """The SQLite that Python's own module uses; None where it is built in."""
    import sqlite3  # noqa: F401 - loads the library

    lines = Path("/proc/self/maps").read_text().splitlines() if Path("/proc/self/maps").exists() else []
    paths = {line.split()[-1] for line in lines if "libsqlite3" in line}
    return ctypes.CDLL(paths.pop()) if paths else None


@dataclass
class Event:
    """``kind``: write, truncate, sync, delete, folder (its entries are durable) or ack (``data``: the promise)."""

    kind: str
    path: str = ""
    at: int = 0
    data: object = b""


@dataclass
class Recorder:
    """Everything that happens to files below ``folder``. ``fail``: (kind, nth, code) of the one call that fails.

    A context manager; ``failed_at`` is set when the failure was delivered.
    """

    folder: Path
    fail: tuple[str, int, int] | None = None
    events: list[Event] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    failed: bool = False

    def __enter__(self):
        self._files: dict[int, str] = {}
        self._kept: list[object] = []
        self._tables: dict[int, ctypes.Array] = {}
        lib = self._lib = library()
        lib.sqlite3_vfs_find.restype = POINTER
        self._original = lib.sqlite3_vfs_find(None)
        vfs = self._vfs = Vfs.from_buffer_copy((ctypes.c_char * ctypes.sizeof(Vfs)).from_address(self._original))
        self._real_open, self._real_delete = OPEN(vfs.open), DELETE(vfs.delete)
        vfs.name = b"recording"
        vfs.open = self._keep(OPEN(self._open))
        vfs.delete = self._keep(DELETE(self._delete))
        lib.sqlite3_vfs_register(ctypes.byref(vfs), 1)
        self._os = os.pwrite, os.ftruncate, os.fsync
        os.pwrite, os.ftruncate, os.fsync = self._pwrite, self._ftruncate, self._fsync
        return self

    def __exit__(self, *exc):
        os.pwrite, os.ftruncate, os.fsync = self._os
        self._lib.sqlite3_vfs_unregister(ctypes.byref(self._vfs))
        self._lib.sqlite3_vfs_register(POINTER(self._original), 1)

    def note(self, kind: str, path: str = "", at: int = 0, data: object = b"") -> None:
        """Add an event."""
        self.events.append(Event(kind, path, at, data))

    def _keep(self, function) -> int:
        self._kept.append(function)
        return ctypes.cast(function, POINTER).value

    def _fails(self, kind: str) -> int:
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if self.fail is not None and self.fail[:2] == (kind, self.counts[kind]):
            self.failed = True
            return self.fail[2]
        return 0

    # -- SQLite's calls -------------------------------------------------------------------------------------

    def _open(self, _, name, file, flags, out):
        code = self._real_open(self._original, name, file, flags, out)
        if code == 0 and name and (path := _path(name)).is_relative_to(self.folder):
            methods = ctypes.cast(file, ctypes.POINTER(POINTER))
            if methods[0] is not None:
                self._files[file] = path.name
                methods[0] = self._table(methods[0])
        return code

    def _table(self, original: int) -> int:
        if original not in self._tables:
            words = (POINTER * WORDS_OF_METHODS).from_buffer_copy(
                (ctypes.c_char * (WORDS_OF_METHODS * ctypes.sizeof(POINTER))).from_address(original)
            )
            real_write, real_truncate, real_sync = WRITE(words[3]), TRUNCATE(words[4]), SYNC(words[5])

            def write(file, data, size, at):
                if code := self._fails("write"):
                    return code
                self.note("write", self._files[file], at, ctypes.string_at(data, size))
                return real_write(file, data, size, at)

            def truncate(file, size):
                self.note("truncate", self._files[file], size)
                return real_truncate(file, size)

            def sync(file, flags):
                if code := self._fails("sync"):
                    return code
                time.sleep(0.001)  # a disk takes its time: who is told too early acts now
                code = real_sync(file, flags)
                self.note("sync", self._files[file])
                return code

            for place, function in ((3, WRITE(write)), (4, TRUNCATE(truncate)), (5, SYNC(sync))):
                words[place] = self._keep(function)
            self._tables[original] = words
        return ctypes.addressof(self._tables[original])

    def _delete(self, _, name, sync_folder):
        path = _path(name)
        if path.is_relative_to(self.folder):
            self.note("delete", path.name)
        return self._real_delete(self._original, name, sync_folder)

    # -- the store's own calls ------------------------------------------------------------------------------

    def _name(self, handle: int) -> str | None:
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        return path.name if path.is_relative_to(self.folder) and path != self.folder else None

    def _pwrite(self, handle, data, at):
        if name := self._name(handle):
            self.note("write", name, at, bytes(data))
        return self._os[0](handle, data, at)

    def _ftruncate(self, handle, size):
        if name := self._name(handle):
            self.note("truncate", name, size)
        return self._os[1](handle, size)

    def _fsync(self, handle):
        self._os[2](handle)
        if Path(os.readlink(f"/proc/self/fd/{handle}")) == self.folder:
            self.note("folder")
        elif name := self._name(handle):
            self.note("sync", name)


def _path(name: int) -> Path:
    return Path(os.fsdecode(ctypes.string_at(name)))


# -- what a power cut leaves ----------------------------------------------------------------------------------


@dataclass
class _File:
    synced: bytearray = field(default_factory=bytearray)
    waiting: list[Event] = field(default_factory=list)
    entry: bool = False  # its name is durable

    def apply(self, events, draw=None) -> bytearray:
        data = bytearray(self.synced)
        for event in events:
            if event.kind == "truncate":
                del data[event.at :]
                continue
            block = event.data
            if draw is not None and draw.random() < 0.3:  # torn: only some of its sectors arrived
                for start in range(0, len(block), SECTOR):
                    if draw.random() < 0.5:
                        _put(data, event.at + start, block[start : start + SECTOR])
                continue
            _put(data, event.at, block)
        return data


def _put(data: bytearray, at: int, block: bytes) -> None:
    if len(data) < at:
        data.extend(bytes(at - len(data)))
    data[at : at + len(block)] = block


def images(events, draw, share: float = 1.0):
    """(what was promised so far, how it was cut, {file: bytes}) at every event that changes a file."""
    files: dict[str, _File] = {}
    promised: list[object] = []
    for event in events:
        if event.kind == "ack":
            promised.append(event.data)
            continue
        if event.kind == "folder":
            for file in files.values():
                file.entry = True
        elif event.kind == "delete":
            files.pop(event.path, None)
        else:
            file = files.setdefault(event.path, _File())
            if event.kind == "sync":
                file.synced, file.waiting = file.apply(file.waiting), []
                file.entry |= event.path != "run.db"  # SQLite syncs the folder of a new log; of the store, we do
            else:
                file.waiting.append(event)
        if draw.random() < share:
            yield from _cuts(files, list(promised), draw)


def _cuts(files, promised, draw):
    yield promised, "nothing unsynced", {name: bytes(f.synced) for name, f in files.items() if f.entry}
    yield promised, "everything", {name: bytes(f.apply(f.waiting)) for name, f in files.items()}
    for how in ("some, in any order", "torn"):
        left = {}
        for name, file in files.items():
            if file.entry or draw.random() < 0.5:
                part = [event for event in file.waiting if draw.random() < 0.5]
                left[name] = bytes(file.apply(part, draw if how == "torn" else None))
        yield promised, how, left
