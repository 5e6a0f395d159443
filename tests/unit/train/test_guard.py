"""A run that diverges stops before the step that would spoil the student; one that only runs out of memory goes on."""

from __future__ import annotations

import json

import pytest

from distill.errors import Diverged
from distill.train import run
from distill.train.guard import FIRST, RECENT, remembered, spike_limit
from distill.train.student import Objective
from tests.unit.train.conftest import make_config, metrics
from tests.unit.train.test_resume import ADAPTER, Killed, digest, kill_at, new_folder

NOISY = [3.0 - 0.02 * n + 0.2 * (n % 5) for n in range(60)]


def test_noise_a_falling_loss_and_one_hard_row_are_no_spikes():
    for at in range(FIRST, len(NOISY)):
        assert NOISY[at] < spike_limit(NOISY[:at], 10)
    learnt = [*NOISY[:FIRST], *[0.001] * 40]
    assert spike_limit(learnt, 10) > 0.5


@pytest.mark.parametrize("at", [FIRST, 20, 59])
def test_a_loss_far_above_the_others_is_a_spike(at):
    assert spike_limit(NOISY[:at], 10) < 12


def test_too_few_losses_or_no_factor_mean_no_limit():
    assert spike_limit(NOISY[: FIRST - 1], 10) is None
    assert spike_limit(NOISY, 0) is None


def test_what_a_checkpoint_remembers_gives_the_limit_of_all_losses():
    for at in range(FIRST, len(NOISY) + 1):
        assert len(remembered(NOISY[:at])) <= FIRST + RECENT
        if at >= FIRST + RECENT:
            assert spike_limit(remembered(NOISY[:at]), 10) == spike_limit(NOISY[:at], 10)


def spiking(monkeypatch, row: str, after: int) -> None:
    """From the given training pass on, the loss of a row is a thousand times what it was."""
    real, seen = Objective.forward, []

    def forward(self, batch, teacher):
        total, parts = real(self, batch, teacher)
        seen.append(self.training)
        wrong = self.training and sum(seen) > after and any(r.id == row for r in batch.rows)
        return (total * 1000 if wrong else total), parts

    monkeypatch.setattr(Objective, "forward", forward)


def test_a_spike_stops_before_the_step_with_exit_14_and_the_batch_saved(tiny_student, tmp_path, monkeypatch):
    folder = new_folder(tmp_path / "run")
    settings = {"epochs": 4, "micro_batch_size": 6}
    with monkeypatch.context() as patch:
        spiking(patch, "r5", after=10)
        with pytest.raises(Diverged, match="the loss jumped") as caught:
            run.run(make_config(tiny_student, **settings), folder)
    assert caught.value.exit_code == 14
    saved = json.loads(folder.metrics.with_name("diverged.json").read_text())
    assert "r5" in {row["id"] for row in saved["rows"]}
    assert saved["step"] > 10
    assert (folder.checkpoints / "LATEST").read_text() == f"step-{saved['step'] - 1:08d}"
    assert not folder.student.exists()
    run.run(make_config(tiny_student, max_spike=0, **settings), folder)  # may change half-way: the run goes on
    assert json.loads((folder.student / "student.json").read_text())["steps"] == 16


def only_fits(monkeypatch, rows: int) -> None:
    """A machine on which training passes of more rows run out of memory."""
    real = Objective.forward

    def forward(self, batch, teacher):
        if self.training and len(batch.rows) > rows:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        return real(self, batch, teacher)

    monkeypatch.setattr(Objective, "forward", forward)


def test_out_of_memory_halves_the_micro_batch_and_keeps_the_batch(tiny_student, tmp_path, monkeypatch, capsys):
    whole, small = new_folder(tmp_path / "whole"), new_folder(tmp_path / "small")
    run.run(make_config(tiny_student, adapter=ADAPTER, micro_batch_size=1), whole)
    only_fits(monkeypatch, 1)
    run.run(make_config(tiny_student, adapter=ADAPTER, micro_batch_size=6), small)
    assert "micro-batches are cut into 8" in capsys.readouterr().err
    assert digest(small) == digest(whole)


def test_a_run_that_was_halved_and_killed_goes_on_halved(tiny_student, tmp_path, monkeypatch, capsys):
    whole, killed = new_folder(tmp_path / "whole"), new_folder(tmp_path / "killed")
    config = make_config(tiny_student, adapter=ADAPTER, micro_batch_size=6)
    only_fits(monkeypatch, 4)
    run.run(config, whole)
    with monkeypatch.context() as patch:
        kill_at(patch, 8)
        with pytest.raises(Killed):
            run.run(config, killed)
    capsys.readouterr()
    run.run(config, killed)
    assert "out of memory" not in capsys.readouterr().err
    assert digest(killed) == digest(whole)


@pytest.mark.parametrize(
    "changed", [{"packing": True}, {"gradient_checkpointing": True}, {"micro_batch_tokens": 150, "micro_batch_size": 6}]
)
def test_ways_to_save_memory_or_time_do_not_change_the_loss(tiny_student, tmp_path, changed):
    losses = []
    for name, settings in {"plain": {}, "changed": changed}.items():
        folder = new_folder(tmp_path / name)
        run.run(make_config(tiny_student, max_steps=3, **settings), folder)
        losses.append([line["loss"] for line in metrics(folder) if "loss" in line])
    assert losses[0] == pytest.approx(losses[1], rel=2e-5)
