#!/usr/bin/env python3
"""Student first, teacher when unsure: one OpenAI-compatible endpoint in front of both, on this machine only.

This one file needs only Python (3.8 or newer), cascade.json beside it, and two servers:

    TEACHER_KEY=... python serve/router.py --student http://127.0.0.1:8000/v1 --teacher https://api.example.eu/v1 \\
        --teacher-model NAME

The student answers greedily and says how likely each token was. An answer of less confidence than the threshold of
cascade.json is asked of the teacher, whose answer is then given. What each request cost in either case was measured:
see cascade.json. Which one answered is in the headers of the answer: X-Answered-By, X-Confidence.

Keys come from the environment (--student-key-env, --teacher-key-env), never from the command line, and are never
written. Questions are not stored. Streams are refused: an answer is judged when it is whole.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import math
import os
import signal
import socket
import ssl
import sys
import threading
import time
import unicodedata
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

HERE = os.path.dirname(os.path.abspath(__file__))
SCHEMA = 1
MAX_BODY = 1 << 20
MAX_ANSWER = 16 << 20
EDGES = " \t\r\n\"'`*_.,;:!?()[]{}<>#«»“”„‘’"
PASSED = ("max_tokens", "max_completion_tokens", "stop", "user")


class Problem(Exception):
    """An answer that is an error: status and one sentence. Never what the other server said."""

    def __init__(self, status: int, text: str):
        super().__init__(text)
        self.status, self.text = status, text


class Model:
    """An OpenAI-compatible endpoint. ``who``: what it is called in messages. ``seconds``: for one whole call."""

    def __init__(self, who: str, url: str, name: str, key: str = "", seconds: float = 120.0):
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"not an address: {url!r}")
        self.who, self.parts, self.name, self.key, self.seconds = who, parts, name, key, seconds

    def chat(self, messages: list[Any], settings: dict[str, Any]) -> dict[str, Any]:
        """The parsed answer to a chat. Raises Problem (502, or 504 when the time is over)."""
        body = json.dumps({"model": self.name, "messages": messages, **settings}).encode()
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self.key:
            headers["Authorization"] = "Bearer " + self.key
        status, data = self._send("/chat/completions", body, headers)
        if status != 200:
            raise Problem(502, f"the {self.who}'s server answered with status {status}")
        try:
            answer = json.loads(data)
            choice = answer["choices"][0]
            if not isinstance(choice["message"], dict):
                raise TypeError
        except (ValueError, KeyError, IndexError, TypeError, RecursionError):
            raise Problem(502, f"the {self.who}'s server sent no answer that can be read") from None
        return dict(answer)

    def _send(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        """(status, body). No redirect is followed and no proxy used: the key is for one host. Raises Problem."""
        link, over = self._link(), threading.Event()
        held: list[Any] = []
        late = Problem(504, f"the {self.who}'s server took longer than {self.seconds:g} s")

        def cut() -> None:
            over.set()
            for sock in held:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

        # A timeout of the socket starts again with every byte; this one ends the call.
        watch = threading.Timer(self.seconds, cut)
        watch.daemon = True
        watch.start()
        try:
            link.connect()
            held.append(link.sock)  # the link lets go of it when the other side says "close"
            link.request("POST", self.parts.path.rstrip("/") + path, body, headers)
            response = link.getresponse()
            data = response.read(MAX_ANSWER + 1)
        except (OSError, http.client.HTTPException, ValueError) as error:
            if over.is_set() or isinstance(error, socket.timeout):
                raise late from None
            raise Problem(502, f"the {self.who}'s server cannot be reached") from None
        finally:
            watch.cancel()
            link.close()
        if over.is_set():
            raise late
        if len(data) > MAX_ANSWER:
            raise Problem(502, f"the {self.who}'s server sent more than {MAX_ANSWER} bytes")
        return response.status, data

    def _link(self) -> http.client.HTTPConnection:
        host, port = str(self.parts.hostname), self.parts.port
        if self.parts.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=self.seconds)
        return http.client.HTTPSConnection(host, port, timeout=self.seconds, context=ssl.create_default_context())


def logprob_confidence(answer: dict[str, Any]) -> float:
    """Geometric mean probability of the answer's tokens, 0..1; 0 without text. Raises Problem when none are given."""
    choice = answer["choices"][0]
    if choice.get("finish_reason") == "content_filter" or not isinstance(choice["message"].get("content"), str):
        return 0.0
    found = choice.get("logprobs")
    entries = found.get("content") if isinstance(found, dict) else None
    if not isinstance(entries, list):
        raise Problem(502, "the student's server gives no log-probabilities; without them nothing can be judged")
    try:
        values = [float(entry["logprob"]) for entry in entries]
    except (KeyError, TypeError, ValueError):
        raise Problem(502, "the student's server gives log-probabilities that cannot be read") from None
    if any(math.isnan(value) for value in values):
        raise Problem(502, "the student's server gives log-probabilities that are no numbers")
    return min(1.0, math.exp(sum(values) / len(values))) if values else 0.0


