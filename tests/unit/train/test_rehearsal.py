"""`distill plan --prove`: what the run would refuse before its first step is refused before anything is asked."""

from __future__ import annotations

import json
import shutil

import pytest

from distill import cli
from distill.models import load_causal_lm
from tests.e2e.line import write_run


@pytest.fixture
def plan(tmp_path, tiny_student, tiny_teacher, capsys):
    """The plan's exit code, its proof and its last line of errors, for some overrides."""
    path = write_run(tmp_path, tiny_student)
    (tmp_path / "teacher").symlink_to(tiny_teacher)

    def run(*overrides: str):
        code = cli.main(["plan", str(path), *overrides, "--prove", "--json"])
        said = capsys.readouterr()
        return code, json.loads(said.out)["proof"] if code == 0 else None, said.err.strip().splitlines()[-1:]

    return run


WHITEBOX = ('teacher={"kind": "transformers", "model": "path:teacher", "dtype": "float32"}', "train.method=whitebox")


def test_a_good_pair_is_proven_and_nothing_is_written(plan, tmp_path):
    code, proof, _ = plan(*WHITEBOX)
    assert code == 0
    assert "24 prompts" in proof[0]
    assert "as itself" in proof[-1]
    assert not (tmp_path / "runs").exists()


def test_a_teacher_that_only_writes_is_left_out_of_the_proof(plan):
    code, proof, _ = plan()
    assert code == 0
    assert len(proof) == 2


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("student", ("assistant\n", "assistant:\n"), "the chat templates of student and teacher differ"),
        ("student", ("<|im_end|>", "<|endoftext|>"), "ends an answer with"),
    ],
)
def test_a_bad_pair_is_refused_by_the_plan(plan, tmp_path, tiny_student, part, change, message):
    (tmp_path / part).unlink(missing_ok=True)
    shutil.copytree(tiny_student, tmp_path / part)
    _, tokenizer = load_causal_lm(tiny_student)
    tokenizer.chat_template = tokenizer.chat_template.replace(*change)
    tokenizer.save_pretrained(tmp_path / part)
    code, _, said = plan(*WHITEBOX)
    assert code == 4
    assert message in said[0]


def test_weights_that_are_not_here_are_not_fetched(plan):
    code, _, said = plan("student.model=smollm2-135m-instruct")
    assert code == 3
    assert "a plan fetches nothing" in said[0]
