"""The held-out rows decide when to stop and which student is kept, the same way however often the run was killed."""

from __future__ import annotations

import json

import pytest
from safetensors.torch import load_file

from distill.errors import IntegrityError
from distill.train import run
from distill.train.holdout import best_step, has_stalled, is_due
from tests.unit.train.conftest import make_config, metrics
from tests.unit.train.test_resume import Killed, digest, kill_at, new_folder

HARMFUL = {"lr": 0.5, "schedule": "constant", "warmup": 0, "max_spike": 0, "eval_every": 1, "patience": 1, "epochs": 4}


def curve(*losses: float) -> dict[str, dict[str, float]]:
    return {str(2 * n): {"holdout_loss": loss} for n, loss in enumerate(losses)}


def test_the_best_is_the_first_of_the_lowest():
    assert best_step(curve(3, 1, 2, 1)) == 2
    assert best_step({}) is None


@pytest.mark.parametrize(
    ("losses", "patience", "stalled"),
    [
        ((3, 2, 1), 1, False),
        ((3, 1, 2), 1, True),
        ((3, 1, 2), 2, False),
        ((3, 1, 2, 1), 2, True),
        ((1, 2, 3), 0, False),
    ],
)
def test_a_run_has_stalled_after_as_many_measurements_without_a_better_one(losses, patience, stalled):
    assert has_stalled(curve(*losses), patience) is stalled


def test_measurements_are_due_every_so_many_steps_and_at_the_end():
    assert [step for step in range(12) if is_due(step, 11, 4)] == [0, 4, 8, 11]


@pytest.fixture(scope="module")
def stopped(tiny_student, tmp_path_factory):
    """A run whose held-out loss rises after a while."""
    folder = new_folder(tmp_path_factory.mktemp("stopped") / "run")
    run.run(make_config(tiny_student, **HARMFUL), folder)
    return folder


def test_a_student_that_gets_worse_stops_early_and_the_best_one_is_kept(stopped):
    facts = json.loads((stopped.student / "student.json").read_text())
    losses = {int(step): loss for step, loss in facts["holdout_losses"].items()}
    best = min(losses, key=losses.get)
    assert facts["steps"] == best + 1 < 16
    assert facts["kept_step"] == best
    assert facts["holdout_loss_after"] == losses[best]
    kept = load_file(stopped.checkpoints / f"step-{best:08d}" / "trainable.safetensors")
    written = load_file(stopped.student / "adapter" / "adapter_model.safetensors")
    for name, value in written.items():
        assert value.equal(kept[name.replace(".weight", ".default.weight")])
    assert [line["step"] for line in metrics(stopped) if "holdout_loss" in line] == sorted(losses)


@pytest.mark.parametrize("micro", [1, 5])
def test_a_run_that_stops_early_and_was_killed_ends_with_the_same_bytes(
    tiny_student, stopped, tmp_path, monkeypatch, micro
):
    folder, config = new_folder(tmp_path / "run"), make_config(tiny_student, **HARMFUL)
    with monkeypatch.context() as patch:
        kill_at(patch, micro)
        with pytest.raises(Killed):
            run.run(config, folder)
    run.run(config, folder)
    assert digest(folder) == digest(stopped)


def test_when_the_best_checkpoint_is_damaged_no_other_student_is_passed_off_as_it(tiny_student, tmp_path, monkeypatch):
    folder, config = new_folder(tmp_path / "run"), make_config(tiny_student, **HARMFUL)

    def damage(path, trainable):
        (path / "trainable.safetensors").write_bytes(b"")
        real(path, trainable)

    real = run.restore_weights
    monkeypatch.setattr(run, "restore_weights", damage)
    with pytest.raises(IntegrityError, match="damaged"):
        run.run(config, folder)
    assert not folder.student.exists()
