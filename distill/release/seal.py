"""The last step of a bundle: its own verify tool, and SHA256SUMS over every file."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from distill.artifacts import sha256_file
from distill.release import verify_bundle

if TYPE_CHECKING:
    from pathlib import Path

TIME = 946_684_800
"""Time stamp of every file, 2000-01-01: when a bundle was built must not change it."""


def seal(bundle: Path) -> None:
    """Add `verify.py` and `SHA256SUMS`, and give every file the same mode and time."""
    shutil.copyfile(str(verify_bundle.__file__), bundle / "verify.py")
    files = sorted(f.relative_to(bundle).as_posix() for f in bundle.rglob("*") if f.is_file())
    lines = [f"{sha256_file(bundle / name)}  {name}\n" for name in files]
    (bundle / verify_bundle.SUMS).write_bytes("".join(lines).encode("utf-8"))
    problems = verify_bundle.check(str(bundle))
    assert not problems, problems
    for path in sorted(bundle.rglob("*"), reverse=True):
        path.chmod(0o700 if path.is_dir() else 0o600)
        os.utime(path, (TIME, TIME))
