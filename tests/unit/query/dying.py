"""A process that dies as by SIGKILL, and its parent."""

from __future__ import annotations

import multiprocessing
import os
import signal


def die():
    """No clean-up of any kind."""
    os.kill(os.getpid(), signal.SIGKILL)


def in_a_fork(work) -> int:
    """Run ``work`` in a child process; its exit code (-9 after :func:`die`)."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(60)
    return process.exitcode
