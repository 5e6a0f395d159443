"""A checkpoint is whole or it is not used; a damaged one is passed over; nothing is started over in silence."""

from __future__ import annotations

import json
import os

import pytest
import torch

from distill import artifacts
from distill.errors import DiskProblem, IntegrityError
from distill.train.checkpoint import State, find, restore, save_checkpoint


def trained(steps: int = 3):
    torch.manual_seed(0)
    layer = torch.nn.Linear(4, 3)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1)
    for _ in range(steps):
        layer(torch.ones(2, 4)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return sorted(layer.named_parameters()), optimizer


def state(step: int) -> State:
    return State(step, 10 * step, 1.5, 100, {"settings": {}}, {})


def save_steps(folder, *steps: int, keep: int = 5):
    named, optimizer = trained()
    for step in steps:
        save_checkpoint(folder, state(step), named, optimizer, keep)
    return named, optimizer


def test_what_is_saved_comes_back_bit_for_bit(tmp_path):
    named, optimizer = save_steps(tmp_path, 3)
    other, fresh = trained(steps=1)
    path, found = find(tmp_path)
    assert found == state(3)
    restore(path, other, fresh)
    for (_, a), (_, b) in zip(named, other, strict=True):
        assert torch.equal(a, b)
        for key, value in optimizer.state[a].items():
            assert torch.equal(value, fresh.state[b][key])


def test_only_the_newest_are_kept_and_latest_names_the_last(tmp_path):
    save_steps(tmp_path, 1, 2, 3, 4, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["LATEST", "step-00000003", "step-00000004"]
    assert (tmp_path / "LATEST").read_text() == "step-00000004"


def test_no_checkpoint_at_all_is_a_fresh_start(tmp_path):
    assert find(tmp_path / "none") is None


FILES = ["trainable.safetensors", "optimizer.safetensors", "state.json", "MANIFEST.json"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_file_means_the_checkpoint_before(tmp_path, capsys, name, damage):
    save_steps(tmp_path, 1, 2)
    file = tmp_path / "step-00000002" / name
    data = bytearray(file.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    elif damage == "truncate":
        file.write_bytes(data[:-1])
    else:
        file.unlink()
    path, _ = find(tmp_path)
    assert path.name == "step-00000001"
    assert "step-00000002 is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("name", FILES)
def test_any_flipped_bit_is_noticed(tmp_path, name):
    save_steps(tmp_path, 2)
    file = tmp_path / "step-00000002" / name
    whole = file.read_bytes()
    for at in range(0, len(whole), max(1, len(whole) // 60)):
        data = bytearray(whole)
        data[at] ^= 1 << (at % 8)
        file.write_bytes(data)
        try:
            find(tmp_path)
        except IntegrityError:
            continue
        # The manifest may say the same in other bytes (white space); its content must then be the same.
        assert json.loads(data) == json.loads(whole), f"{name} byte {at}"


def test_when_all_are_damaged_the_run_stops_and_says_so(tmp_path):
    save_steps(tmp_path, 1, 2)
    for file in tmp_path.glob("step-*/state.json"):
        file.write_text("{}")
    with pytest.raises(IntegrityError, match="no good checkpoint is left") as caught:
        find(tmp_path)
    assert "train from the start" in str(caught.value)
    assert caught.value.exit_code == 6


def test_files_mixed_from_two_steps_are_noticed(tmp_path):
    save_steps(tmp_path, 1, 2)
    for name in FILES:
        (tmp_path / "step-00000002" / name).write_bytes((tmp_path / "step-00000001" / name).read_bytes())
    assert find(tmp_path)[0].name == "step-00000001"


def test_latest_gone_or_nonsense_still_finds_the_newest_good_one(tmp_path):
    save_steps(tmp_path, 1, 2)
    for text in ("", "step-00000009", "\x00garbage"):
        (tmp_path / "LATEST").write_text(text)
        assert find(tmp_path)[0].name == "step-00000002"
    (tmp_path / "LATEST").unlink()
    assert find(tmp_path)[0].name == "step-00000002"


def test_a_save_that_dies_anywhere_leaves_the_one_before(tmp_path, monkeypatch):
    named, optimizer = save_steps(tmp_path, 1)

    class Killed(BaseException):
        pass

    real, calls = os.fsync, []

    def dying(handle: int) -> None:
        calls.append(handle)
        if len(calls) == at:
            raise Killed
        real(handle)

    monkeypatch.setattr(os, "fsync", dying)
    reached = 0
    for at in range(1, 12):  # noqa: B007
        calls.clear()
        try:
            save_checkpoint(tmp_path, state(2), named, optimizer, keep=5)
        except Killed:
            reached += 1
        assert find(tmp_path)[0].name in ("step-00000001", "step-00000002")
        artifacts.sweep(tmp_path)
        import shutil

        shutil.rmtree(tmp_path / "step-00000002", ignore_errors=True)
        (tmp_path / "LATEST").write_text("step-00000001")
    assert reached >= 7


def test_a_full_disk_leaves_the_good_checkpoints_and_exits_74(tmp_path, monkeypatch):
    named, optimizer = save_steps(tmp_path, 1)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskProblem) as caught:
        save_checkpoint(tmp_path, state(2), named, optimizer, keep=5)
    assert caught.value.exit_code == 74
    monkeypatch.undo()
    assert find(tmp_path)[0].name == "step-00000001"
    assert not list(tmp_path.glob(".tmp-*"))


def test_a_checkpoint_of_another_student_is_refused(tmp_path):
    save_steps(tmp_path, 1)
    wide = torch.nn.Linear(5, 3)
    optimizer = torch.optim.AdamW(wide.parameters())
    with pytest.raises(IntegrityError, match="another shape"):
        restore(find(tmp_path)[0], sorted(wide.named_parameters()), optimizer)
    with pytest.raises(IntegrityError, match="other parameters"):
        restore(find(tmp_path)[0], [("x", wide.weight)], optimizer)
