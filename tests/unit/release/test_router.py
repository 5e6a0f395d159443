"""The bundle's router before two loopback fakes: it passes on exactly what the evaluation said, and fails cleanly."""

import http.client
import json
import math
import os
import random
import re
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from distill import plugins
from distill.config import RunConfig, Serving
from distill.query.store import Store
from distill.release import cascade_router as router
from evals import cascade, cascade_file, consistency
from evals.analysis import Arm, Question, analyse
from evals.asking import Desk, ask, exams
from evals.confidence import mean_probability
from evals.samples import Sample, same
from evals.tasks import classification, exact

KEY = "the-teachers-" + "own-key"
ITEMS = 60


def answer_of(who, text):
    """(text, log-probabilities) of a fake: the teacher is right, the student where it is sure."""
    number = re.search(r"item (\d+)", text)
    if number is None:
        return "ok", [-0.1]
    rng = random.Random(int(number[1]))
    logprobs = [-rng.expovariate(2.0) for _ in range(rng.randint(1, 6))]
    sure = math.exp(sum(logprobs) / len(logprobs)) > 0.55
    right = who == "teacher" or sure
    return (f"answer {number[1]}" if right else f"guess {rng.randint(0, 9)}"), logprobs


class Engine(BaseHTTPRequestHandler):
    """A model's server; keeps what it was sent."""

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.body = body
        self.server.got.append((self.headers.get("Authorization"), body))
        if self.server.breaks is not None:
            self.server.breaks(self)
            return
        text, logprobs = self.server.answers(self.server.who, body)
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        if body.get("logprobs"):
            content = [{"token": "t", "logprob": p, "top_logprobs": [{"token": "t", "logprob": p}]} for p in logprobs]
            choice["logprobs"] = {"content": content}
        usage = {"prompt_tokens": 20, "completion_tokens": max(1, len(logprobs)), "total_tokens": 20 + len(logprobs)}
        self.reply(200, json.dumps({"id": "1", "model": "m", "choices": [choice], "usage": usage, "secret": "x"}))

    def reply(self, status, text, **headers):
        self.send_response(status)
        self.send_header("Content-Length", str(len(text.encode())))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode())


