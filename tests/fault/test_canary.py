"""A key is nowhere: not in the run folder, the store, a log, an error or a bug report, whatever command or fault."""

from __future__ import annotations

import json
import logging
import sqlite3
import zlib

import pytest

from distill import cli
from distill.providers import openai
from tests.fault.hostile import BODIES, STATUS, HostileTeacher

CANARY = "canary-7f3a9c-sk-0123456789abcdef"
FAULTS = [
    *STATUS, *BODIES, "401", "reset", "reset_before", "short_body",
    "400_echo", "500_echo", "redirect_echo", "echo_head",
]  # fmt: skip
QUICK = ["401", "400_echo", "500_echo", "redirect_echo", "echo_head", "echo_key", "quota", "html", "surrogate", "reset"]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder that holds everything a command may write, with a configuration for a paid teacher."""
    for name in ("cache", "tmp"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("ALAMBIC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("CANARY_KEY", CANARY)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.jsonl").write_text("".join(f'{{"id": "{n}", "prompt": "q{n}"}}\n' for n in range(3)))
    (tmp_path / "student").mkdir()
    (tmp_path / "student/README.md").write_text("---\nlicense: apache-2.0\n---\n")
    return tmp_path


def write(home, url, **more):
    waiver = {"model": "m", "name": "A. Person", "date": "2026-11-01", "reason": "a loopback test"}
    teacher = {
        "kind": "openai", "model": "m", "base_url": url, "api_key_env": "CANARY_KEY", "timeout_s": 1, "deadline_s": 2,
        "max_attempts": 1, "price": {"input": 1, "output": 3, "as_of": "2026-11-01"},
    }  # fmt: skip
    values = {
        "name": "r", "seed": 1, "prompts": {"path": "prompts.jsonl"}, "teacher": teacher | more,
        "generate": {"max_cost_eur": 1.0}, "student": {"model": "path:student"}, "policy": {"waivers": [waiver]},
    }  # fmt: skip
    (home / "c.yaml").write_text(json.dumps(values))
    return str(home / "c.yaml")


def traces(home, capsys, caplog) -> list[str]:
    """Where the key is found: files, columns of a store once unpacked, what was printed and logged."""
    found = [str(file) for file in home.rglob("*") if file.is_file() and CANARY.encode() in file.read_bytes()]
    for store in home.rglob("*.db"):
        with sqlite3.connect(store) as connection:
            for table in ("request", "response"):
                column = {"request": "canonical", "response": "raw"}[table]
                for codec, blob in connection.execute(f"SELECT codec, {column} FROM {table}"):
                    if CANARY.encode() in (zlib.decompress(blob) if codec else blob):
                        found.append(f"{store}:{table}")
    printed = capsys.readouterr()
    found += [name for name in ("out", "err") if CANARY in getattr(printed, name)]
    return found + (["log"] if CANARY in caplog.text else [])


@pytest.mark.parametrize(
    "fault", [pytest.param(fault, marks=[] if fault in QUICK else pytest.mark.fault) for fault in FAULTS]
)
def test_no_fault_of_a_server_brings_the_key_anywhere(home, capsys, caplog, fault):
    caplog.set_level(logging.DEBUG)
    with HostileTeacher(lambda text, nth: fault if nth == 1 else "ok", key=CANARY) as server:
        code = cli.main(["generate", write(home, server.url), "--out", "run"])
        assert server.calls, "the question never left"
        assert {call.fault for call in server.calls} <= {fault, "ok"}, "the key did reach the server"
    assert code != 70
    assert traces(home, capsys, caplog) == []


def test_no_command_writes_or_says_the_key(home, capsys, caplog):
    caplog.set_level(logging.DEBUG)
    with HostileTeacher(lambda text, nth: "echo_key", key=CANARY) as server:
        config = write(home, server.url, top_logprobs=5)
        for name in cli.COMMANDS:
            if name in ("selftest",):  # kills processes for minutes
                continue
            more = ["--probe"] if name == "doctor" else []
            assert cli.main([name, config, *more]) != 70, name
    assert traces(home, capsys, caplog) == []


def test_a_bug_report_does_not_hold_the_key(home, capsys, caplog, monkeypatch):
    async def broken(self, requests):
        raise KeyError(f"headers {self._headers}")

    monkeypatch.setattr(openai.OpenAIProvider, "ask", broken)
    with HostileTeacher(key=CANARY) as server:
        assert cli.main(["generate", write(home, server.url), "--out", "run"]) == 70
    (report,) = (home / "tmp").glob("distill-bug-*")
    assert "Authorization" in report.read_text(), "the report shows what was raised"
    assert traces(home, capsys, caplog) == []


def test_the_harness_finds_a_key_that_is_there(home, capsys, caplog):
    (home / "a.txt").write_text(f"x {CANARY}")
    print(CANARY)
    logging.getLogger("any").warning(CANARY)
    with sqlite3.connect(home / "s.db") as store:
        store.execute("CREATE TABLE request (codec, canonical)")
        store.execute("CREATE TABLE response (codec, raw)")
        store.execute("INSERT INTO response VALUES (1, ?)", (zlib.compress(f"y {CANARY}".encode() * 99),))
    assert len(traces(home, capsys, caplog)) == 4
