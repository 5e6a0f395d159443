"""A model hub on loopback: one repository at one commit, and a list of the files that were fetched from it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hub(ThreadingHTTPServer):
    """``kind``: `models` or `datasets`. The repository is called a/b. While ``silent`` it answers nothing."""

    daemon_threads = True

    def __init__(self, kind: str, commit: str, files: dict[str, bytes], licence: str):
        super().__init__(("127.0.0.1", 0), Pages)
        self.kind, self.commit, self.files, self.licence = kind, commit, files, licence
        self.asked, self.silent, self.stopping = [], False, threading.Event()


class Pages(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        hub, path = self.server, self.path.partition("?")[0]
        folder = "" if hub.kind == "models" else f"/{hub.kind}"
        prefix = f"{folder}/a/b/resolve/{hub.commit}/"
        if hub.silent:
            hub.stopping.wait(20)
        elif path.startswith(f"/api/{hub.kind}/a/b/revision/"):
            names = [{"rfilename": name} for name in hub.files]
            self.reply({"id": "a/b", "sha": hub.commit, "siblings": names, "cardData": {"license": hub.licence}})
        elif path.startswith(f"/api/{hub.kind}/a/b/tree/{hub.commit}"):
            self.reply([{"type": "file", "path": n, "size": len(d), "oid": "0" * 40} for n, d in hub.files.items()])
        elif path.startswith(prefix) and (name := path.removeprefix(prefix)) in hub.files:
            hub.asked.append(name)
            self.send(hub.files[name])
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
        self.send_header("X-Repo-Commit", self.server.commit)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def served(hub: Hub, cache, monkeypatch):
    """The hub that the product asks, with an empty cache of its own, until the block ends."""
    with hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{hub.server_port}")
        monkeypatch.setenv("ALAMBIC_CACHE", str(cache))
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        yield hub
        hub.stopping.set()
        hub.shutdown()