def serve(who):
    """A fake on a free loopback port, in a thread."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Engine)
    server.daemon_threads = True
    server.got, server.who, server.breaks = [], who, None
    server.answers = lambda who, body: answer_of(who, body["messages"][-1]["content"])
    server.url = f"http://127.0.0.1:{server.server_port}/v1"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    return server


@pytest.fixture
def fakes():
    """(student's server, teacher's server)."""
    found = serve("student"), serve("teacher")
    yield found
    for server in found:
        server.shutdown()
        server.server_close()


def settings(**changes):
    """The run of the evaluation: the student has a shorter opening than its teacher."""
    values = {
        "name": "x",
        "prompts": {"path": "p.jsonl", "system": "Be exact, and think of the rules.", "template": "{{ prompt }}"},
        "teacher": {"kind": "fake", "model": "acme/Teacher-9B"},
        "student": {"model": "smollm2-135m-instruct", "prompt": {"system": "Be exact."}},
        "eval": {"margin": 0.2, "draws": 1000},
    }
    return RunConfig.model_validate(values | changes)


def evaluated(folder, fakes, config=None, votes=0):
    """(report, cascade.json, the questions) of an evaluation that asked the two fakes."""
    config = config or settings()
    rows = [{"id": f"i{n}", "doc": f"d{n // 2}", "prompt": f"item {n}", "answer": f"answer {n}"} for n in range(ITEMS)]
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tasks = [exact.Config(kind="exact", path="items.jsonl", cluster_field="doc")]
    asked = {
        "student": exams(tasks, config.student_prompts(), 32, folder, 0),
        "teacher": exams(tasks, config.prompts, 32, folder, 0),
    }
    openai = plugins.load("distill.providers", "openai")
    desk, arms = Desk(folder, folder / "speed.json", 0.0, Serving()), []
    with Store(folder / "run.db") as store:
        for server in fakes:
            engine = openai.Config(kind="openai", model=server.who, base_url=server.url, top_logprobs=1)
            mine = asked[server.who]
            how = {"held": False, "confidence": server.who == "student"}
            arms.append(
                ask(Arm(server.who, server.who, ()), engine, mine, store, desk, **how, votes=votes * how["confidence"])
            )
    extra = {"name": "x", "sets": [{"name": "items", "items": ITEMS, "licence": "", "kind": "exact", "choices": []}]}
    report = analyse(arms, Question("student", "teacher", margin=0.2, draws=1000, extra=extra))
    return report, cascade_file.exported(report, config, asked["teacher"], asked["student"]), arms, asked["student"]


@pytest.fixture
def routed(fakes):
    """``start(facts)``: a router before the two fakes."""
    made = []

    def start(facts, seconds=20.0):
        models = [
            router.Model(server.who, server.url, server.who, key, seconds)
            for server, key in zip(fakes, ("", KEY), strict=True)
        ]
        server = router.Router(("127.0.0.1", 0), router.Cascade(facts, *models))
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        made.append(server)
        return server

    yield start
    for server in made:
        server.shutdown()
        server.server_close()


def call(server, body, path="/v1/chat/completions", method="POST", **headers):
    """(status, headers, body) of one request to the router."""
    link = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    data = json.dumps(body) if isinstance(body, dict) else body
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    link.request(method, path, data, {"Content-Type": "application/json", **named})
    response = link.getresponse()
    return response.status, dict(response.getheaders()), response.read()


FACTS = {
    "schema": 1, "threshold": 0.5, "confidence": {"kind": "logprob"}, "max_new_tokens": 32,
    "prompts": {"student": [], "teacher": []},
}  # fmt: skip
QUESTION = {"messages": [{"role": "user", "content": "item 1"}]}


def test_the_router_passes_on_exactly_the_requests_that_the_evaluations_curve_says(tmp_path, fakes, routed):
    report, facts, arms, exams_ = evaluated(tmp_path, fakes)
    student, teacher = fakes
    curve, samples = report["cascade"]["curve"], {s.id: s for s in arms[0].samples}
    assert facts["threshold"] == report["cascade"]["best"]["threshold"]
    assert 0 < facts["escalated"] < 1
    for point in (curve[0], curve[4], report["cascade"]["best"], curve[-1]):
        server = routed({**facts, "threshold": point["threshold"]})
        passed, right = 0, 0.0
        for exam in exams_:
            messages = [{"role": m.role, "content": m.content} for m in exam.request.messages]
            before = len(teacher.got)
            status, headers, body = call(server, {"messages": messages})
            assert status == 200
            sample = samples[exam.item.id]
            assert float(headers["X-Confidence"]) == sample.confidence
            escalated = sample.confidence < point["threshold"]
            assert headers["X-Answered-By"] == ("teacher" if escalated else "student")
            assert len(teacher.got) - before == escalated
            passed += escalated
            right += same(str(exam.item.gold), json.loads(body)["choices"][0]["message"]["content"])
        assert passed / ITEMS == pytest.approx(point["escalated"])
        assert right / ITEMS == pytest.approx(point["accuracy"])  # what was measured is what is served
    sent = teacher.got[-1][1]["messages"]
    assert sent[0]["content"] == "Be exact, and think of the rules."  # the teacher's own opening, as it was measured
    assert student.got[-1][1]["messages"][0]["content"] == "Be exact."
    assert teacher.got[-1][1]["temperature"] == student.got[-1][1]["temperature"] == 0


def said(entries, content="x", finish="stop"):
    """A student's answer with these log-probabilities."""
    choice = {"message": {"content": content}, "finish_reason": finish, "logprobs": {"content": entries}}
    return {"choices": [choice]}


def test_the_routers_confidence_is_the_evaluations_own():
    rng = random.Random(0)
    for length in [*range(8), 500]:
        logprobs = [-rng.expovariate(1) for _ in range(length)]
        assert router.logprob_confidence(said([{"logprob": p} for p in logprobs])) == mean_probability(logprobs)
    assert router.logprob_confidence(said([{"logprob": 0.1}])) == 1.0
    # What the evaluation counts as silent is passed on first here, too.
    assert router.logprob_confidence(said([{"logprob": -0.1}], content=None)) == 0.0
    assert router.logprob_confidence(said([{"logprob": -0.1}], finish="content_filter")) == 0.0


@pytest.mark.parametrize("found", [None, {}, {"content": None}, {"content": [{}]}, {"content": [{"logprob": "NaN"}]}])
def test_a_server_that_does_not_say_how_sure_it_is_is_an_error_and_not_a_bill(found):
    with pytest.raises(router.Problem, match="log-probabilities") as caught:
        router.logprob_confidence({"choices": [{"message": {"content": "x"}, "logprobs": found}]})
    assert caught.value.status == 502


