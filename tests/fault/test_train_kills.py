"""The long campaign: SIGKILL at every micro-batch of a 40-step, 2-epoch, accumulation-3 run, each resumed."""

from __future__ import annotations

import os
import shutil
import signal

import pytest

from distill.artifacts import RunFolder
from distill.train import run
from tests.unit.train.conftest import make_config, records, write_rows
from tests.unit.train.test_resume import ADAPTER, digest

pytestmark = [pytest.mark.fault, pytest.mark.timeout(3600)]
STEPS, ACCUMULATION, PARTS = 40, 3, 6


def prepared(path) -> RunFolder:
    folder = RunFolder(path)
    write_rows(folder.train_data, records(STEPS // 2 * 6))
    write_rows(folder.holdout_data, records(4, first=1000))
    return folder


def trained(config, folder: RunFolder, die_before: int | None) -> int:
    """Train in a forked process, which kills itself before the given micro-batch; its wait status."""
    child = os.fork()
    if child == 0:
        real, seen = run.seed_micro, []

        def seed_micro(*key) -> None:
            seen.append(key)
            if die_before is not None and len(seen) > die_before:
                os.kill(os.getpid(), signal.SIGKILL)
            real(*key)

        run.seed_micro = seed_micro
        try:
            run.run(config, folder)
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


@pytest.fixture(scope="module")
def wanted(tiny_student, tmp_path_factory):
    """What the uninterrupted run leaves."""
    whole = prepared(tmp_path_factory.mktemp("whole"))
    assert trained(make_config(tiny_student, adapter=ADAPTER), whole, None) == 0
    return digest(whole)


@pytest.mark.parametrize("part", range(PARTS))
def test_killed_at_every_micro_batch_and_resumed_gives_the_same_bytes(tiny_student, tmp_path, wanted, part):
    config = make_config(tiny_student, adapter=ADAPTER)
    size = STEPS * ACCUMULATION // PARTS
    for point in range(part * size, (part + 1) * size):
        folder = prepared(tmp_path / f"kill-{point}")
        assert os.WTERMSIG(trained(config, folder, point)) == signal.SIGKILL
        assert trained(config, folder, None) == 0
        assert digest(folder) == wanted, f"killed before micro-batch {point}"
        shutil.rmtree(folder.path)
        print(f"killed before micro-batch {point}: the same bytes", flush=True)
