"""A run killed anywhere and started again ends with the same bytes as one that was left alone."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from distill.artifacts import RunFolder, sha256_file
from distill.errors import ConfigError, DataError, Interrupted, Preempted
from distill.train import checkpoint, resume, run, schedule, setup
from tests.unit.train.conftest import make_config, metrics, records, write_rows

ADAPTER = {"r": 4, "alpha": 8, "dropout": 0.1}  # dropout, so that random numbers matter


class Killed(BaseException):
    """Stands for SIGKILL inside this process: nothing of ours catches it."""


def new_folder(path) -> RunFolder:
    folder = RunFolder(path)
    write_rows(folder.train_data, records(24))
    write_rows(folder.holdout_data, records(4, first=100))
    return folder


def digest(folder: RunFolder) -> dict[str, str]:
    """SHA-256 of the adapter, the optimizer and the loss log."""
    last = folder.checkpoints / (folder.checkpoints / "LATEST").read_text()
    return {
        "adapter": sha256_file(folder.student / "adapter" / "adapter_model.safetensors"),
        "optimizer": sha256_file(last / "optimizer.safetensors"),
        "metrics": hashlib.sha256(folder.metrics.read_bytes()).hexdigest(),
    }


@pytest.fixture(scope="module")
def whole(tiny_student, tmp_path_factory):
    """The uninterrupted run."""
    folder = new_folder(tmp_path_factory.mktemp("whole") / "run")
    run.run(make_config(tiny_student, adapter=ADAPTER), folder)
    assert len([line for line in metrics(folder) if "loss" in line]) == 8
    return digest(folder)


def kill_at(monkeypatch, micro: int) -> None:
    """Die before the given micro-batch (from 0) of this process is computed."""
    seen = []

    def seed_micro(*key) -> None:
        seen.append(key)
        if len(seen) > micro:
            raise Killed
        schedule.seed_micro(*key)

    monkeypatch.setattr(run, "seed_micro", seed_micro)


@pytest.mark.parametrize("micro", [1, 12, 17])
def test_killed_at_any_micro_batch_and_resumed_gives_the_same_bytes(tiny_student, tmp_path, monkeypatch, whole, micro):
    folder, config = new_folder(tmp_path / "run"), make_config(tiny_student, adapter=ADAPTER)
    with monkeypatch.context() as patch:
        kill_at(patch, micro)
        with pytest.raises(Killed):
            run.run(config, folder)
    run.run(config, folder)
    assert digest(folder) == whole


@pytest.mark.parametrize("moment", ["before_save", "after_save", "before_export"])
def test_killed_around_a_save_and_resumed_gives_the_same_bytes(tiny_student, tmp_path, monkeypatch, whole, moment):
    folder, config = new_folder(tmp_path / "run"), make_config(tiny_student, adapter=ADAPTER)
    with monkeypatch.context() as patch:

        def save(path, state, *rest):
            if moment == "before_save" and state.step == 5:
                raise Killed
            checkpoint.save_checkpoint(path, state, *rest)
            if moment == "after_save" and state.step == 5:
                raise Killed

        def export(*_):
            raise Killed

        patch.setattr(run, "save_checkpoint", save)
        if moment == "before_export":
            patch.setattr(run.export, "write", export)
        with pytest.raises(Killed):
            run.run(config, folder)
    run.run(config, folder)
    assert digest(folder) == whole


def test_killed_three_times_and_resumed_gives_the_same_bytes(tiny_student, tmp_path, monkeypatch, whole):
    folder, config = new_folder(tmp_path / "run"), make_config(tiny_student, adapter=ADAPTER)
    for micro in (4, 1, 10):
        with monkeypatch.context() as patch:
            kill_at(patch, micro)
            with pytest.raises(Killed):
                run.run(config, folder)
    run.run(config, folder)
    assert digest(folder) == whole


def restore_without_optimizer(path, trainable, optimizer):
    real_restore(path, trainable, optimizer)
    optimizer.state.clear()


CONTROLS = {
    "the optimizer's state is dropped": lambda patch: patch.setattr(
        resume.checkpoint, "restore", restore_without_optimizer
    ),
    "the row order is shifted": lambda patch: patch.setattr(
        setup, "plan_steps", lambda *a: (steps := run_plan(*a))[1:] + steps[:1]
    ),
    "random numbers are not seeded again": lambda patch: patch.setattr(run, "seed_micro", lambda *_: None),
    "the loss log is not cut": lambda patch: patch.setattr(
        run, "MetricsLog", lambda path, start, **k: RealLog(path, path.stat().st_size, **k)
    ),
}
run_plan, RealLog, real_restore = setup.plan_steps, run.MetricsLog, checkpoint.restore


@pytest.mark.parametrize("fault", CONTROLS)
def test_the_comparison_sees_a_resume_that_is_wrong(tiny_student, tmp_path, monkeypatch, whole, fault):
    folder, config = new_folder(tmp_path / "run"), make_config(tiny_student, adapter=ADAPTER)

    def die(path, state, *rest):
        if state.step == 5:
            raise Killed
        checkpoint.save_checkpoint(path, state, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(run, "save_checkpoint", die)
        with pytest.raises(Killed):
            run.run(config, folder)
    with monkeypatch.context() as patch:
        CONTROLS[fault](patch)
        run.run(config, folder)
    assert digest(folder) != whole


@pytest.mark.parametrize(("number", "kind"), [(signal.SIGTERM, Preempted), (signal.SIGINT, Interrupted)])
def test_a_signal_saves_then_leaves_and_the_next_run_goes_on(tiny_student, tmp_path, monkeypatch, whole, number, kind):
    folder = new_folder(tmp_path / "run")
    config = make_config(tiny_student, adapter=ADAPTER, checkpoint_every_s=3600)
    with monkeypatch.context() as patch:
        seen = []

        def seed_micro(*key) -> None:
            schedule.seed_micro(*key)
            seen.append(key)
            if len(seen) == 8:
                os.kill(os.getpid(), number)

        patch.setattr(run, "seed_micro", seed_micro)
        with pytest.raises(kind) as caught:
            run.run(config, folder)
    assert "step 2" in str(caught.value)
    assert (folder.checkpoints / "LATEST").read_text() == "step-00000002"
    run.run(config, folder)
    assert {k: v for k, v in digest(folder).items() if k != "optimizer"} == {
        k: v for k, v in whole.items() if k != "optimizer"
    }


def test_settings_changed_half_way_are_refused_and_named(tiny_student, tmp_path, monkeypatch, capsys):
    folder = new_folder(tmp_path / "run")
    with monkeypatch.context() as patch:
        kill_at(patch, 7)
        with pytest.raises(Killed):
            run.run(make_config(tiny_student), folder)
    with pytest.raises(ConfigError, match=r"train\.lr: 0\.01 -> 0\.02"):
        run.run(make_config(tiny_student, lr=0.02), folder)
    run.run(make_config(tiny_student, keep_checkpoints=3, checkpoint_every_s=9, micro_batch_size=1), folder)
    assert "not bit for bit from here on" in capsys.readouterr().err


def test_data_changed_half_way_is_refused(tiny_student, tmp_path, monkeypatch):
    folder, config = new_folder(tmp_path / "run"), make_config(tiny_student)
    with monkeypatch.context() as patch:
        kill_at(patch, 7)
        with pytest.raises(Killed):
            run.run(config, folder)
    rows = records(24)
    rows[3]["answer"] = "other"
    write_rows(folder.train_data, rows)
    with pytest.raises(DataError, match="training data changed") as caught:
        run.run(config, folder)
    assert caught.value.exit_code == 4


def test_a_finished_run_with_new_settings_trains_again_and_says_so(tiny_student, tmp_path, capsys):
    folder = new_folder(tmp_path / "run")
    run.run(make_config(tiny_student), folder)
    before = digest(folder)
    run.run(make_config(tiny_student, lr=0.02), folder)
    assert "training again from the start" in capsys.readouterr().err
    assert digest(folder) != before


SCRIPT = """
import os, signal, sys
from pathlib import Path
from distill.artifacts import RunFolder
from distill.train import run, schedule
from tests.unit.train.conftest import make_config
student, folder, micro = sys.argv[1], RunFolder(Path(sys.argv[2])), int(sys.argv[3])
seen = []
def seed_micro(*key):
    seen.append(key)
    if len(seen) > micro:
        os.kill(os.getpid(), signal.SIGKILL)
    schedule.seed_micro(*key)
run.seed_micro = seed_micro
run.run(make_config(student, adapter={"r": 4, "alpha": 8, "dropout": 0.1}, **EXTRA), folder)
"""


def killed_process(student, folder: RunFolder, micro: int, **extra) -> int:
    """Exit status of a training process that gets SIGKILL at the given micro-batch."""
    code = textwrap.dedent(SCRIPT).replace("**EXTRA", f"**{json.loads(json.dumps(extra))!r}")
    arguments = [sys.executable, "-c", code, str(student), str(folder.path), str(micro)]
    return subprocess.run(arguments, capture_output=True, timeout=300).returncode


def test_sigkill_in_another_process_and_resume_gives_the_same_bytes(tiny_student, tmp_path, whole):
    folder = new_folder(tmp_path / "run")
    assert killed_process(tiny_student, folder, 10) == -signal.SIGKILL
    run.run(make_config(tiny_student, adapter=ADAPTER), folder)
    assert digest(folder) == whole
