"""The student's own licence is judged before the work and not after it."""

from __future__ import annotations

import pytest

from distill import config, gates
from distill.errors import Refused


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def run(base, licence="apache-2.0", **policy):
    values = {
        "name": "Llama-demo",
        "prompts": {"path": "x.jsonl"},
        "teacher": {"kind": "fake"},
        "student": {"model": base},
        "release": {"licence": licence},
        "policy": policy,
    }
    return config.validate(config.RunConfig, values, "test")


@pytest.mark.parametrize(
    ("base", "row"),
    [("hub:meta-llama/Llama-3.1-8B@a", "llama-community"), ("gemma-3-4b", "gemma-terms"),
     ("hub:Qwen/Qwen2.5-72B@a", "qwen-license")],
)  # fmt: skip
def test_a_student_is_not_released_more_freely_than_its_base(base, row):
    with pytest.raises(Refused, match=rf"student Llama-demo: prohibited: .*{row}.*release\.licence says apache-2\.0"):
        gates.check(run(base))
    gates.check(run(base, licence=row))


@pytest.mark.parametrize(
    "base", ["smollm2-135m-instruct", "croissantllm", "hub:deepseek-ai/DeepSeek-R1-Distill-Qwen-7B@a"]
)
def test_a_free_base_leaves_the_choice(base):
    for licence in ("apache-2.0", "mit", "ours-1.0"):
        gates.check(run(base, licence=licence))
