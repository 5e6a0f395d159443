"""The command line: start-up, errors and exit codes."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys

import pytest

from distill import cli

HEAVY = ("torch", "transformers", "pydantic", "numpy", "pyarrow", "rich", "jinja2", "matplotlib", "datasets", "openai")


def run(*argv, cwd=None, env=None):
    return subprocess.run(
        [sys.executable, "-m", "distill", *argv],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **(env or {})},
    )


def loaded_by(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(' '.join(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return {name.split(".")[0] for name in done.stdout.splitlines()[-1].split()}


def test_help_loads_nothing_heavy():
    assert not loaded_by("from distill.cli import main; main(['--help'])") & set(HEAVY)


def test_the_check_for_heavy_modules_can_fail():
    assert "pydantic" in loaded_by("import pydantic")


def test_validating_a_config_loads_no_torch(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("name: x\nprompts: {path: p.jsonl}\nteacher: fake\nstudent: {model: 'path:s'}\n")
    loaded = loaded_by(f"from distill import config; from pathlib import Path; config.load(Path({str(path)!r}))")
    assert not loaded & {"torch", "transformers", "datasets", "peft", "accelerate", "openai", "vllm"}


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_of_the_table_exists_and_has_help(name):
    module = importlib.import_module(cli.COMMANDS[name][0])
    assert callable(module.main)
    done = run(name, "--help")
    assert done.returncode == 0
    assert f"distill {name}" in done.stdout


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_answers_bad_flags_with_one_line_and_exit_2(name, tmp_path):
    done = run(name, "--no-such-flag", cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_an_unknown_command_says_what_was_meant():
    done = run("trian")
    assert done.returncode == 2
    assert "did you mean 'train'" in done.stderr


@pytest.mark.parametrize("name", ["run", "plan", "generate", "train", "eval", "release"])
def test_a_missing_config_is_one_line_and_exit_2(name, tmp_path):
    done = run(name, "absent.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("distill: absent.yaml: cannot read")
    assert list(tmp_path.iterdir()) == []


def test_our_own_bug_is_exit_70_with_the_traceback_in_a_file(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setitem(cli.COMMANDS, "boom", ("tests.unit.spine.boom", "fails"))
    assert cli.main(["boom"]) == 70
    line = capsys.readouterr().err
    assert "Traceback" not in line
    assert "Traceback" in next(tmp_path.glob("distill-bug-*.txt")).read_text()


def test_a_full_disk_is_exit_74(monkeypatch, capsys):
    monkeypatch.setitem(cli.COMMANDS, "boom", ("tests.unit.spine.boom", "fails"))
    assert cli.main(["boom", "--disk"]) == 74
    assert "No space left" in capsys.readouterr().err
