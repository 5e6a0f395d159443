"""The client's page: the student answers, the teacher only with a key, figures are the run's own, nothing leaves."""

import asyncio
import http.client
import json
import re
import subprocess
import sys
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from distill.errors import ConfigError
from distill.release import demo_server
from distill.release.targets import demo
from tests.unit.release import browser
from tests.unit.release.made import base_folder, build, run_folder

KEY = "the-teachers-" + "own-key"


class Engine(BaseHTTPRequestHandler):
    """A model's server that answers with what it was asked; keeps the requests."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.reply(json.dumps({"data": [{"id": "x"}]}))

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.got.append((self.path, self.headers.get("Authorization"), body))
        if self.server.broken:
            return self.reply(f"no, {self.headers.get('Authorization')}", 401)
        text = f"{self.server.says}: {body['messages'][-1]['content']}"
        answer = {"choices": [{"message": {"content": text}}], "usage": {"completion_tokens": 3}}
        return self.reply(json.dumps(answer))

    def reply(self, text, status=200):
        self.send_response(status)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())


def serve(handler, says=""):
    """A server on a free loopback port, in a thread."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.got, server.says, server.broken = [], says, False
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    return server


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A bundle with the demo, whose report knows what a request costs."""
    base = base_folder(tmp_path_factory.mktemp("base") / "tiny-base")
    examples = [{"text": "un jeu de cartes <b>&"}]
    config, folder = run_folder(
        tmp_path_factory.mktemp("run") / "runs" / "sorter",
        base,
        targets=["merged", {"kind": "demo", "examples": examples}],
    )
    report = json.loads(folder.report_json.read_text())
    for arm, value in (("student", 0.02), ("teacher", 1.5)):
        row = next(row for row in report["arms"] if row["name"] == arm)
        row["cost"] = {"per_1000_requests": {"value": value, "low": value, "high": value}}
    folder.report_json.write_text(json.dumps(report))
    return build(config, folder)


@pytest.fixture
def shown(bundle, monkeypatch):
    """(demo, student's server, teacher's server); the demo serves the files of the bundle."""
    monkeypatch.setattr(demo_server, "HERE", str(bundle / "demo"))
    student, teacher = serve(Engine, "student"), serve(Engine, "teacher")
    models = [
        demo_server.Model(f"http://127.0.0.1:{server.server_port}/v1", name, key)
        for server, name, key in ((student, "sorter-0.1.0", ""), (teacher, "Teacher-9B", KEY))
    ]
    facts = json.loads((bundle / "demo/demo.json").read_text())
    made = demo_server.Demo(("127.0.0.1", 0), facts, *models)
    threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
    yield made, student, teacher
    for server in (made, student, teacher):
        server.shutdown()
        server.server_close()


def call(made, method, path, body=None, **headers):
    """(status, headers, body) of one request to the demo."""
    link = http.client.HTTPConnection("127.0.0.1", made.server_port, timeout=10)
    data = json.dumps(body) if isinstance(body, dict) else body
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    link.request(method, path, data, {"Content-Type": "application/json", **named})
    response = link.getresponse()
    return response.status, dict(response.getheaders()), response.read()


def test_the_student_is_asked_as_it_was_trained_and_the_teacher_with_its_own_prompt(shown):
    made, student, teacher = shown
    for who, server in (("student", student), ("teacher", teacher)):
        status, _, body = call(made, "POST", "/ask", {"who": who, "fields": {"text": "un éditeur"}})
        assert status == 200
        answer = json.loads(body)
        assert answer["text"] == f"{who}: un éditeur"
        assert answer["tokens"] == 3
        path, authorization, asked = server.got[-1]
        assert path == "/v1/chat/completions"
        assert authorization == (f"Bearer {KEY}" if who == "teacher" else None)
        assert asked["messages"][0] == {"role": "system", "content": "Sort the text."}
        assert asked["temperature"] == 0
    assert student.got[-1][2]["model"] == "sorter-0.1.0"


def test_programs_get_an_openai_compatible_endpoint(shown):
    made, student, _ = shown
    assert json.loads(call(made, "GET", "/v1/models")[2]) == {"data": [{"id": "x"}]}
    asked = {"model": "any", "messages": [{"role": "user", "content": "hello"}]}
    status, _, body = call(made, "POST", "/v1/chat/completions", asked)
    assert (status, json.loads(body)["choices"][0]["message"]["content"]) == (200, "student: hello")
    assert student.got[-1][2] == asked


def test_every_answer_forbids_the_page_to_load_or_send_anything_elsewhere(shown):
    made = shown[0]
    for path in ("/", "/page.js", "/page.css", "/facts.json", "/nowhere"):
        policy = call(made, "GET", path)[1]["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'")
        assert "unsafe" not in policy


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example:80"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Content_Type": "text/plain"}, 415),
        ({"Content_Length": "99999999"}, 413),
        ({"Content_Length": "²"}, 413),
    ],
)
def test_another_site_cannot_ask_through_the_browser(shown, headers, status):
    assert call(shown[0], "POST", "/ask", {"who": "student", "fields": {}}, **headers)[0] == status
    assert shown[1].got == []


@pytest.mark.parametrize("body", ["", "[]", "null", "{", "[" * 9999, '{"who": 1}', '{"who": "student", "fields": 3}'])
def test_a_body_that_is_no_question_is_one_sentence(shown, body):
    status, _, text = call(shown[0], "POST", "/ask", body)
    assert status == 400
    assert set(json.loads(text)["error"]) == {"message"}


@pytest.mark.parametrize(
    "path", ["/../release.json", "/%2e%2e/release.json", "/serve.py", "/demo.json", "//etc/passwd"]
)
def test_no_other_file_is_served(shown, path):
    assert call(shown[0], "GET", path)[0] == 404


def test_what_a_models_server_says_wrong_is_not_passed_on_and_the_key_neither(shown):
    made, _, teacher = shown
    teacher.broken = True
    status, _, body = call(made, "POST", "/ask", {"who": "teacher", "fields": {"text": "x"}})
    assert (status, json.loads(body)["error"]["message"]) == (502, "the model's server answered with status 401")
    for path in ("/", "/facts.json", "/page.js"):
        assert KEY.encode() not in call(made, "GET", path)[2]
    teacher.shutdown()
    teacher.server_close()
    assert b"cannot be reached" in call(made, "POST", "/ask", {"who": "teacher", "fields": {}})[2]


def test_the_key_does_not_follow_a_redirect():
    class Elsewhere(Engine):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(307)
            self.send_header("Location", f"http://127.0.0.1:{target.server_port}/v1/chat/completions")
            self.send_header("Content-Length", "0")
            self.end_headers()

    target, first = serve(Engine), serve(Elsewhere)
    model = demo_server.Model(f"http://127.0.0.1:{first.server_port}/v1", "x", KEY)
    with pytest.raises(demo_server.Problem, match="status 307"):
        model.answer([{"role": "user", "content": "x"}], 4)
    assert target.got == []


def test_figures_come_from_the_report_and_unknown_stays_unknown(bundle):
    facts = json.loads((bundle / "demo/demo.json").read_text())
    assert facts["student"]["figures"] == {"accuracy": 0.74, "eur_1000": 0.02, "items": 208, "wh_1000": None}
    assert facts["teacher"]["figures"]["eur_1000"] == 1.5
    assert facts["teacher"]["base_url"] == ""
    assert demo.figures({}, "candidate") == {"accuracy": None, "eur_1000": None, "items": None, "wh_1000": None}


@pytest.mark.parametrize(
    ("template", "parts"),
    [
        ("{{ prompt }}", ["", "prompt", ""]),
        ("Sort: {{ title }}. {{ text | truncate(90, false, '', 0) }}!", ["Sort: ", "title", ". ", "text", "!"]),
        ("{% for x in rows %}- {{ x }}{% endfor %}", ["", "message", ""]),
        ("{{ n + 1 }}", ["", "message", ""]),
        ("{{ text | upper }}", ["", "message", ""]),
        ("nothing", ["", "message", ""]),
    ],
)
def test_a_template_becomes_a_form_or_one_box_for_the_whole_message(template, parts):
    assert demo.shape_of(template) == parts


def test_an_example_of_another_field_is_refused(tmp_path):
    base = base_folder(tmp_path / "base")
    config, folder = run_folder(
        tmp_path / "runs" / "sorter", base, targets=[{"kind": "demo", "examples": [{"txt": "a"}]}]
    )
    with pytest.raises(ConfigError, match="'txt'; the templates have: text"):
        build(config, folder)


def test_the_server_is_one_file_of_the_standard_library_and_says_what_is_missing(bundle):
    source = (bundle / "demo/serve.py").read_text("utf-8")
    imported = set(re.findall(r"^(?:import|from) (\w+)", source, re.MULTILINE))
    assert imported <= set(sys.stdlib_module_names) | {"__future__"}
    alone = [sys.executable, "-I", "-S", str(bundle / "demo/serve.py")]
    run = subprocess.run(alone, capture_output=True, text=True, check=False, cwd="/")
    assert (run.returncode, run.stderr) == (
        1,
        "demo: no serving files in this bundle; name a running server with --student URL\n",
    )
    nobody = subprocess.run([*alone, "--student", "http://127.0.0.1:9/v1"], capture_output=True, text=True, check=False)
    assert "no server answers on http://127.0.0.1:9/v1" in nobody.stderr
    assert not list(bundle.rglob("__pycache__"))


def test_it_starts_from_the_bundle_and_serves_until_it_is_stopped(bundle):
    student = serve(Engine, "student")
    command = [sys.executable, "-I", str(bundle / "demo/serve.py"), "--port", "0"]
    command += ["--student", f"http://127.0.0.1:{student.server_port}/v1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        address = process.stdout.readline().split()[0]
        assert address.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(address + "facts.json") as response:
            assert json.load(response)["asks_teacher"] is False
    finally:
        process.terminate()
        process.wait()


CLICK = """(async () => {
  document.querySelector('#examples button').click();
  document.querySelector('#ask').click();
})()"""


@pytest.mark.skipif(browser.CHROMIUM is None, reason="no chromium here")
def test_a_person_clicks_and_sees_both_answers_and_the_meter(shown, tmp_path):
    made, _, teacher = shown

    async def visit():
        async with browser.page(tmp_path / "profile") as page:
            await page.call("Page.navigate", url=made.here + "/")
            await page.until("document.querySelectorAll('#meter tbody tr').length === 4")
            await page.run(CLICK)
            await page.until("document.querySelector('#teacher .answer').textContent.startsWith('teacher:')")
            await page.until("document.querySelector('#student .answer').textContent.startsWith('student:')")
            text = await page.run("document.querySelector('#student .answer').textContent")
            assert text == "student: un jeu de cartes <b>&"  # shown as text, never as markup
            assert await page.run("document.querySelectorAll('.answer b').length") == 0
            cells = "[...document.querySelectorAll('tr[data-row=%s] td')].map(td => td.textContent)"
            assert await page.run(cells % "eur") == ["0.00002", "0.0015", "0.00148"]
            assert await page.run(cells % "wh") == ["unknown", "unknown", "unknown"]
            teacher.broken = True
            await page.run(CLICK)
            await page.until("document.querySelector('#teacher .answer').classList.contains('bad')")
            assert await page.run(cells % "requests") == ["2", "1", ""]
            await page.run("document.querySelector('#language').click()")
            assert await page.run("document.querySelector('#student h2').textContent") == "élève: sorter-0.1.0"
            assert (await page.run(cells % "wh"))[0] == "inconnu"
            width = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert await page.run(width) == 0
            await page.run("fetch('https://example.org/x').catch(() => 1)")  # the policy stops it
            outside = [url for url in page.asked if not url.startswith((made.here, "data:"))]
            assert not [url for url in outside if url != "https://example.org/x"]
            return [text for text in page.said if "example.org" not in text and "502" not in text]

    assert asyncio.run(visit()) == []


def test_the_servers_behind_it_are_loopback_and_keep_to_the_bundle():
    assert demo_server.filled(["Sort ", "title", ": ", "text", ""], {"title": "a", "text": "b"}) == "Sort a: b"
    assert demo_server.filled(["", "message", ""], {}) == ""
