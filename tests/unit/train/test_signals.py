"""SIGTERM in any phase: what there is to save is saved within the grace, and the same command goes on."""

from __future__ import annotations

import os
import signal
import time

import pytest

from distill.errors import Preempted
from distill.train import holdout, run, setup
from tests.unit.train.conftest import make_config, metrics
from tests.unit.train.test_resume import ADAPTER, digest, new_folder

GRACE_S = 25
PHASES = {
    "reading the data": (setup, "read_data", 1),
    "loading the weights": (setup, "load_base", 1),
    "proving": (setup.preflight, "prove", 1),
    "resuming": (run, "resume", 1),
    "measuring the held-out rows": (holdout.Holdout, "measure", 2),
    "a step": (run, "update", 5),
    "saving": (run, "save_checkpoint", 3),
    "writing the student": (run.export, "write", 1),
}


@pytest.fixture(scope="module")
def whole(tiny_student, tmp_path_factory):
    """The uninterrupted run."""
    folder = new_folder(tmp_path_factory.mktemp("whole") / "run")
    run.run(make_config(tiny_student, adapter=ADAPTER), folder)
    return digest(folder)


@pytest.mark.parametrize("phase", PHASES)
def test_a_signal_in_any_phase_ends_with_75_and_loses_nothing(tiny_student, tmp_path, monkeypatch, whole, phase):
    folder, config = new_folder(tmp_path / "run"), make_config(tiny_student, adapter=ADAPTER)
    owner, name, call = PHASES[phase]
    real, calls, sent = getattr(owner, name), [], []

    def signalled(*args, **kwargs):
        calls.append(1)
        if len(calls) == call:
            sent.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, signalled)
        with pytest.raises(Preempted) as caught:
            run.run(config, folder)
    assert caught.value.exit_code == 75
    assert time.monotonic() - sent[0] < GRACE_S
    steps = [line["step"] for line in metrics(folder) if "loss" in line] if folder.metrics.exists() else []
    run.run(config, folder)
    assert digest(folder) == whole
    again = [line["step"] for line in metrics(folder) if "loss" in line]
    assert again[: len(steps)] == steps


def test_a_signal_before_the_first_step_does_not_wait_for_it(tiny_student, tmp_path, monkeypatch):
    """The negative control: with the signal only noted, the proof would be made and a checkpoint written."""
    monkeypatch.setattr(setup, "load_base", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    folder = new_folder(tmp_path / "run")
    with pytest.raises(Preempted):
        run.run(make_config(tiny_student), folder)
    assert not folder.checkpoints.exists()
