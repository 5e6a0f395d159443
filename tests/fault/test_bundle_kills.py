"""SIGKILL at steps that a release takes on disk: never half a bundle, and the same command ends with the same bytes."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from distill.release import verify_bundle
from tests.unit.release.made import base_folder, build, run_folder

pytestmark = [pytest.mark.fault, pytest.mark.timeout(3600)]
STEPS = ("open", "os.rename", "os.mkdir", "os.chmod", "os.utime", "os.remove")
POINTS = 24
TARGETS = ["merged", "adapter", "demo", "vllm"]


def contents(folder):
    """Name -> bytes."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def built(config, folder, point):
    """Build in a forked process that kills itself before its ``point``-th step on the bundle; (status, steps)."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        seen = 0

        def step(event, values):
            nonlocal seen
            if event in STEPS and ".tmp-" in str(values[0]):
                seen += 1
                if seen == point:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(step)
        try:
            build(config, folder)
        except BaseException:
            os._exit(1)
        os.write(writer, str(seen).encode())
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    os.close(writer)
    with os.fdopen(reader) as file:
        return status, int(file.read() or 0)


def test_killed_while_it_writes_there_is_no_bundle_or_a_whole_one_and_again_gives_the_same_bytes(tmp_path):
    base = base_folder(tmp_path / "base")
    config, folder = run_folder(tmp_path / "runs" / "sorter", base, targets=TARGETS)
    final = folder.release / "sorter-0.1.0"
    status, steps = built(config, folder, None)
    assert status == 0
    assert steps > 100
    wanted = contents(final)
    points = range(1, steps + 1, max(1, steps // POINTS))
    for number, point in enumerate(points):
        for path in final.rglob("*"):
            path.chmod(0o700 if path.is_dir() else 0o600)
        if final.exists():
            final.rename(tmp_path / f"old-{point}")
        status, _ = built(config, folder, point)
        assert os.WTERMSIG(status) == signal.SIGKILL, point
        if final.exists():
            assert verify_bundle.check(str(final)) == [], point
        if number % 4 == 0:  # building again takes most of the time
            assert built(config, folder, None)[0] == 0
            assert contents(final) == wanted, point
            assert [path.name for path in folder.release.iterdir()] == [final.name]
