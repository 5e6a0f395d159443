"""Peak memory of this process since a mark (Linux)."""

from __future__ import annotations

from pathlib import Path

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def reset_peak() -> None:
    """Start a new mark; does nothing where the kernel does not allow it."""
    try:
        CLEAR.write_text("5")
    except OSError:
        return


def peak_bytes() -> int | None:
    """Largest resident size since the mark, or None when the system does not say."""
    try:
        lines = STATUS.read_text("ascii", "replace").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(found[0]) * 1024 if found else None