def text_of(answer: dict[str, Any]) -> str:
    """The answer's text."""
    content = answer["choices"][0]["message"].get("content")
    return content if isinstance(content, str) else ""


def normalised(text: str) -> str:
    """Case, Unicode form, surrounding punctuation and runs of blanks do not count."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).strip(EDGES)


def form(text: str, labels: list[str]) -> str:
    """The form in which answers are counted: the label that it is or begins with, else the text itself."""
    answer = normalised(text)
    for label in sorted(labels, key=lambda name: (-len(name), name)):
        wanted = normalised(label)
        if answer == wanted or (answer.startswith(wanted) and not answer[len(wanted)].isalnum()):
            return label
    return "" if labels else answer


def tally(texts: list[str], labels: list[str]) -> tuple[int, float]:
    """(index of the first answer that says what most say, share that say so). No legal answer: the first, 0."""
    forms = [form(text, labels) for text in texts]
    votes = Counter(one for one in forms if one)
    if not votes:
        return 0, 0.0
    best = max(votes, key=lambda one: (votes[one], -forms.index(one)))
    return forms.index(best), votes[best] / len(texts)


class Cascade:
    """Both models and the threshold. ``facts`` is cascade.json."""

    def __init__(self, facts: dict[str, Any], student: Model, teacher: Model):
        self.facts, self.student, self.teacher = facts, student, teacher
        self.kind = facts["confidence"]["kind"]
        self.pool = ThreadPoolExecutor(16)

    def answer(self, request: dict[str, Any]) -> tuple[str, float, dict[str, Any]]:
        """(who answered, the student's confidence, the answer). Raises Problem."""
        messages = request.get("messages")
        if not isinstance(messages, list) or not messages:
            raise Problem(400, "messages must be a list of turns")
        if request.get("stream"):
            raise Problem(400, "stream is not offered: an answer is judged when it is whole")
        settings = {name: request[name] for name in PASSED if name in request}
        if not {"max_tokens", "max_completion_tokens"} & set(settings):
            settings["max_tokens"] = self.facts["max_new_tokens"]
        confidence, found = self.ask_student(messages, settings)
        if confidence >= self.facts["threshold"]:
            return "student", confidence, found
        return "teacher", confidence, self.teacher.chat(self.for_teacher(messages), {**settings, "temperature": 0})

    def ask_student(self, messages: list[Any], settings: dict[str, Any]) -> tuple[float, dict[str, Any]]:
        """(confidence, answer), as the evaluation asked and counted."""
        if self.kind == "logprob":
            found = self.student.chat(messages, {**settings, "temperature": 0, "logprobs": True, "top_logprobs": 1})
            return logprob_confidence(found), found
        asked = self.facts["confidence"]
        wanted = [{**settings, "temperature": asked["temperature"], "seed": seed} for seed in range(asked["answers"])]
        answers = list(self.pool.map(lambda one: self.drawn(messages, one), wanted))
        index, share = tally(["" if one is None else text_of(one) for one in answers], asked["labels"])
        chosen = answers[index] or next((one for one in answers if one is not None), None)
        if chosen is None:
            raise Problem(502, "the student's server gave none of the answers that were to be drawn")
        return share, chosen

    def drawn(self, messages: list[Any], settings: dict[str, Any]) -> dict[str, Any] | None:
        """One answer of several; None where it broke: it agrees with nobody."""
        with contextlib.suppress(Problem):
            return self.student.chat(messages, settings)
        return None

    def for_teacher(self, messages: list[Any]) -> list[Any]:
        """The same turns behind what the teacher was asked with, where the student's own opening stands before them."""
        ours, theirs = self.facts["prompts"]["student"], self.facts["prompts"]["teacher"]
        if messages[: len(ours)] == ours:
            return [*theirs, *messages[len(ours) :]]
        return messages


def shown(who: str, name: str, answer: dict[str, Any]) -> dict[str, Any]:
    """The answer as clients know it, made anew: nothing else that the other server said is passed on."""
    choice = answer["choices"][0]
    usage = answer.get("usage")
    return {
        "id": "cascade-" + os.urandom(8).hex(),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": f"{who}:{name}",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text_of(answer)},
                "finish_reason": choice.get("finish_reason"),
            }
        ],
        "usage": {
            k: v
            for k, v in (usage if isinstance(usage, dict) else {}).items()
            if k.endswith("_tokens") and isinstance(v, int)
        },
    }


