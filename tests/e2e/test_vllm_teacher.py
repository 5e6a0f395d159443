"""A real vLLM server scores the student's tokens while it learns. VLLM_PYTHON names an environment with vLLM."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from distill import models
from distill.artifacts import RunFolder
from distill.train import run
from tests.unit.train.conftest import make_config, metrics, records, write_rows

pytestmark = [pytest.mark.vllm, pytest.mark.real, pytest.mark.timeout(1200)]
NAME = "smollm2-135m-instruct"
READY_S = 600


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if not (python := os.environ.get("VLLM_PYTHON")):
        pytest.skip("VLLM_PYTHON does not name an environment with vLLM")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [str(Path(python).with_name("vllm")), "serve", str(models.resolve(NAME, Path()).path)]
    words += ["--served-model-name", NAME, "--dtype", "float32", "--max-model-len", "512", "--enforce-eager"]
    words += ["--max-logprobs", "32", "--max-num-seqs", "8", "--host", "127.0.0.1", "--port", str(port)]
    offline = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    log = tmp_path_factory.mktemp("vllm") / "log"
    path = f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}"
    with log.open("w") as out:
        process = subprocess.Popen(words, stdout=out, stderr=out, env=os.environ | offline | {"PATH": path})
    try:
        until = time.monotonic() + READY_S
        while True:
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < until, log.read_text()[-3000:]
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
                break
            except OSError:
                time.sleep(1)
        yield {"kind": "openai", "base_url": f"http://127.0.0.1:{port}/v1", "model": NAME, "top_logprobs": 32}
    finally:
        process.terminate()
        process.wait(60)


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
