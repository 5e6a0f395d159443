"""`train.method: auto` takes what the teacher, the tokenizers and the memory allow, and says why."""

from __future__ import annotations

import argparse
import json

import pytest

from distill import cli
from distill.commands import _method
from distill.commands._config import load_config
from distill.config import RunConfig, validate
from distill.errors import ConfigError
from distill.train import memory, run
from tests.e2e.line import write_run
from tests.tiny import tiny_tokenizer

HERE = {"kind": "transformers", "model": "path:teacher"}


def made(tmp_path, teacher: dict, **sections) -> RunConfig:
    values = {
        "name": "t",
        "prompts": {"path": "none.jsonl"},
        "teacher": teacher,
        "student": {"model": "path:student", **sections.pop("student", {})},
        "train": {"method": "auto"},
        **sections,
    }
    config = validate(RunConfig, values, "test")
    config._folder = tmp_path
    return config


@pytest.fixture
def pair(tmp_path, tiny_student, tiny_teacher):
    """A folder with a student and a teacher of one tokenizer."""
    (tmp_path / "student").symlink_to(tiny_student)
    (tmp_path / "teacher").symlink_to(tiny_teacher)
    return tmp_path


def other_tokenizer(folder, tiny_teacher) -> None:
    import shutil

    (folder / "teacher").unlink()
    shutil.copytree(tiny_teacher, folder / "teacher")
    tiny_tokenizer(("teacher-only",)).save_pretrained(folder / "teacher")


STORED = {"generate": {"signals_top_k": 4}}


def test_a_teacher_in_this_process_with_the_same_tokenizer_is_whitebox(pair):
    assert _method.choose(made(pair, HERE), fetch=False).method == "whitebox"


def test_another_tokenizer_is_cross_tokenizer(pair, tiny_teacher):
    other_tokenizer(pair, tiny_teacher)
    assert _method.choose(made(pair, HERE, **STORED), fetch=False).method == "cross_tokenizer"


@pytest.mark.parametrize(("sections", "method"), [({}, "sft"), (STORED, "offline_topk")])
def test_two_models_that_do_not_fit_together_learn_from_the_store_or_from_text(pair, monkeypatch, sections, method):
    monkeypatch.setattr(memory, "installed", lambda: 1e6)
    choice = _method.choose(made(pair, HERE, **sections), fetch=False)
    assert choice.method == method


def test_other_words_for_the_student_rule_out_a_live_teacher(pair):
    told = {"student": {"prompt": {"system": "short"}}}
    assert _method.choose(made(pair, HERE, **told), fetch=False).method == "sft"
    assert _method.choose(made(pair, HERE, **told, **STORED), fetch=False).method == "offline_topk"


@pytest.mark.parametrize(
    ("teacher", "says"),
    [
        ({"kind": "fake", "model": "fake"}, "no probabilities"),
        ({"kind": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1"}, "log-probabilities"),
    ],
)
def test_a_teacher_that_only_writes_is_sft(pair, teacher, says):
    choice = _method.choose(made(pair, teacher), fetch=False)
    assert choice.method == "sft"
    assert says in choice.why


def test_weights_that_are_not_here_are_not_guessed_about(tmp_path):
    teacher = {"kind": "transformers", "model": "hub:nobody/nothing@" + "0" * 40}
    choice = _method.choose(made(tmp_path, teacher, student={"model": "hub:nobody/other@" + "0" * 40}), fetch=False)
    assert choice.method == "sft"
    assert "not here" in choice.why


def test_the_choice_is_made_before_the_run_and_written_down(tmp_path, tiny_student, capsys):
    path = write_run(tmp_path, tiny_student)
    arguments = argparse.Namespace(config=path, overrides=["train.method=auto"])
    assert load_config(arguments).train.method == "sft"
    assert cli.main(["generate", str(path), "train.method=auto", "--out", str(tmp_path / "out")]) == 0
    assert "train.method auto: sft, the fake teacher has no probabilities" in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "config.json").read_text())["config"]["train"]["method"] == "sft"


def test_plan_says_what_auto_would_take_and_why(tmp_path, tiny_student, capsys):
    path = write_run(tmp_path, tiny_student)
    assert cli.main(["plan", str(path), "train.method=auto", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["advice"].startswith("sft: the fake teacher")


def test_a_stage_called_without_the_choice_refuses(pair):
    with pytest.raises(ConfigError, match="still auto"):
        run.run(made(pair, HERE), None)
