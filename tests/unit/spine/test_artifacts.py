"""The run folder: lock, manifest, atomic writes."""

from __future__ import annotations

import errno
import multiprocessing
import os

import pytest

from distill import artifacts
from distill.errors import DiskProblem, IntegrityError, RunLocked


def test_a_second_process_is_refused(tmp_path):
    def inner():
        try:
            with artifacts.open_run(tmp_path / "run"):
                os._exit(1)
        except RunLocked as error:
            os._exit(error.exit_code)

    with artifacts.open_run(tmp_path / "run"):
        child = multiprocessing.get_context("fork").Process(target=inner)
        child.start()
        child.join()
    assert child.exitcode == 16
    with artifacts.open_run(tmp_path / "run"):
        pass


def test_a_stage_is_done_until_an_output_or_its_inputs_change(tmp_path):
    with artifacts.open_run(tmp_path / "run") as folder:
        out = folder.path / "data" / "x.txt"
        artifacts.write_text(out, "one")
        folder.finish("generate", "k", [out.parent])
        assert folder.is_done("generate", "k")
        assert not folder.is_done("generate", "other")
        os.utime(out, ns=(1, 1))
        assert folder.is_done("generate", "k"), "same bytes, other time: still done"
        artifacts.write_text(out, "two")
        assert not folder.is_done("generate", "k")
        out.unlink()
        assert not folder.is_done("generate", "k")


def test_a_damaged_manifest_is_exit_6(tmp_path):
    with artifacts.open_run(tmp_path / "run") as folder:
        folder.manifest.write_text("{")
        with pytest.raises(IntegrityError):
            folder.read_manifest()


def test_a_failed_write_leaves_the_old_file_and_no_temporary(tmp_path, monkeypatch):
    path = tmp_path / "x.txt"
    artifacts.write_text(path, "old")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskProblem):
        artifacts.write_text(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "out"
    with pytest.raises(RuntimeError), artifacts.new_folder(target) as folder:
        (folder / "half").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with artifacts.new_folder(target) as folder:
        (folder / "whole").write_text("x")
    assert [p.name for p in target.iterdir()] == ["whole"]


def test_opening_a_run_sweeps_what_a_killed_process_left(tmp_path):
    with artifacts.open_run(tmp_path / "run") as folder:
        (folder.path / ".tmp-abc-out").mkdir()
        (folder.path / ".tmp-def-file").write_text("half")
    with artifacts.open_run(tmp_path / "run") as folder:
        assert [p.name for p in folder.path.iterdir()] == [".lock"]


def test_the_run_folder_is_private(tmp_path):
    with artifacts.open_run(tmp_path / "run") as folder:
        assert folder.path.stat().st_mode & 0o077 == 0
