"""The inside of the sandbox: takes its limits, runs the program, and says at its end that the end was reached.

Started by sandbox.py as a script of its own, with the standard library alone: PROGRAM DONE CPU_S MEMORY FILE_BYTES.
"""

from __future__ import annotations

import contextlib
import ctypes
import resource
import sys
from pathlib import Path

NEW_USER, NEW_NETWORK = 0x10000000, 0x40000000


def main(program: str, done: str, cpu_s: str, memory: str, size: str) -> None:
    """Run the file ``program``; then write the token read from standard input into the file ``done``."""
    token = sys.stdin.read()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).unshare(NEW_USER | NEW_NETWORK)  # no network, where the kernel allows that
    for what, value in (
        (resource.RLIMIT_CPU, int(cpu_s)),
        (resource.RLIMIT_AS, int(memory)),
        (resource.RLIMIT_FSIZE, int(size)),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (value, value))
    source, sys.argv = Path(program).read_bytes(), [program]
    exec(compile(source, "program.py", "exec"), {"__name__": "__main__", "__builtins__": __builtins__})
    Path(done).write_text(token)


if __name__ == "__main__":
    main(*sys.argv[1:])
