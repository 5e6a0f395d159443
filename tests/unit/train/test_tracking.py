"""What a training shows while it runs: trackers see what metrics.jsonl says; what is not known is not shown as 0."""

from __future__ import annotations

import pytest

from distill import counters
from distill.errors import EnvironmentProblem
from distill.train import run, tracking
from distill.train.meter import Meter
from tests.unit.train.conftest import make_config, metrics


def test_a_tracker_is_told_what_the_log_says(tiny_student, run_folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run.run(make_config(tiny_student, trackers=["tensorboard"], max_steps=4), run_folder)
    events = min(
        run_folder.trackers.rglob("events.*"), key=lambda path: len(path.parts)
    )  # deeper: its table of settings
    told = EventAccumulator(str(events)).Reload()
    for name in ("loss", "lr", "holdout_loss"):
        ours = [(line["step"], pytest.approx(line[name], rel=1e-6)) for line in metrics(run_folder) if name in line]
        assert [(event.step, event.value) for event in told.Scalars(name)] == ours


def test_without_a_tracker_nothing_is_written_but_the_log(tiny_student, run_folder):
    run.run(make_config(tiny_student, max_steps=1), run_folder)
    assert not run_folder.trackers.exists()


def test_a_tracker_that_is_not_installed_is_named_with_what_to_install(tiny_student, run_folder, monkeypatch):
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None if name == "wandb" else object())
    with pytest.raises(EnvironmentProblem, match=r"names wandb, not installed here.*pip install wandb") as caught:
        run.run(make_config(tiny_student, trackers=["tensorboard", "wandb"]), run_folder)
    assert caught.value.exit_code == 3
    assert not run_folder.checkpoints.exists()


@pytest.fixture
def counter(tmp_path, monkeypatch):
    """An energy counter of one processor package, in a folder of our own."""
    folder = tmp_path / "intel-rapl:0"
    folder.mkdir()
    monkeypatch.setattr(counters, "POWERCAP", tmp_path)
    monkeypatch.setattr(counters, "find_spec", lambda _: None)  # no cards
    monkeypatch.setattr(counters, "ACCELERATORS", (tmp_path / "no card",))
    (folder / "name").write_text("package-0\n")
    (folder / "max_energy_range_uj").write_text("9000000000\n")
    file = folder / "energy_uj"
    file.write_text("1000000\n")
    return file


def test_energy_and_money_count_on_from_what_earlier_processes_took(counter):
    known = Meter(tokens=10, seconds=3600, wh=2.0, eur_per_hour=1.5)
    counter.write_text(str(1_000_000 + 7200 * 1_000_000))
    assert known.wh == pytest.approx(4.0)
    assert known.eur == pytest.approx(1.5, rel=1e-3)
    shown = known.shown(0.5, 0.4, 0.6)
    assert shown["Wh"] == "4"
    assert shown["loss"] == "0.5 (ce 0.4, kd 0.6)"


def test_what_is_not_known_is_unknown_and_never_0(counter):
    counter.unlink()
    known = Meter(tokens=0, seconds=0, wh=0.0, eur_per_hour=None)
    assert known.wh is None
    assert known.eur is None
    shown = known.shown(0.5, 0.5, 0.0)
    assert shown["EUR"] == shown["Wh"] == "unknown"


def test_energy_is_unknown_once_a_part_of_the_run_was(counter):
    assert Meter(tokens=0, seconds=0, wh=None, eur_per_hour=None).wh is None
    broken = Meter(tokens=0, seconds=0, wh=1.0, eur_per_hour=None)
    counter.unlink()
    assert broken.wh is None


def test_energy_goes_on_when_the_counter_begins_again(counter):
    turned = Meter(tokens=0, seconds=0, wh=1.0, eur_per_hour=None)
    counter.write_text("0\n")
    assert turned.wh == pytest.approx(1.0 + 8999 / 3600)