class Router(ThreadingHTTPServer):
    """The server."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], cascade: Cascade):
        self.cascade = cascade
        super().__init__(address, Handler)
        host, port = self.server_address[:2]
        self.here = f"http://{host!s}:{port}/v1"
        self.names = {f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]")}
        self.loopback = str(host).startswith("127.") or host == "::1"


class Handler(BaseHTTPRequestHandler):
    """Routes."""

    server: Router
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self) -> None:
        """The list of models."""
        self._guarded(self._get)

    def do_POST(self) -> None:
        """/v1/chat/completions."""
        self._guarded(self._post)

    def _guarded(self, work: Any) -> None:
        try:
            if self.server.loopback and self.headers.get("Host") not in self.server.names:
                raise Problem(403, "this server answers to localhost only")
            if self.headers.get("Origin"):
                raise Problem(403, "no page may ask")
            work()
        except Problem as problem:
            self.close_connection = True
            self._send(problem.status, {"error": {"message": problem.text, "type": "cascade"}})
        except OSError:  # the other side went away, or sends too slowly
            self.close_connection = True

    def _get(self) -> None:
        if self.path.partition("?")[0] != "/v1/models":
            raise Problem(404, "nothing here")
        self._send(200, {"object": "list", "data": [{"id": "cascade", "object": "model"}]})

    def _post(self) -> None:
        if self.path.partition("?")[0] != "/v1/chat/completions":
            raise Problem(404, "nothing here")
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
        cascade = self.server.cascade
        who, confidence, answer = cascade.answer(body)
        model = cascade.student if who == "student" else cascade.teacher
        told = {"X-Answered-By": who, "X-Confidence": repr(confidence)}
        self._send(200, shown(who, model.name, answer), told)

    def _send(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        sent = {"Content-Type": "application/json", "Cache-Control": "no-store", "Content-Length": str(len(data))}
        for name, text in {**sent, **(headers or {})}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(data)

    def version_string(self) -> str:
        """Says nothing of this machine."""
        return "router"

    def log_message(self, *_: Any) -> None:
        """Questions are not written down."""


def read_facts(path: str) -> dict[str, Any]:
    """cascade.json. Exits with one line when it is not one that this program serves."""
    try:
        with open(path, encoding="utf-8") as file:
            facts = dict(json.load(file))
    except (OSError, ValueError) as error:
        sys.exit(f"router: cannot read {path}: {error}")
    if facts.get("schema") != SCHEMA:
        sys.exit(f"router: {path} has schema {facts.get('schema')!r}, this program reads {SCHEMA}")
    if facts["confidence"]["kind"] == "self_consistency" and facts["confidence"]["labels"] is None:
        sys.exit("router: these answers are compared by a rule of the task, which this program does not have")
    return facts


def main() -> int:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    add = parser.add_argument
    add("--student", metavar="URL", default="http://127.0.0.1:8000/v1", help="its server (default: %(default)s)")
    add("--student-model", metavar="NAME", help="its name there (default: the name in cascade.json)")
    add("--student-key-env", metavar="NAME", default="STUDENT_KEY", help="environment variable of its key, if any")
    add("--teacher", metavar="URL", help="the teacher's endpoint (default: where the run asked it, in cascade.json)")
    add("--teacher-model", metavar="NAME", help="its name there (default: the name in cascade.json)")
    add("--teacher-key-env", metavar="NAME", help="environment variable of its key (default: as in the run)")
    add("--cascade", metavar="FILE", default=os.path.join(HERE, "cascade.json"), help="default: beside this file")
    add("--host", default="127.0.0.1", help="where to listen; there is no password: keep the default")
    add("--port", type=int, default=8900)
    add("--timeout", type=float, default=120.0, metavar="SECONDS", help="for each whole call (default: %(default)g)")
    args = parser.parse_args()
    facts, limit = read_facts(args.cascade), args.timeout
    known = facts.get("serve", {})
    url = args.teacher or known.get("teacher_url", "")
    names = (args.student_key_env, args.teacher_key_env or known.get("teacher_key_env") or "TEACHER_KEY")
    keys = [os.environ.get(name, "") for name in names]
    if not url:
        sys.exit("router: name the teacher's endpoint with --teacher URL")
    try:
        student = Model("student", args.student, args.student_model or known.get("student", "student"), keys[0], limit)
        teacher = Model("teacher", url, args.teacher_model or known.get("teacher", "teacher"), keys[1], limit)
    except ValueError as error:
        sys.exit(f"router: {error}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with Router((args.host, args.port), Cascade(facts, student, teacher)) as server:
            sys.stdout.write(f"{server.here}  (student below {facts['threshold']:g}: teacher; Ctrl-C ends it)\n")
            sys.stdout.flush()
            server.serve_forever()
    except KeyboardInterrupt:
        return 0
    except OSError as error:
        sys.exit(f"router: {error.strerror or error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