def test_votes_are_counted_as_the_evaluation_counts_them(tmp_path, fakes, routed):
    def answers(who, body):
        number = int(re.search(r"item (\d+)", body["messages"][-1]["content"])[1])
        if who == "teacher" or body["temperature"] == 0:
            return f"answer {number}", [-0.1]
        # The seed decides, as a sampler's does; items differ in how often they are right.
        right = body["seed"] % 2**31 % 5 >= number % 4
        return (f" Answer {number}. " if right else f"guess {body['seed'] % 2}"), []

    for server in fakes:
        server.answers = answers
    report, facts, arms, exams_ = evaluated(tmp_path, fakes, settings(eval={"self_consistency": 5}), votes=5)
    assert report["cascade"]["confidence"] == "self_consistency"
    assert facts["confidence"] == {
        "kind": "self_consistency", "definition": cascade_file.VOTES, "answers": 5, "temperature": 0.7, "labels": [],
    }  # fmt: skip
    voted = {s.id: s for s in arms[0].voted}
    assert {s.confidence for s in voted.values()} == {1.0, 0.8, 0.6, 0.4}
    assert all(s.completion_tokens == 5 for s in voted.values())  # all five are counted
    server = routed({**facts, "threshold": 0.7})
    for exam in exams_[:12]:
        body = {"messages": [{"role": m.role, "content": m.content} for m in exam.request.messages]}
        status, headers, _ = call(server, body)
        assert status == 200
        assert float(headers["X-Confidence"]) == voted[exam.item.id].confidence
        assert headers["X-Answered-By"] == ("teacher" if voted[exam.item.id].confidence < 0.7 else "student")


@pytest.mark.parametrize(
    ("labels", "module"), [((), exact), (("mail", "mail server", "games", "Straße"), classification)]
)
def test_the_form_in_which_votes_are_counted_is_the_tasks_own(labels, module):
    config = module.Config(kind=module.__name__.rpartition(".")[2], path="x", choices=labels or None)
    rng = random.Random(0)
    parts = ["Mail", " mail server", "GAMES", "straße", "STRASSE", ".", "  ", "\n", "é", "(", "mails", "ﬁn", "", "**"]
    for _ in range(2000):
        text = "".join(rng.choice(parts) for _ in range(rng.randint(0, 4)))
        assert router.form(text, list(labels)) == module.normal(text, config), repr(text)


def test_a_count_of_votes_is_the_evaluations_own():
    config = classification.Config(kind="classification", path="x", choices=("mail", "games"))
    rng = random.Random(0)
    for _ in range(500):
        texts = [rng.choice(["mail", "Games.", "I cannot say", "games, I think"]) for _ in range(rng.randint(2, 7))]
        group = [
            Sample("i", "t", "c", "", "", "", text, classification.normal(text, config), 1.0, finish=str(n))
            for n, text in enumerate(texts)
        ]
        (found,) = consistency.tallied(group, len(group))
        assert router.tally(texts, ["mail", "games"]) == (int(found.finish), found.confidence)


def test_a_vote_that_breaks_agrees_with_nobody_and_none_at_all_is_a_502(fakes, routed):
    votes = {"kind": "self_consistency", "answers": 4, "temperature": 0.7, "labels": []}
    facts = {**FACTS, "confidence": votes, "threshold": 0.7}
    same = '{"choices": [{"message": {"content": "same"}}]}'
    fakes[0].breaks = lambda h: h.reply(*((500, "") if h.body["seed"] == 0 else (200, same)))
    status, headers, _ = call(routed(facts), QUESTION)
    assert status == 200
    assert headers["X-Confidence"] == "0.75"
    fakes[0].breaks = BROKEN["html"]
    status, _, body = call(routed(facts), QUESTION)
    assert status == 502
    assert b"none of the answers" in body


def redirected(handler):
    handler.reply(307, "", Location="http://127.0.0.1:9/v1/chat/completions")


def dripping(handler):
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    try:
        for _ in range(100):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.05)
    except OSError:
        pass


BROKEN = {
    "status": lambda h: h.reply(500, f"trace {h.headers.get('Authorization')}"),
    "redirect": redirected,
    "html": lambda h: h.reply(200, "<html>"),
    "list": lambda h: h.reply(200, "[]"),
    "deep": lambda h: h.reply(200, "[" * 100_000),
    "no choices": lambda h: h.reply(200, '{"choices": []}'),
    "no message": lambda h: h.reply(200, '{"choices": [{"text": "x"}]}'),
    "cut": lambda h: (h.send_response(200), h.send_header("Content-Length", "99"), h.end_headers()),
}


