"""Data sets of a hub, played by a loopback server: one split at one commit, and nothing of it is run."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill import prompts
from distill.config import Prompts
from distill.errors import ConfigError, DataError, EnvironmentProblem
from distill.prompts.hub import files_of
from tests.hub import Hub, served
from tests.unit.generate.stage import generate

COMMIT = "d" * 40


def parquet(first: int, count: int) -> bytes:
    buffer = io.BytesIO()
    rows = [
        {"id": f"r{n}", "prompt": f"Question {n}?", "lang": "en", "doc": f"d{n}"} for n in range(first, first + count)
    ]
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


@pytest.fixture
def server(tmp_path, monkeypatch):
    files = {
        "README.md": b"---\nlicense: cc-by-4.0\n---\n",
        "b.py": b"raise SystemExit('code of a data set was run')",
        "data/train-00000-of-00002.parquet": parquet(0, 20),
        "data/train-00001-of-00002.parquet": parquet(20, 20),
        "data/test-00000-of-00001.parquet": parquet(40, 5),
    }
    with served(Hub("datasets", COMMIT, files, "cc-by-4.0"), tmp_path / "cache", monkeypatch) as running:
        yield running


def located(source: str) -> Path:
    return prompts.locate(source, lambda path: Path(path))


def test_a_split_is_fetched_once_and_is_the_prompts_of_a_run(server, work, capsys):
    tmp_path, load = work
    config = load(prompts={"path": f"hub:a/b@{COMMIT}:train"})
    made = generate(config, tmp_path / "run")
    assert made["card"]["rows"]["asked"] == 40
    assert made["card"]["prompts"]["file"] == f"hub:a/b@{COMMIT}:train"
    assert set(server.asked) == {name for name in server.files if "train" in name}, "one split, no code"
    assert "pinned" not in capsys.readouterr().err
    server.files.clear()
    assert len(prompts.scan(Prompts(path="x"), located(f"hub:a/b@{COMMIT}:train"), 0).prompts) == 40
    record = json.loads(next((tmp_path / "cache/datasets").glob("*/source.json")).read_text())
    assert (record["revision"], record["licence"]) == (COMMIT, "cc-by-4.0")


def test_a_branch_is_taken_at_its_commit_and_said_so(server, capsys):
    located("hub:a/b@main:test")
    assert f"hub:a/b@main:test is not pinned: taking commit {COMMIT}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "error", "says"),
    [
        ("hub:a/b@main", DataError, "several splits; name one: data/test, data/train"),
        ("hub:a/b@main:dev", DataError, "no such splits; name one: data/test, data/train"),
        ("hub:a/b:train", ConfigError, "cannot read 'hub:a/b:train'"),
        ("hub:a/c@main:train", EnvironmentProblem, "does not give a/c"),
    ],
)
def test_what_cannot_be_had_is_one_line(server, source, error, says):
    with pytest.raises(error, match=says) as caught:
        located(source)
    assert "\n" not in str(caught.value)
    assert server.asked == []


def test_a_data_set_without_parquet_names_where_the_hub_keeps_it(server):
    server.files = {"train.jsonl": b"{}"}
    with pytest.raises(DataError, match="no Parquet files") as caught:
        located("hub:a/b@main:train")
    assert "refs/convert/parquet" in str(caught.value.next)


def test_splits_are_files_or_folders():
    converted = ["de/train/0000.parquet", "de/train/0001.parquet", "fr/train/0000.parquet", "fr/test/0000.parquet"]
    assert files_of("de/train", converted, "") == converted[:2]
    assert files_of("test", converted, "") == converted[3:]
    assert files_of("", ["train.parquet"], "") == ["train.parquet"]
    assert files_of("train", ["train.parquet", "data/x-train-00000-of-00001-ab12.parquet"], "") == ["train.parquet"]
    with pytest.raises(DataError, match="2 such splits"):
        files_of("train", converted, "")
