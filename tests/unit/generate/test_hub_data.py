"""Data sets of a hub, played by a loopback server: one split at one commit, and nothing of it is run."""

from __future__ import annotations

import hashlib
import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill import prompts
from distill.config import Prompts
from distill.errors import ConfigError, DataError, EnvironmentProblem
from distill.prompts.hub import files_of
from tests.unit.generate.stage import generate

COMMIT = "d" * 40


def parquet(first: int, count: int) -> bytes:
    buffer = io.BytesIO()
    rows = [
        {"id": f"r{n}", "prompt": f"Question {n}?", "lang": "en", "doc": f"d{n}"} for n in range(first, first + count)
    ]
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


class Hub(ThreadingHTTPServer):
    """Serves one data set at one commit and remembers which files it was asked for."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]):
        super().__init__(("127.0.0.1", 0), Pages)
        self.files, self.asked = files, []


class Pages(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path, files = self.path.partition("?")[0], self.server.files
        prefix = f"/datasets/a/b/resolve/{COMMIT}/"
        if path.startswith("/api/datasets/a/b/revision/"):
            names = [{"rfilename": name} for name in files]
            self.reply({"id": "a/b", "sha": COMMIT, "siblings": names, "cardData": {"license": "cc-by-4.0"}})
        elif path.startswith(f"/api/datasets/a/b/tree/{COMMIT}"):
            self.reply([{"type": "file", "path": n, "size": len(d), "oid": "0" * 40} for n, d in files.items()])
        elif path.startswith(prefix) and (name := path.removeprefix(prefix)) in files:
            self.server.asked.append(name)
            self.send(files[name])
        else:
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()

    def reply(self, body):
        self.send(json.dumps(body).encode())

    def send(self, data):
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    files = {
        "README.md": b"---\nlicense: cc-by-4.0\n---\n",
        "b.py": b"raise SystemExit('code of a data set was run')",
        "data/train-00000-of-00002.parquet": parquet(0, 20),
        "data/train-00001-of-00002.parquet": parquet(20, 20),
        "data/test-00000-of-00001.parquet": parquet(40, 5),
    }
    with Hub(files) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{served.server_port}")
        monkeypatch.setenv("ALAMBIC_CACHE", str(tmp_path / "cache"))
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        yield served
        served.shutdown()


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
