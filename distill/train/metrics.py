"""metrics.jsonl: one line per step, in order, none twice, none missing, whatever was killed when.

Only what the step determines is written (no clock), so the file of a resumed run has the same bytes.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from distill.progress import say

if TYPE_CHECKING:
    from pathlib import Path


class MetricsLog:
    """Appends lines after the first ``start`` bytes; what a dead process wrote behind them is cut off."""

    def __init__(self, path: Path, start: int, *, silent: bool = False):
        self._file = None if silent else path.open("r+b" if path.exists() else "w+b")
        if self._file is not None:
            size = self._file.seek(0, os.SEEK_END)
            if size < start:
                say(f"train: {path} has lost its first part; later lines are appended")
            self._file.truncate(min(start, size))
            self._file.seek(0, os.SEEK_END)

    def write(self, values: dict[str, Any]) -> None:
        """Append one line."""
        if self._file is not None:
            self._file.write(json.dumps(values, allow_nan=False).encode() + b"\n")
            self._file.flush()

    def sync(self) -> int:
        """Make the file durable; return its length in bytes."""
        if self._file is None:
            return 0
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Make the file durable and close it."""
        if self._file is not None:
            self.sync()
            self._file.close()
