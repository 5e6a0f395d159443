"""The vLLM engine says what transformers says, on real weights. VLLM_PYTHON names an environment with vLLM."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from distill.providers import transformers
from distill.providers._base import Context
from distill.records import Message, Request, Sampling

ROOT = Path(__file__).parents[2]
QUESTIONS = [
    f"What is the capital of {name}? Answer with the name of the city." for name in ("France", "Italy", "Germany")
]
CHOICES = ["Paris", "Rome", "Berlin", "Madrid"]

pytestmark = [pytest.mark.vllm, pytest.mark.real, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def theirs():
    if not (python := os.environ.get("VLLM_PYTHON")):
        pytest.skip("VLLM_PYTHON does not name an environment with vLLM")
    done = subprocess.run(
        [python, "-m", "tests.e2e.vllm_child", json.dumps(QUESTIONS), json.dumps(CHOICES)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1100,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("SAID "))[5:])


@pytest.fixture(scope="module")
def ours():
    config = transformers.Config(model="smollm2-135m-instruct", dtype="float32")
    return transformers.build(config, Context())


def messages():
    return [(Message("user", text),) for text in QUESTIONS]


def test_free_answers_and_their_counts_are_the_same(theirs, ours):
    asked = [Request(m, Sampling(12), top_logprobs=3) for m in messages()]
    answers = [ours.parse(answer.raw) for answer in asyncio.run(ours.ask(asked))]
    assert theirs["texts"] == [answer.text for answer in answers]
    assert theirs["usage"] == [[answer.usage.prompt, answer.usage.completion] for answer in answers]


def test_answers_held_to_choices_are_legal(theirs):
    assert set(theirs["held"]) <= set(CHOICES)


def test_log_probabilities_of_given_answers_agree(theirs, ours):
    scored = ours.score_tokens([(m, CHOICES[0]) for m in messages()], 4)
    for row, ids, top in zip(scored, theirs["ids"], theirs["top"], strict=True):
        assert row.token_ids_T.tolist() == ids
        np.testing.assert_allclose(row.top_logprobs_TK, np.array(top), atol=0.02)
