"""`distill doctor CONFIG --probe` against a loopback endpoint."""

from __future__ import annotations

import json

import pytest

from distill import cli
from tests.fault.hostile import HostileTeacher


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("ALAMBIC_CACHE", str(tmp_path / "cache"))
    (tmp_path / "prompts.jsonl").write_text('{"id": "1", "prompt": "q"}\n')
    (tmp_path / "student").mkdir()
    (tmp_path / "student/README.md").write_text("---\nlicense: apache-2.0\n---\n")

    def write(url):
        waiver = {"model": "m", "name": "A. Person", "date": "2026-11-01", "reason": "a loopback test"}
        price = {"input": 1, "output": 3, "as_of": "2026-11-01"}
        teacher = {"kind": "openai", "model": "m", "base_url": url, "top_logprobs": 20, "price": price}
        values = {
            "name": "r", "seed": 1, "prompts": {"path": "prompts.jsonl"}, "teacher": teacher,
            "student": {"model": "path:student"}, "policy": {"waivers": [waiver]},
        }  # fmt: skip
        (tmp_path / "c.yaml").write_text(json.dumps(values))
        return str(tmp_path / "c.yaml")

    return write


def test_it_prints_what_the_endpoint_can_do(config, capsys):
    with HostileTeacher(able={"top_logprobs": 5, "schema": True, "n": False}) as server:
        assert cli.main(["doctor", config(server.url), "--probe"]) == 0
        said = capsys.readouterr().out
        assert cli.main(["doctor", config(server.url), "--probe", "--json"]) == 0
    assert "log-probabilities per token   5" in said
    assert "several answers per request   no" in said
    assert "held to a JSON Schema         yes" in said
    assert "EUR" in said
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["top_logprobs"], row["samples"], row["cost_eur"]) == (5, False, 0.0), "the second time from the cache"


def test_a_probe_that_cannot_be_made_is_one_line(config, capsys):
    assert cli.main(["doctor", "--probe"]) == 2
    assert cli.main(["doctor", "nothing.yaml", "--probe"]) == 2
    with HostileTeacher(lambda text, nth: "401") as server:
        assert cli.main(["doctor", config(server.url), "--probe"]) == 11
    assert "Traceback" not in capsys.readouterr().err
