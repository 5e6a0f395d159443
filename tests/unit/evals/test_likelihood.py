"""Texts that are read: bits per byte equal a plain forward pass, and the divergence is 0 from oneself and bounded."""

import json
import math

import numpy as np
import pytest

from distill import cli
from distill.providers._engine import Likelihood
from evals import likelihood

TEXTS = ["A cat.", "Zwei Katzen schlafen.", "Été à la mer, déjà."]


@pytest.fixture
def suite(tmp_path):
    rows = [{"id": str(n), "doc": f"d{n // 2}", "prompt": f"p{n}", "answer": TEXTS[n % 3]} for n in range(8)]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {"kind": "perplexity", "path": "texts.jsonl", "cluster_field": "doc"}
    (tmp_path / "suite.yaml").write_text(json.dumps({"tasks": [task]}))
    return tmp_path


def run(folder, first, second):
    out = ["--suite", str(folder / "suite.yaml"), "--out", str(folder / "out"), "--draws", "1000"]
    code = cli.main(["compare", f"a={first}", f"b={second}", *out])
    return code, json.loads((folder / "out" / "report.json").read_text()) if code == 0 else None


def test_bits_per_byte_equal_a_plain_forward_pass(suite, tiny_student, tiny_teacher):
    import torch

    from distill import models
    from distill.records import Message

    _, report = run(suite, tiny_teacher, tiny_student)
    model, tokenizer = models.load_causal_lm(tiny_student, "float32")
    nats = size = 0.0
    for n in range(8):
        context = models.encode_chat(tokenizer, (Message("user", f"p{n}"),))
        answer = models.encode_answer(tokenizer, TEXTS[n % 3])
        with torch.inference_mode():
            logprobs = model(input_ids=torch.tensor([[*context, *answer]])).logits[0].log_softmax(-1)
        places = range(len(context) - 1, len(context) + len(answer) - 1)
        nats -= float(sum(logprobs[place, token] for place, token in zip(places, answer, strict=True)))
        size += len(TEXTS[n % 3].encode())
    row = report["likelihood"][0]
    assert row["arms"]["b"]["bits_per_byte"]["value"] == pytest.approx(nats / math.log(2) / size, rel=1e-4)
    assert row["divergence"]["tokens"] == sum(len(TEXTS[n % 3].encode()) + 1 for n in range(8))
    assert row["divergence"]["nats_per_token"]["value"] > 0


def test_a_model_does_not_differ_from_itself(suite, tiny_student):
    _, report = run(suite, tiny_student, f"path:{tiny_student}")
    pair = report["likelihood"][0]["divergence"]
    assert pair["same_first"]["value"] == 1.0
    assert pair["nats_per_token"] is None or pair["nats_per_token"]["value"] < 1e-6
    assert report["pairs"][0]["difference"]["value"] == 0.0


def test_an_engine_that_cannot_read_is_refused(suite, tiny_student, capsys):
    (suite / "fake.yaml").write_text(json.dumps({"kind": "fake"}))
    code, _ = run(suite, tiny_student, suite / "fake.yaml")
    assert code == 2
    assert "how likely a given text is" in capsys.readouterr().err


def test_the_coarse_divergence_is_a_lower_bound_that_grows_with_k():
    rng = np.random.default_rng(0)
    p, q = (np.log(rng.dirichlet(np.full(200, 0.3), 20)) for _ in range(2))
    whole = float(np.sum(np.exp(p) * (p - q)))

    def top(logs, k):
        ids = np.argsort(-logs, axis=1)[:, :k]
        return Likelihood([], ids, np.take_along_axis(logs, ids, 1))

    bounds = [sum(likelihood.coarse_kl(top(p, k), top(q, k))[0]) for k in (8, 64, 200)]
    assert bounds[0] < bounds[1] < bounds[2] == pytest.approx(whole, rel=1e-6)
    assert sum(likelihood.coarse_kl(top(p, 64), top(p, 64))[0]) == pytest.approx(0, abs=1e-9)
