"""Run a program that a model wrote: a process of its own with limits on time, memory, files and output.

The limits keep a wrong program from harming the run; they are no jail for a hostile one. Linux refuses it the network
where the kernel lets a process give it up. Run untrusted models' code inside a container or a virtual machine.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

OUTPUT = 4000
"""Characters of output that are kept."""
WRITTEN = 1 << 20
"""Largest file a program may write, its own output included, in bytes."""
CHILD = Path(__file__).with_name("_sandboxed.py")


@dataclass(frozen=True, slots=True)
class Run:
    """``passed``: every line was reached. ``reason``: "" or `timeout`, `memory`, `exit`, `error`."""

    passed: bool
    reason: str
    output: str
    """The end of what it printed, errors included."""


def run_python(program: str, *, timeout_s: float = 10.0, memory_mb: int = 512) -> Run:
    """Run ``program`` to its end. One that leaves early, with exit code 0 too, has not passed."""
    token = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="sandbox-", ignore_cleanup_errors=True) as folder:
        home, log = Path(folder) / "home", Path(folder) / "log"
        home.mkdir()
        script = Path(folder) / "program.py"
        script.write_bytes(program.encode("utf-8", "backslashreplace"))
        done, code = Path(folder) / "done", None
        limits = [str(max(1, int(timeout_s) + 1)), str(memory_mb << 20), str(WRITTEN)]
        command = [sys.executable, "-I", "-S", "-B", str(CHILD), str(script), str(done), *limits]
        with log.open("wb") as output:
            child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                cwd=home,
                env={"HOME": str(home), "PATH": os.defpath, "LANG": "C.UTF-8"},
                start_new_session=True,
            )
            try:
                child.communicate(token.encode(), timeout=timeout_s)
                code = child.returncode
            except subprocess.TimeoutExpired:
                pass
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        text = log.read_bytes()[-4 * OUTPUT :].decode("utf-8", "replace")[-OUTPUT:]
        passed = code == 0 and done.is_file() and done.read_bytes() == token.encode()
        return Run(passed, "" if passed else _reason(code, text), text)


def _reason(code: int | None, text: str) -> str:
    """Why a program did not pass."""
    if code in (None, -signal.SIGXCPU, -signal.SIGKILL):
        return "timeout"
    if "MemoryError" in text:
        return "memory"
    return "exit" if code == 0 else "error"
