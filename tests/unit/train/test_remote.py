"""A teacher on a server teaches what the same teacher teaches in this process; every way it could not is refused."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from distill.artifacts import RunFolder
from distill.errors import ConfigError, DataError, TeacherUnavailable
from distill.models import load_causal_lm
from distill.train import endpoint, run
from tests.unit.train.conftest import make_config, metrics, records, write_rows
from tests.unit.train.test_run import FULL, teacher_of

ALL = 259  # the tiny vocabulary


class Server:
    """Scores prompts of token ids as vLLM does, with a real model."""

    def __init__(self, path):
        self.model, self.tokenizer = load_causal_lm(path)
        self.asked: list[dict] = []
        self.spoil = lambda scores: scores
        self.status = 200
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append(body | {"path": self.path})
                scores = outer.spoil(outer.scores(body["prompt"], body["prompt_logprobs"]))
                raw = json.dumps({"choices": [{"text": "", "prompt_logprobs": scores}]}).encode()
                self.send_response(outer.status)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def scores(self, ids: list[int], k: int) -> list[dict | None]:
        with torch.no_grad():
            logprobs_TV = self.model(input_ids=torch.tensor([ids])).logits[0].float().log_softmax(-1)
        found: list[dict | None] = [None]
        for row_V, label in zip(logprobs_TV[:-1], ids[1:], strict=True):
            named = dict.fromkeys([label, *row_V.topk(min(k, len(row_V))).indices.tolist()])
            found.append(
                {str(i): {"logprob": float(row_V[i]), "decoded_token": self.tokenizer.decode([i])} for i in named}
            )
        return found

    def config(self, **values) -> dict:
        url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        return {"kind": "openai", "base_url": url, "model": "teacher", "top_logprobs": ALL} | values


@pytest.fixture
def server(taught_teacher, monkeypatch):
    monkeypatch.setattr(endpoint, "WAIT_S", 0.01)
    made = Server(taught_teacher)
    yield made
    made.http.shutdown()
    made.http.server_close()


def curve(folder: RunFolder) -> list[float]:
    return [line["loss"] for line in metrics(folder) if "loss" in line]


def trained(tmp_path, student, name: str, **settings) -> RunFolder:
    folder = RunFolder(tmp_path / name)
    write_rows(folder.train_data, records(12))
    run.run(make_config(student, **settings), folder)
    return folder


@pytest.mark.parametrize("method", [{"method": "whitebox"}, {"method": "on_policy", "rollout_objective": "sampled"}])
def test_a_served_teacher_teaches_what_it_teaches_here(server, tiny_student, taught_teacher, tmp_path, method):
    settings = method | {"rollout_max_new_tokens": 6, "rollout_share": 0.6, "epochs": 1}
    here = trained(tmp_path, tiny_student, "here", teacher=teacher_of(taught_teacher), **settings)
    there = trained(tmp_path, tiny_student, "there", teacher=server.config(), **settings)
    assert curve(there) == pytest.approx(curve(here), rel=1e-4, abs=1e-5)
    assert all(body["path"] == "/v1/completions" and body["max_tokens"] == 1 for body in server.asked)


def test_fewer_log_probabilities_teach_something_else(server, tiny_student, tmp_path):
    all_of_them, three = (
        trained(tmp_path, tiny_student, str(k), method="whitebox", teacher=server.config(top_logprobs=k), epochs=1)
        for k in (ALL, 3)
    )
    assert curve(three) != pytest.approx(curve(all_of_them), rel=1e-4)


def test_a_served_teacher_brings_the_student_closer(server, tiny_student, run_folder):
    config = make_config(
        tiny_student, method="on_policy", teacher=server.config(top_logprobs=8), rollout_max_new_tokens=6, **FULL
    )
    run.run(config, run_folder)
    lines = [line for line in metrics(run_folder) if "holdout_kd" in line]
    assert lines[-1]["holdout_kd"] < 0.5 * lines[0]["holdout_kd"]


def shifted(scores):
    return [None, *scores[2:], scores[1]]


def renamed(scores):
    return [top and {i: v | {"decoded_token": v["decoded_token"] + "x"} for i, v in top.items()} for top in scores]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (renamed, "different tokenizers"),
        (shifted, r"score of token|are shifted"),
        (lambda scores: scores[:-1], r"scored \d+ of \d+ tokens"),
        (lambda scores: None, "no prompt_logprobs"),
        (lambda scores: [{"x": 1}], "no prompt_logprobs"),
    ],
)
def test_a_server_that_speaks_of_other_tokens_is_refused(server, tiny_student, tmp_path, spoil, says):
    server.spoil = spoil
    with pytest.raises(DataError, match=says):
        trained(tmp_path, tiny_student, "run", method="whitebox", teacher=server.config(top_logprobs=3))
    assert not (tmp_path / "run" / "student").exists()


def test_a_server_that_fails_for_good_ends_the_run_with_its_own_exit_code(server, tiny_student, tmp_path):
    server.status = 500
    with pytest.raises(TeacherUnavailable, match="does not score"):
        trained(tmp_path, tiny_student, "run", method="whitebox", teacher=server.config())
    assert len(server.asked) >= endpoint.ATTEMPTS


def test_a_priced_endpoint_is_refused_before_it_is_asked(server, tiny_student, tmp_path):
    price = {"input": 1, "output": 1, "as_of": "2026-11-01"}
    with pytest.raises(ConfigError, match="without a price"):
        trained(tmp_path, tiny_student, "run", method="whitebox", teacher=server.config(price=price))
    assert not server.asked


@pytest.mark.parametrize("wrong", [{"top_logprobs": 0}, {"temperature": 2.0}])
def test_settings_a_server_cannot_serve_are_a_contradiction(server, tiny_student, wrong):
    with pytest.raises(ConfigError, match="top_logprobs"):
        make_config(
            tiny_student,
            method="whitebox",
            teacher=server.config(top_logprobs=wrong.get("top_logprobs", 4)),
            temperature=wrong.get("temperature", 1.0),
        )


def test_the_students_own_base_teaches_without_a_second_copy(tiny_student, tmp_path, capsys, monkeypatch):
    settings = {"method": "whitebox", "kd_weight": 0.5, "epochs": 2}
    own = trained(tmp_path, tiny_student, "own", teacher=teacher_of(tiny_student), **settings)
    assert "without its adapter" in "".join(capsys.readouterr())
    assert metrics(own)[0]["kd"] == pytest.approx(0, abs=1e-6)
    assert metrics(own)[-1]["kd"] > 1e-4, "the adapter moves away from the base, which does not move"
    from distill.train import setup

    monkeypatch.setattr(setup, "is_own_base", lambda config: False)
    copy = trained(tmp_path, tiny_student, "copy", teacher=teacher_of(tiny_student), **settings)
    assert curve(own) == pytest.approx(curve(copy), rel=1e-5)