@pytest.mark.parametrize("who", [0, 1])
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_upstream_is_a_clean_502(fakes, routed, who, name):
    fakes[who].breaks = BROKEN[name]
    status, headers, body = call(routed({**FACTS, "threshold": cascade.ALWAYS}), QUESTION)
    assert status == 502
    assert set(json.loads(body)["error"]) == {"message", "type"}
    assert ("the student's", "the teacher's")[who].encode() in body
    assert KEY.encode() not in body
    assert "X-Answered-By" not in headers
    assert b"trace" not in body


def test_a_server_that_sends_a_byte_now_and_then_is_cut_off_in_time(fakes, routed):
    fakes[0].breaks = dripping
    started = time.monotonic()
    status, _, body = call(routed(FACTS, seconds=0.6), QUESTION)
    assert status == 504
    assert b"longer than 0.6 s" in body
    assert time.monotonic() - started < 4  # it would drip for five


def test_a_server_that_is_not_there_is_a_502(fakes, routed):
    server = routed(FACTS)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    server.cascade.student = router.Model("student", f"http://127.0.0.1:{free}/v1", "x")
    assert call(server, QUESTION)[0] == 502


def test_the_key_goes_to_the_teacher_alone_and_nothing_else_of_an_answer_is_passed_on(fakes, routed):
    student, teacher = fakes
    status, _, body = call(routed({**FACTS, "threshold": cascade.ALWAYS}), QUESTION, Authorization="Bearer client")
    assert status == 200
    assert [key for key, _ in student.got] == [None]
    assert [key for key, _ in teacher.got] == [f"Bearer {KEY}"]
    assert KEY.encode() not in body
    assert b"secret" not in body
    found = json.loads(body)
    assert found["usage"] == {"prompt_tokens": 20, "completion_tokens": len(answer_of("teacher", "item 1")[1]),
                              "total_tokens": 20 + len(answer_of("teacher", "item 1")[1])}  # fmt: skip
    assert found["choices"][0]["message"] == {"role": "assistant", "content": "answer 1"}


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"Host": "evil.example:80"}, QUESTION, 403),
        ({"Origin": "https://evil.example"}, QUESTION, 403),
        ({"Content_Type": "text/plain"}, QUESTION, 415),
        ({"Content_Length": "99999999"}, "", 413),
        ({"Content_Length": "²"}, "", 413),
        ({}, "[]", 400),
        ({}, "{", 400),
        ({}, {"messages": []}, 400),
        ({}, {"messages": "x"}, 400),
        ({}, {**QUESTION, "stream": True}, 400),
    ],
)
def test_what_is_no_question_of_a_client_reaches_no_model(fakes, routed, headers, body, status):
    headers = {name: value.encode().decode("latin-1") for name, value in headers.items()}
    found, _, text = call(routed(FACTS), body, **headers)
    assert found == status
    assert set(json.loads(text)["error"]) == {"message", "type"}
    assert fakes[0].got == fakes[1].got == []


def test_it_runs_alone_on_python_and_says_in_one_line_what_is_wrong(tmp_path, fakes):
    (tmp_path / "router.py").write_bytes(Path(router.__file__).read_bytes())
    facts = {**FACTS, "serve": {"student": "s", "teacher": "t", "teacher_url": fakes[1].url, "teacher_key_env": "K_T"}}
    (tmp_path / "cascade.json").write_text(json.dumps(facts))
    command = [sys.executable, "-I", str(tmp_path / "router.py"), "--student", fakes[0].url, "--port", "0"]
    clean = {"PATH": os.environ["PATH"], "K_T": KEY}
    process = subprocess.Popen(command, env=clean, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        port = int(re.search(r":(\d+)/v1", line)[1])
        link = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        link.request("POST", "/v1/chat/completions", json.dumps(QUESTION), {"Content-Type": "application/json"})
        assert link.getresponse().status == 200
    finally:
        process.terminate()
        _, said = process.communicate(timeout=20)
    assert said == ""  # no question and no key in a log
    (tmp_path / "cascade.json").write_text(json.dumps({**FACTS, "schema": 9}))
    for more in ([], ["--cascade", str(tmp_path / "none.json")], ["--cascade", str(tmp_path / "router.py")]):
        found = subprocess.run([*command, *more], env=clean, capture_output=True, text=True)
        assert found.returncode == 1
        assert found.stderr.startswith("router: ")
        assert len(found.stderr.splitlines()) == 1
