"""The hub, played by a loopback server."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from distill import models
from distill.errors import EnvironmentProblem, Refused
from distill.models import hub

COMMIT = "c" * 40


class Hub(ThreadingHTTPServer):
    """Serves one model at one commit and remembers what it was asked for."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]):
        super().__init__(("127.0.0.1", 0), Pages)
        self.files, self.asked, self.silent = files, [], False


class Pages(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        if self.server.silent:
            self.server.stopping.wait(20)
            return
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/a/b/revision/"):
            names = [{"rfilename": name} for name in self.server.files]
            body = {"id": "a/b", "sha": COMMIT, "siblings": names, "cardData": {"license": "mit"}}
            self.reply(json.dumps(body).encode())
        elif path == f"/api/models/a/b/tree/{COMMIT}":
            tree = [{"type": "file", "path": n, "size": len(d), "oid": "0" * 40} for n, d in self.server.files.items()]
            self.reply(json.dumps(tree).encode())
        elif path.startswith(f"/a/b/resolve/{COMMIT}/") and (name := path.rpartition("/")[2]) in self.server.files:
            self.server.asked.append(name)
            self.reply(self.server.files[name])
        else:
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()

    def reply(self, data):
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
def server(tiny_student, tmp_path, monkeypatch):
    files = {file.name: file.read_bytes() for file in Path(tiny_student).iterdir()}
    config = json.loads(files["config.json"]) | {"auto_map": {"AutoConfig": "evil.Evil"}}
    files |= {
        "config.json": json.dumps(config).encode(),
        "evil.py": b"raise SystemExit",
        "pytorch_model.bin": b"pickle",
    }
    with Hub(files) as served:
        served.stopping = threading.Event()
        threading.Thread(target=served.serve_forever, daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{served.server_port}")
        monkeypatch.setenv("ALAMBIC_CACHE", str(tmp_path / "cache"))
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        yield served
        served.stopping.set()
        served.shutdown()


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
