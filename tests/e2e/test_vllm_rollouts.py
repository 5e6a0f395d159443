"""A real vLLM server draws the student's answers while it learns. VLLM_PYTHON names an environment with vLLM."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch

from distill import models, plugins
from distill.artifacts import RunFolder
from distill.errors import EnvironmentProblem
from distill.providers._base import Context
from distill.train import run
from distill.train.batches import encode_rows
from distill.train.rollout_server import RolloutServer
from tests.e2e.vllm_server import NAME, serving
from tests.unit.train.conftest import make_config, metrics, records, write_rows

pytestmark = [pytest.mark.vllm, pytest.mark.real, pytest.mark.timeout(1800)]
STEPS = 4
SAME = 1e-3  # nats a token, float32 on both sides


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    log = tmp_path_factory.mktemp("vllm") / "log"
    with serving(log, "--enable-lora", "--max-lora-rank", "16", VLLM_ALLOW_RUNTIME_LORA_UPDATING="True") as url:
        yield {"kind": "openai", "base_url": url, "model": NAME}


@pytest.fixture(scope="module")
def student():
    return models.resolve(NAME, Path()).path


@pytest.fixture(scope="module")
def teacher(student, tmp_path_factory):
    """The student's base with an adapter that has learnt the answers."""
    folder = RunFolder(tmp_path_factory.mktemp("taught") / "run")
    write_rows(folder.train_data, records(8))
    run.run(make_config(student, max_steps=6, lr=5e-3, batch_size=4, micro_batch_size=4, epochs=3, threads=0), folder)
    adapter = str(folder.student / "adapter")
    return {"kind": "transformers", "model": f"path:{student}", "adapter": adapter, "dtype": "float32"}


def train(path, student, teacher, engine, **values) -> RunFolder:
    folder = RunFolder(path / "run")
    write_rows(folder.train_data, records(8))
    settings = {
        "method": "on_policy",
        "loss": "reverse_kl",
        "teacher": teacher,
        "rollout_engine": engine,
        "rollout_share": 1.0,
        "rollout_max_new_tokens": 12,
        "kd_weight": 1.0,
        "lr": 3e-3,
        "schedule": "constant",
        "batch_size": 4,
        "micro_batch_size": 2,
        "epochs": 2,
        "threads": 0,
    }
    run.run(make_config(student, **settings | values), folder)
    return folder


def server_of(engine) -> RolloutServer:
    module = plugins.load("distill.providers", "openai")
    return RolloutServer(module.build(module.Config(**engine), Context()), 49152, 16)


@pytest.mark.parametrize("objective", ["full", "sampled"])
def test_the_server_follows_the_student_step_by_step(engine, student, teacher, tmp_path, objective):
    folder = train(tmp_path, student, teacher, engine, rollout_objective=objective)
    assert json.loads((folder.student / "student.json").read_text())["steps"] == STEPS
    lines = [line for line in metrics(folder) if "loss" in line]
    print(lines)
    assert len(lines) == STEPS
    assert all(math.isfinite(line["loss"]) for line in lines)
    assert all(line["sync_error"] < SAME and abs(line["rollout_kl"]) < SAME for line in lines)
    # What is drawn is the student that has learnt: the teacher finds it likelier than what the base says.
    server, tokenizer = server_of(engine), models.load_tokenizer(student)
    (adapter,) = folder.rollouts.glob("student-*")
    rows = encode_rows(records(16), tokenizer, 256).rows
    wanted = {"max_tokens": 12, "temperature": 1.0, "stop_token_ids": models.end_ids(tokenizer)}
    judge, _ = models.load_causal_lm(student, "float32", adapter=Path(teacher["adapter"]))
    liked = []
    for name in (NAME, adapter.name):
        drawn = server.draw(name, [row.prompt for row in rows], range(16), wanted)
        values = [value for row, one in zip(rows, drawn, strict=True) for value in scores(judge, row.prompt, one.ids)]
        liked.append(sum(values) / len(values))
    print("the teacher on what base and student say, nats a token:", liked)
    assert liked[1] > liked[0]
    server.unload(adapter.name)


def scores(model, prompt, ids) -> list[float]:
    """Log-probability of each of ``ids`` after the prompt, by transformers."""
    with torch.no_grad():
        logprobs_TV = model(input_ids=torch.tensor([[*prompt, *ids]])).logits[0].log_softmax(-1)
    return [float(logprobs_TV[len(prompt) - 1 + n, token]) for n, token in enumerate(ids)]


def test_without_weight_sync_the_canary_stops_the_run(engine, student, teacher, tmp_path, monkeypatch):
    """The negative control: the server is given the first adapter again and again, under the newest name."""
    load, first = RolloutServer.load, tmp_path / "first"

    def stale(self, name, folder):
        if not first.exists():
            shutil.copytree(folder, first)
        load(self, name, first)

    monkeypatch.setattr(RolloutServer, "load", stale)
    with pytest.raises(EnvironmentProblem, match="does not have the student's weights"):
        train(tmp_path, student, teacher, engine)
    assert len(metrics(RunFolder(tmp_path / "run"))) == 1


def test_tokens_that_no_text_would_give_back_arrive_as_they_were_drawn(engine, student):
    server, tokenizer = server_of(engine), models.load_tokenizer(student)
    prompts = [row.prompt for row in encode_rows(records(8), tokenizer, 256).rows]
    wanted = {"max_tokens": 24, "temperature": 1.5, "stop_token_ids": models.end_ids(tokenizer)}
    drawn = server.draw(NAME, prompts, range(8), wanted)
    assert drawn == server.draw(NAME, prompts, range(8), wanted), "the seed decides"
    assert drawn != server.draw(NAME, prompts, range(8, 16), wanted)
    model, _ = models.load_causal_lm(student, "float32")
    for prompt, one in zip(prompts, drawn, strict=True):
        assert scores(model, prompt, one.ids) == pytest.approx(one.logprobs, abs=SAME), (
            "at temperature 1, whatever the sampling"
        )
    texts = [tokenizer.decode(one.ids) for one in drawn]
    again = [tuple(tokenizer.encode(text, add_special_tokens=False)) for text in texts]
    drifted = sum(ids != one.ids for ids, one in zip(again, drawn, strict=True))
    print("answers that tokenize to other ids:", drifted, "of", len(drawn))
    assert drifted > 0, "the control: read back from its text, such an answer would be another one"


def test_a_server_that_loads_no_adapters_is_refused_before_the_second_step(student, teacher, tmp_path):
    with (
        serving(tmp_path / "log") as url,
        pytest.raises(
            EnvironmentProblem, match="VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve STUDENT --enable-lora"
        ),
    ):
        train(tmp_path, student, teacher, {"kind": "openai", "base_url": url, "model": NAME})
