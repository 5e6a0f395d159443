#!/usr/bin/env python3
"""Show the student: an OpenAI-compatible endpoint and a page, on this machine only.

This one file needs only Python (3.8 or newer) and the server that the bundle's serving files name:

    python demo/serve.py                        starts serve/llamacpp or serve/vllm of this bundle behind it
    python demo/serve.py --student http://127.0.0.1:8000/v1      uses a server that runs already

Beside it stands the teacher where its key is in the environment variable that demo.json names; see --help.
Nothing is stored. The page loads nothing from elsewhere, and the key stays in this process.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))
PAGES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
MAX_BODY = 1 << 20
MAX_ANSWER = 16 << 20
TIMEOUT_S = 120
START_S = 600


class Problem(Exception):
    """An answer that is an error: status and one sentence for the page. Never what the other server said."""

    def __init__(self, status: int, text: str):
        super().__init__(text)
        self.status, self.text = status, text


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an error: the key is for one host."""

    def redirect_request(self, *_: Any) -> None:
        return None


# No proxy of the environment: the student is on this machine, and the teacher's address is the one that was given.
ASK = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))


class Model:
    """An OpenAI-compatible endpoint."""

    def __init__(self, url: str, name: str, key: str = ""):
        self.url, self.name, self.key = url.rstrip("/"), name, key

    def send(self, path: str, body: bytes | None = None) -> Any:
        """The open response of ``path`` under the endpoint. Raises Problem."""
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = "Bearer " + self.key
        request = urllib.request.Request(self.url + path, data=body, headers=headers)
        try:
            return ASK.open(request, timeout=TIMEOUT_S)
        except urllib.error.HTTPError as error:
            error.close()
            raise Problem(502, f"the model's server answered with status {error.code}") from None
        except (OSError, http.client.HTTPException, ValueError):
            raise Problem(502, "the model's server cannot be reached") from None

    def answer(self, messages: list[dict[str, str]], limit: int) -> dict[str, Any]:
        """The greedy answer to a chat: text, milliseconds, tokens (None where the server does not say)."""
        body = {"model": self.name, "messages": messages, "temperature": 0, "max_tokens": limit}
        started = time.monotonic()
        try:
            with self.send("/chat/completions", json.dumps(body).encode()) as response:
                data = json.loads(response.read(MAX_ANSWER))
            text = data["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError, OSError, http.client.HTTPException):
            raise Problem(502, "the model's server sent no answer that can be read") from None
        usage = data.get("usage") if isinstance(data.get("usage"), dict) else {}
        tokens = usage.get("completion_tokens")
        return {
            "text": text if isinstance(text, str) else "",
            "ms": round((time.monotonic() - started) * 1000),
            "tokens": tokens if isinstance(tokens, int) else None,
        }


class Demo(ThreadingHTTPServer):
    """The server; ``facts`` is demo.json."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], facts: dict[str, Any], student: Model, teacher: Model | None):
        self.facts, self.models = facts, {"student": student, "teacher": teacher}
        super().__init__(address, Handler)
        host, port = self.server_address[:2]
        self.here = f"http://{host!s}:{port}"
        self.names = {f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]")}
        self.loopback = str(host).startswith("127.") or host == "::1"

    def ask(self, body: dict[str, Any]) -> dict[str, Any]:
        """``{"who": "student" | "teacher", "fields": {...}}`` -> the answer of that model. Raises Problem."""
        model, wanted = self.models.get(str(body.get("who"))), body.get("fields")
        if model is None or not isinstance(wanted, dict):
            raise Problem(400, "who is 'student' or 'teacher', where there is a teacher, and fields are texts")
        fields = {str(name): str(value) for name, value in wanted.items()}
        asked = self.facts[str(body["who"])]
        turn = {"role": "user", "content": filled(asked["shape"], fields)}
        return model.answer([*asked["head"], turn], int(self.facts["max_new_tokens"]))


def filled(shape: list[str], fields: dict[str, str]) -> str:
    """The user's message: every second part of ``shape`` is a field's name."""
    return "".join(fields.get(part, "") if number % 2 else part for number, part in enumerate(shape))


class Handler(BaseHTTPRequestHandler):
    """Routes."""

    server: Demo
    protocol_version = "HTTP/1.1"
    timeout = TIMEOUT_S

    def do_GET(self) -> None:
        """The page, its facts, and the list of models."""
        self._guarded(self._get)

    def do_POST(self) -> None:
        """/ask for the page, /v1/... for programs."""
        self._guarded(self._post)

    def _guarded(self, work: Any) -> None:
        try:
            if self.server.loopback and self.headers.get("Host") not in self.server.names:
                raise Problem(403, "this server answers to localhost only")
            origin = self.headers.get("Origin")
            if origin and origin.partition("://")[2] != self.headers.get("Host"):
                raise Problem(403, "no other page may ask")
            work()
        except Problem as problem:
            self.close_connection = True
            self._send(problem.status, "application/json", json.dumps({"error": {"message": problem.text}}).encode())
        except OSError:  # the other side went away, or sends too slowly
            self.close_connection = True

    def _get(self) -> None:
        path = self.path.partition("?")[0]
        if path in PAGES:
            name, kind = PAGES[path]
            with open(os.path.join(HERE, name), "rb") as file:
                self._send(200, kind, file.read())
        elif path == "/facts.json":
            shown = {**self.server.facts, "asks_teacher": self.server.models["teacher"] is not None}
            self._send(200, "application/json", json.dumps(shown).encode())
        elif path == "/v1/models":
            self._pass_on("/models", None)
        else:
            raise Problem(404, "nothing here")

    def _post(self) -> None:
        if self.headers.get("Content-Type", "").partition(";")[0].strip() != "application/json":
            raise Problem(415, "send JSON")
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit() and len(length) < 9) or int(length) > MAX_BODY:
            raise Problem(413, f"the body needs a length of at most {MAX_BODY} bytes")
        try:
            body = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            raise Problem(400, "not a JSON object")
        path = self.path.partition("?")[0]
        if path == "/ask":
            self._send(200, "application/json", json.dumps(self.server.ask(body)).encode())
        elif path in ("/v1/chat/completions", "/v1/completions"):
            self._pass_on(path[3:], json.dumps(body).encode())
        else:
            raise Problem(404, "nothing here")

    def _pass_on(self, path: str, body: bytes | None) -> None:
        """The student's own server answers, as it comes: streams stay streams."""
        student = self.server.models["student"]
        assert student is not None
        with student.send(path, body) as response:
            self.close_connection = True
            self.send_response(response.status)
            self.send_header("Content-Type", response.headers.get("Content-Type", "application/json"))
            self.send_header("Connection", "close")
            self.end_headers()
            while block := response.read1(1 << 16):
                self.wfile.write(block)
                self.wfile.flush()

    def _send(self, status: int, kind: str, data: bytes) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def version_string(self) -> str:
        """Says nothing of this machine."""
        return "demo"

    def log_message(self, *_: Any) -> None:
        """Questions are not written down."""


def start_engine() -> tuple[subprocess.Popen[bytes], str]:
    """Start the bundle's own serving script on a free port: (process, address). Exits when there is none."""
    found = [os.path.join(HERE, "..", "serve", name, "serve.sh") for name in ("llamacpp", "vllm")]
    script = next((path for path in found if os.path.isfile(path)), None)
    if script is None:
        sys.exit("demo: no serving files in this bundle; name a running server with --student URL")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {**os.environ, "PORT": str(port), "PYTHON": sys.executable}
    process = subprocess.Popen(["sh", script], env=settings, stdout=sys.stderr)
    return process, f"http://127.0.0.1:{port}/v1"


def wait_for(student: Model, process: subprocess.Popen[bytes] | None) -> None:
    """Return when the student's server answers; exit when it ends or does not come up."""
    limit = time.monotonic() + START_S
    while time.monotonic() < limit:
        try:
            with student.send("/models"):
                return
        except Problem:
            if process is None:
                sys.exit(f"demo: no server answers on {student.url}")
            if process.poll() is not None:
                sys.exit("demo: the student's server ended; see its message above")
            time.sleep(0.3)
    sys.exit(f"demo: the student's server did not start within {START_S} s")


def main() -> int:
    """Serve until Ctrl-C."""
    with open(os.path.join(HERE, "demo.json"), encoding="utf-8") as file:
        facts = json.load(file)
    teacher = facts["teacher"]
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0],
        epilog=f"the teacher's key: ${teacher['key_env'] or 'TEACHER_KEY'}",
    )
    parser.add_argument("--student", metavar="URL", help="an OpenAI-compatible server that runs already")
    parser.add_argument("--teacher", metavar="URL", default=teacher["base_url"], help="the teacher's endpoint")
    parser.add_argument("--teacher-model", metavar="NAME", default=teacher["model"], help="its name there")
    parser.add_argument("--host", default="127.0.0.1", help="where to listen; there is no password: keep the default")
    parser.add_argument("--port", type=int, default=facts["port"])
    args = parser.parse_args()
    key = os.environ.get(teacher["key_env"] or "TEACHER_KEY", "")
    shown = Model(args.teacher, args.teacher_model, key) if key and args.teacher else None
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that the engine is ended, too
    process, url = (None, args.student) if args.student else start_engine()
    try:
        student = Model(url, facts["name"])
        wait_for(student, process)
        with Demo((args.host, args.port), facts, student, shown) as server:
            sys.stdout.write(f"{server.here}/  (endpoint: {server.here}/v1; Ctrl-C ends it)\n")
            sys.stdout.flush()
            server.serve_forever()
    except KeyboardInterrupt:
        return 0
    except OSError as error:
        sys.exit(f"demo: {error.strerror or error}")
    finally:
        if process is not None:
            process.terminate()
            process.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
