"""A real vLLM server scores the student's tokens while it learns. VLLM_PYTHON names an environment with vLLM."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distill import models
from distill.artifacts import RunFolder
from distill.train import run
from tests.e2e.vllm_server import NAME, serving
from tests.unit.train.conftest import make_config, metrics, records, write_rows

pytestmark = [pytest.mark.vllm, pytest.mark.real, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("vllm") / "log", "--max-logprobs", "32") as url:
        yield {"kind": "openai", "base_url": url, "model": NAME, "top_logprobs": 32}


def train(tmp_path, server, **settings) -> list[dict]:
    folder = RunFolder(tmp_path / "run")
    write_rows(folder.train_data, records(8))
    student = models.resolve(NAME, Path()).path
    config = make_config(
        student,
        teacher=server,
        epochs=1,
        lr=5e-3,
        batch_size=4,
        micro_batch_size=4,
        kd_weight=1.0,
        threads=0,
        schedule="constant",
        **settings,
    )
    run.run(config, folder)
    assert json.loads((folder.student / "student.json").read_text())["steps"] == 2
    return [line for line in metrics(folder) if "loss" in line]


def test_a_vllm_server_agrees_with_the_same_model_here_to_the_last_bucket(server, tmp_path):
    first, second = train(tmp_path, server, method="whitebox", loss="forward_kl")
    assert first["kd"] == pytest.approx(0, abs=2e-4), "the untrained student is its own teacher"
    assert second["kd"] != first["kd"]
    assert first["ce"] > 1, "the answers are not what it would have said: a shift would show"


@pytest.mark.parametrize("objective", ["full", "sampled"])
def test_a_vllm_server_scores_the_students_own_answers(server, tmp_path, objective):
    settings = {"rollout_objective": objective, "rollout_share": 1.0, "rollout_max_new_tokens": 12}
    first, _ = train(tmp_path, server, method="on_policy", loss="reverse_kl", **settings)
    assert first["kd"] == pytest.approx(0, abs=2e-3 if objective == "full" else 1e-2)
