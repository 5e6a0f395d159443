"""`distill init` writes complete configurations that work from an empty folder, and never writes over anything."""

from __future__ import annotations

import datetime

import pytest

from distill import catalog, cli, gates
from distill.commands.init import TEACHERS, run_name
from distill.config import load


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("ALAMBIC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(catalog, "today", lambda: datetime.date(2026, 11, 23))


@pytest.mark.parametrize("teacher", TEACHERS)
def test_the_starter_is_valid_allowed_and_can_be_planned_at_once(tmp_path, capsys, teacher):
    assert cli.main(["init", "my-run.yaml", "--teacher", teacher]) == 0
    assert "distill plan my-run.yaml" in capsys.readouterr().out
    config = load(tmp_path / "my-run.yaml")
    assert config.name == "my-run"
    gates.check(config)
    assert cli.main(["plan", "my-run.yaml"]) == 0
    text = (tmp_path / "my-run.yaml").read_text()
    assert "NAME:" not in text
    assert "FILE" not in text
    assert text.count("#") > 15


@pytest.mark.parametrize("teacher", TEACHERS)
def test_every_section_of_the_starter_is_explained(tmp_path, teacher):
    cli.main(["init", "x.yaml", "--teacher", teacher])
    text = (tmp_path / "x.yaml").read_text()
    for section in ("prompts:", "teacher:", "generate:", "student:", "train:", "eval:", "release:", "policy:"):
        assert f"\n{section}" in text


def test_nothing_is_overwritten(tmp_path, capsys):
    (tmp_path / "my-run.yaml").write_text("mine")
    assert cli.main(["init", "my-run.yaml", "--teacher", "local"]) == 2
    assert "already there" in capsys.readouterr().err
    assert (tmp_path / "my-run.yaml").read_text() == "mine"


def test_rows_that_are_there_are_kept(tmp_path, capsys):
    (tmp_path / "prompts.jsonl").write_text("mine")
    assert cli.main(["init", "my-run.yaml", "--teacher", "local"]) == 0
    assert (tmp_path / "prompts.jsonl").read_text() == "mine"
    assert "kept" in capsys.readouterr().out


def test_folders_are_made_on_the_way(tmp_path):
    assert cli.main(["init", "a/b/run.yaml", "--teacher", "local"]) == 0
    load(tmp_path / "a" / "b" / "run.yaml")


@pytest.mark.parametrize(("file", "code"), [("my-run.json", 2), ("my-run", 2)])
def test_a_name_that_is_not_yaml_is_refused(file, code, capsys):
    assert cli.main(["init", file, "--teacher", "local"]) == code
    assert ".yaml" in capsys.readouterr().err


def test_a_kind_of_teacher_must_be_said(capsys):
    assert cli.main(["init", "x.yaml"]) == 2
    assert "--teacher" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["2026.yaml", "true.yaml", "mon été.yaml", "...yaml", "a" * 200 + ".yaml"])
def test_any_file_name_gives_a_valid_run_name(tmp_path, name):
    assert cli.main(["init", name, "--teacher", "local"]) == 0
    assert load(tmp_path / name).name == run_name(tmp_path / name)
