"""The inside of the sandbox: takes its limits, runs the program, and says at its end that the end was reached.

Started by sandbox.py as a script of its own, with the standard library alone: PROGRAM DONE CPU_S MEMORY FILE_BYTES.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
from pathlib import Path

NEW_USER, NEW_NETWORK, NEW_PROCESSES = 0x10000000, 0x40000000, 0x20000000
DIE_WITH_PARENT = 1


def main(program: str, done: str, cpu_s: str, memory: str, size: str) -> None:
    """Run the file ``program``; then write the token read from standard input into the file ``done``."""
    token, source = sys.stdin.read(), Path(program).read_bytes()
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        # No network, where the kernel allows that; and processes of its own, which end when the first of them does.
        if libc.unshare(NEW_USER | NEW_NETWORK | NEW_PROCESSES) == 0:
            _in_a_child(libc)
    for what, value in (
        (resource.RLIMIT_CPU, int(cpu_s)),
        (resource.RLIMIT_AS, int(memory)),
        (resource.RLIMIT_FSIZE, int(size)),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (value, value))
    sys.argv = [program]
    exec(compile(source, "program.py", "exec"), {"__name__": "__main__", "__builtins__": __builtins__})
    Path(done).write_text(token)


def _in_a_child(libc: ctypes.CDLL) -> None:
    """Go on in a child, the first process of the new kind; here, wait for it and end as it ended."""
    child = os.fork()
    if not child:
        libc.prctl(DIE_WITH_PARENT, signal.SIGKILL)
        return
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code < 0:
        signal.signal(-code, signal.SIG_DFL) if -code not in (signal.SIGKILL, signal.SIGSTOP) else None
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    main(*sys.argv[1:])
