"""Tar and zip archives, packed with equal bytes each time and unpacked without trust.

The extractor is our own: it writes regular files and nothing else, under names it has checked, each created anew
without following links, within caps on count and size. Anything else in the archive refuses the whole archive.
"""

from __future__ import annotations

import io
import lzma
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from functools import partial
from typing import IO, TYPE_CHECKING

from distill.errors import IntegrityError, Refused
from distill.release.verify_bundle import unsafe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MAX_FILES = 10_000
MAX_DEPTH = 16
MAX_BYTES = 4 << 40
MAX_RATIO = 200
"""A member may unpack to this many times the archive's size: weights hardly compress, bombs do."""
RATIO_FLOOR = 64 << 20
BLOCK = 1 << 20
MAX_READ = 16 << 20
UNREADABLE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    ValueError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
    struct.error,
)


class _Capped(io.FileIO):
    """A file that refuses one huge read: an extended header may not fill the memory."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0 or size > MAX_READ:
            raise ValueError(f"one read of {size} bytes")
        return super().read(size) or b""


@dataclass(frozen=True)
class Member:
    """One thing in an archive, before it is trusted."""

    name: str
    size: int
    problem: str
    """Why it may not be unpacked; '' for a regular file."""
    folder: bool
    open: Callable[[], IO[bytes] | None]


def is_archive(path: Path) -> bool:
    """True for a file that begins like an uncompressed tar, or ends like a zip."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(512)
    return head[257:262] == b"ustar" or zipfile.is_zipfile(path)


def unpack(path: Path, into: Path) -> None:
    """Write the archive's files into the empty folder ``into``. Refused names the member that may not be unpacked."""
    try:
        with path.open("rb") as file:
            _unpack(path, file, into)
    except UNREADABLE as error:
        raise IntegrityError(f"not a readable archive: {str(error)[:120]}", where=path.name) from None


def _unpack(path: Path, file: IO[bytes], into: Path) -> None:
    seen: set[str] = set()
    budget = min(MAX_BYTES, max(RATIO_FLOOR, path.stat().st_size * MAX_RATIO))
    members = _zip_members(file) if zipfile.is_zipfile(file) else _tar_members(path)
    for count, member in enumerate(members, 1):
        name = member.name.rstrip("/") if member.folder else member.name
        name = name.removeprefix("./")
        if member.folder and name in ("", "."):
            continue
        problem = member.problem or unsafe(name)
        if not problem and name.casefold() in seen and not member.folder:
            problem = "the name comes twice"
        if not problem and (count > MAX_FILES or name.count("/") >= MAX_DEPTH):
            problem = f"more than {MAX_FILES} members or {MAX_DEPTH} levels"
        if not problem and member.size > budget:
            problem = "unpacks to far more than the archive holds"
        if problem:
            raise Refused(f"{ascii(member.name)[:120]}: {problem}", where=path.name, next="ask the sender for another")
        if member.folder:
            continue
        seen.add(name.casefold())
        budget -= _write(member, into, name, budget, path)


def _write(member: Member, into: Path, name: str, budget: int, path: Path) -> int:
    target = into.joinpath(*name.split("/"))
    try:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    except (FileExistsError, NotADirectoryError):
        raise Refused(f"{ascii(name)[:120]}: the name is a file and a folder", where=path.name) from None
    written = 0
    source = member.open()
    if source is None:
        raise IntegrityError(f"{ascii(name)[:120]}: no content", where=path.name)
    with source, os.fdopen(handle, "wb") as out:
        while block := source.read(BLOCK):
            written += len(block)
            if written > min(member.size, budget):
                raise Refused(f"{ascii(name)[:120]}: longer than it says", where=path.name)
            out.write(block)
    if written != member.size:
        raise IntegrityError(f"{ascii(name)[:120]}: shorter than it says", where=path.name)
    return written


def _tar_members(path: Path) -> Iterator[Member]:
    with _Capped(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
        for info in tar:
            problem = "" if info.isreg() or info.isdir() else "a link, device or other special member"
            if info.issparse():
                problem = "a sparse file"
            yield Member(info.name, info.size, problem, info.isdir(), partial(tar.extractfile, info))


def _zip_members(file: IO[bytes]) -> Iterator[Member]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            problem = "" if kind in (0, stat.S_IFREG, stat.S_IFDIR) else "a link, device or other special member"
            if info.flag_bits & 0x1:
                problem = "encrypted"
            if info.orig_filename != info.filename and not problem:
                problem = "the name holds a NUL byte or a foreign separator"
            yield Member(info.orig_filename, info.file_size, problem, info.is_dir(), partial(archive.open, info))


def pack(folder: Path, out: Path) -> None:
    """Write ``folder`` as an uncompressed tar: sorted, owner 0, time 0, mode 0644: equal folders, equal bytes."""
    with out.open("xb") as file, tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(f for f in folder.rglob("*") if f.is_file()):
            info = tarfile.TarInfo(f"{folder.name}/{path.relative_to(folder).as_posix()}")
            info.size, info.mode, info.mtime = path.stat().st_size, 0o644, 0
            with path.open("rb") as content:
                tar.addfile(info, content)
