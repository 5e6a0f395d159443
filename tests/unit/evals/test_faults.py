"""A hostile endpoint under `distill compare`: faults never flatter, the counts add up, a kill asks nothing twice."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from distill import cli
from tests.fault.hostile import HostileTeacher

ITEMS = 60
RIGHT = 0.8
FAULTS = ("html", "null_content", "content_filter", "truncated_json", "400", "500")


def number_of(text):
    return int(text.rpartition(" ")[2])


def broken(text, nth):
    """Every tenth item has a fault of its own that does not go away."""
    number = number_of(text)
    return FAULTS[number // 10 % len(FAULTS)] if number % 10 == 3 else "ok"


def write_suite(folder):
    """An exact task; the endpoint's `answer to X` is right for four items of five."""
    rows = [
        {"id": f"i{n}", "doc": f"d{n // 2}", "prompt": f"item {n}", "answer": f"answer to item {n}" if n % 5 else "no"}
        for n in range(ITEMS)
    ]
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    suite = {"tasks": [{"kind": "exact", "path": "items.jsonl", "cluster_field": "doc"}]}
    (folder / "suite.yaml").write_text(json.dumps(suite))


def endpoint(folder, name, server, **settings):
    values = {"kind": "openai", "model": name, "base_url": server.url, "max_attempts": 2, "concurrency": 4}
    (folder / f"{name}.yaml").write_text(json.dumps(values | settings))


def compare(folder, out="out"):
    return ["compare", str(folder / "clean.yaml"), str(folder / "faulty.yaml"), "--suite", str(folder / "suite.yaml"),
            "--draws", "1000", "--out", str(folder / out)]  # fmt: skip


def test_ten_percent_faults_of_an_endpoint_never_flatter_it_and_the_counts_add_up(tmp_path, capsys):
    write_suite(tmp_path)
    with HostileTeacher() as clean, HostileTeacher(broken) as faulty:
        endpoint(tmp_path, "clean", clean)
        endpoint(tmp_path, "faulty", faulty)
        assert cli.main(compare(tmp_path)) == 0, capsys.readouterr().err
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    whole, part = report["arms"]
    hit = [n for n in range(ITEMS) if broken(f"item {n}", 1) != "ok"]
    assert len(hit) == ITEMS // 10
    assert whole["accuracy"]["value"] == RIGHT
    lost = sum(n % 5 != 0 for n in hit)
    assert part["accuracy"]["value"] == pytest.approx(RIGHT - lost / ITEMS)  # exactly the broken ones, no other
    assert (whole["n"], part["n"]) == (ITEMS, ITEMS)
    assert sum(part["rejects"].values()) == len(hit)
    assert whole["rejects"] == {}
    cells = report["fidelity"]["cells"]
    assert sum(cells.values()) == ITEMS
    assert (cells["lost"], cells["gained"]) == (lost, 0)
    assert faulty.sends() >= ITEMS


def test_a_killed_comparison_asks_nothing_twice_that_was_committed(tmp_path):
    write_suite(tmp_path)
    with HostileTeacher(latency_s=0.03) as server:
        for name in ("clean", "faulty"):
            endpoint(tmp_path, name, server, extra_body={"who": name}, concurrency=2)
        environment = {**os.environ, "PYTHONPATH": os.getcwd()}
        command = [sys.executable, "-m", "distill", *compare(tmp_path)]
        child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 60
        while server.sends() < ITEMS + 15 and time.monotonic() < until:
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert not (tmp_path / "out" / "report.json").exists()
        committed = kept(tmp_path / "out" / "run.db")
        before = server.sends()
        assert ITEMS < len(committed) < 2 * ITEMS  # in the middle of the second system
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        again = Counter((c.body["who"], c.text) for c in server.calls[before:])
        asked = Counter((c.body["who"], c.text) for c in server.calls)
    assert len(asked) == 2 * ITEMS
    assert sum(again.values()) == 2 * ITEMS - len(committed)  # what was committed is not on the wire again
    assert max(asked.values()) <= 2
    assert sum(asked.values()) - 2 * ITEMS <= 2  # at most what was in flight when it died
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [arm["n"] for arm in report["arms"]] == [ITEMS, ITEMS]


def kept(path):
    """Requests whose answer is in the store."""
    import sqlite3

    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
        return [row[0] for row in database.execute("SELECT DISTINCT request_id FROM attempt WHERE state = 'received'")]
