#!/usr/bin/env python3
"""Check a bundle: every file is there, is what SHA256SUMS says, and nothing else is there.

This one file needs only Python (3.8 or newer). A copy lies in every bundle:

    python verify.py              checks the folder that verify.py is in
    python verify.py FOLDER       checks another folder

Exit code 0: sound. 6: not sound; each problem is one line. 2: cannot be checked.
A copy inside a bundle can be exchanged together with the bundle: trust one that came another way.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import sys

SUMS = "SHA256SUMS"
MAX_SUMS_BYTES = 16_000_000
LINE = re.compile(r"([0-9a-f]{64})  ([^\n]+)\n")
BLOCK = 1 << 20


class NotABundle(Exception):
    """There is nothing to check: no folder, or no SHA256SUMS."""


def unsafe(name: str) -> str:
    """Why ``name`` may not be the path of a file in a bundle; '' when it may."""
    if not name.isprintable() or "\\" in name or len(name.encode("utf-8", "replace")) > 1000:
        return "unprintable, backslash or too long"
    if name.startswith("/") or (len(name) > 1 and name[1] == ":"):
        return "absolute path"
    for part in name.split("/"):
        if part in ("", ".", ".."):
            return "not a plain relative path"
        if len(part.encode("utf-8", "replace")) > 255:
            return "name longer than 255 bytes"
    return ""


def parse_sums(data: bytes) -> tuple[dict[str, str], list[str]]:
    """(path -> SHA-256 in hex, problems) of the bytes of a SHA256SUMS file. One spelling is legal: sorted, strict."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return {}, [SUMS + ": not UTF-8 text"]
    listed: dict[str, str] = {}
    problems: list[str] = []
    end = 0
    for found in LINE.finditer(text):
        if found.start() != end:
            break
        end = found.end()
        digest, name = found.groups()
        reason = unsafe(name)
        if reason:
            problems.append(f"{SUMS}: {name!r}: {reason}")
        elif name in listed or name == SUMS:
            problems.append(f"{SUMS}: {name!r} is listed twice or lists itself")
        else:
            listed[name] = digest
    if end != len(text):
        line = text.count("\n", 0, end) + 1
        problems.append(f"{SUMS}: line {line} is damaged")
    if list(listed) != sorted(listed):
        problems.append(SUMS + ": lines are not in order")
    if len({name.casefold() for name in listed}) != len(listed):
        problems.append(SUMS + ": two names differ only in case")
    if not listed:
        problems.append(SUMS + ": lists no file")
    return listed, problems


def walk(folder: str) -> tuple[list[str], list[str]]:
    """(regular files, problems) under ``folder``: links and special files are problems and are not followed."""
    files: list[str] = []
    problems: list[str] = []
    todo = [""]
    while todo:
        here = todo.pop()
        entries = sorted(os.scandir(os.path.join(folder, here)), key=lambda entry: entry.name)
        if here and not entries:
            problems.append(f"{here}: empty folder, not part of the bundle")
        for entry in entries:
            name = here + "/" + entry.name if here else entry.name
            mode = entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                todo.append(name)
            elif stat.S_ISREG(mode):
                files.append(name)
            else:
                problems.append(f"{name}: a link or special file, not part of a bundle")
    return sorted(files), problems


def sha256(path: str) -> str:
    """SHA-256 in hex of a regular file; a link is refused even when it took the file's place just now."""
    digest = hashlib.sha256()
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(handle, "rb") as file:
        for block in iter(lambda: file.read(BLOCK), b""):
            digest.update(block)
    return digest.hexdigest()


def check(folder: str, also: tuple[str, ...] = ()) -> list[str]:
    """Every problem of the bundle in ``folder``, one line each; [] = sound. ``also``: names allowed beside the list."""
    sums = os.path.join(folder, SUMS)
    if os.path.islink(sums) or not os.path.isfile(sums):
        raise NotABundle(f"{folder}: no {SUMS} file: not a bundle")
    with open(sums, "rb") as file:
        data = file.read(MAX_SUMS_BYTES + 1)
    if len(data) > MAX_SUMS_BYTES:
        return [SUMS + ": too large"]
    listed, problems = parse_sums(data)
    present, strange = walk(folder)
    problems += strange
    for name in sorted(set(present) - set(listed) - {SUMS} - set(also)):
        problems.append(f"{name}: not listed in {SUMS}")
    for name, digest in sorted(listed.items()):
        if name not in present:
            problems.append(f"{name}: missing")
        elif sha256(os.path.join(folder, *name.split("/"))) != digest:
            problems.append(f"{name}: changed")
    return problems


def main(argv: list[str]) -> int:
    """Check the folder named in ``argv`` (default: the one this file is in) and return the exit code."""
    if len(argv) > 2 or (len(argv) == 2 and argv[1].startswith("-")):
        sys.stdout.write(__doc__ or "")
        return 0 if argv[1:] in (["-h"], ["--help"]) else 2
    folder = argv[1] if len(argv) == 2 else os.path.dirname(os.path.abspath(__file__))
    try:
        problems = check(folder)
    except (NotABundle, OSError) as error:
        sys.stderr.write(f"verify: {error}\n")
        return 2
    verdict = f"NOT SOUND: {len(problems)} problem(s)" if problems else "sound: nothing changed since the seal"
    for line in [*problems, verdict]:
        sys.stdout.write(line.encode("ascii", "backslashreplace").decode() + "\n")
    return 6 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
