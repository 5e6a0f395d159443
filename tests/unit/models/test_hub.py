"""The hub, played by a loopback server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distill import models
from distill.errors import EnvironmentProblem, Refused
from distill.models import hub
from tests.hub import Hub, served

COMMIT = "c" * 40


@pytest.fixture
def server(tiny_student, tmp_path, monkeypatch):
    files = {file.name: file.read_bytes() for file in Path(tiny_student).iterdir()}
    config = json.loads(files["config.json"]) | {"auto_map": {"AutoConfig": "evil.Evil"}}
    files |= {
        "config.json": json.dumps(config).encode(),
        "evil.py": b"raise SystemExit",
        "pytorch_model.bin": b"pickle",
    }
    with served(Hub("models", COMMIT, files, "mit"), tmp_path / "cache", monkeypatch) as running:
        yield running


def test_only_weights_and_text_are_fetched_and_the_commit_is_recorded(server, capsys):
    resolved = models.resolve("hub:a/b@main", Path())
    assert (resolved.name, resolved.revision, resolved.licence) == ("a/b", COMMIT, "mit")
    assert f"hub:a/b@main is not pinned: taking commit {COMMIT}" in capsys.readouterr().err
    assert not {"evil.py", "pytorch_model.bin"} & set(server.asked)
    assert "auto_map" not in json.loads((resolved.path / "config.json").read_text())
    assert models.load_causal_lm(resolved.path)
    asked = len(server.asked)
    server.files.clear()
    assert models.resolve("hub:a/b@main", Path()) == resolved
    assert len(server.asked) == asked


def test_a_pinned_commit_is_taken_without_a_word(server, capsys):
    assert models.resolve(f"hub:a/b@{COMMIT}", Path()).revision == COMMIT
    assert "pinned" not in capsys.readouterr().err


def test_a_model_the_hub_does_not_have_is_one_line_with_exit_3(server):
    with pytest.raises(EnvironmentProblem, match="does not give a/other") as error:
        models.resolve("hub:a/other@main", Path())
    assert error.value.exit_code == 3
    assert "\n" not in str(error.value)


def test_a_model_with_pickled_weights_only_is_refused(server):
    server.files = {n: d for n, d in server.files.items() if not n.endswith(".safetensors")}
    with pytest.raises(Refused, match="no safetensors"):
        models.resolve("hub:a/b@main", Path())
    assert server.asked == []


def test_a_silent_hub_is_given_up_after_three_seconds(server, monkeypatch):
    monkeypatch.setattr(hub, "REACH_S", 0.5)
    server.silent = True
    with pytest.raises(EnvironmentProblem, match=r"no answer within 0\.5 s|timed out"):
        models.resolve("hub:a/b@main", Path())
    server.stopping.set()
