"""SIGKILL at random points: what was committed is never lost and never sent again; the ledger covers the bill."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sqlite3
import time

import pytest

from distill.query.store import Store
from tests.fault import child
from tests.fault.hostile import HostileTeacher
from tests.unit.query.prices import PRICE

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.fault.child"])
CAP = 50.0


def start(target, server, folder, texts, concurrency=16):
    process = FORKS.Process(target=target, args=(server.url, str(folder), texts, CAP, concurrency))
    process.start()
    return process


def acknowledged(folder) -> set[int]:
    path = folder / "acks"
    return {int(line) for line in path.read_text().split("\n")[:-1]} if path.exists() else set()


def stored(folder) -> dict[int, str]:
    """Attempt -> state, and which attempts have an answer (state `received` without one is a lost row)."""
    if not (folder / "run.db").exists():
        return {}
    with sqlite3.connect(folder / "run.db") as connection:
        try:
            rows = connection.execute(
                "SELECT a.id, CASE WHEN r.attempt_id IS NULL AND a.state = 'received' THEN 'lost' ELSE a.state END"
                " FROM attempt a LEFT JOIN response r ON r.attempt_id = a.id"
            ).fetchall()
        except sqlite3.OperationalError:  # killed before the tables were there
            return {}
    return dict(rows)


def committed_texts(folder, texts) -> set[str]:
    from tests.fault.asking import provider_of, requests_of

    identity = provider_of("http://127.0.0.1:1/v1").identity()
    with Store(folder / "run.db") as store:
        keys = {
            request.key(identity | {"base_url": URL[0]}): text
            for request, text in zip(requests_of(texts), texts, strict=True)
        }
        return {keys[key] for key in store.get_many(keys)}


URL = [""]


def kill_somewhere(draw, target, server, folder, texts) -> tuple[set[str], int]:
    """Start a process and kill it: every fifth time while it starts, else after a random number of calls.

    Gives what was committed before it started, and how many calls the server had seen then.
    """
    known = committed_texts(folder, texts) if stored(folder) else set()
    seen = len(server.calls)
    process = start(target, server, folder, texts)
    if draw.random() < 0.2:
        time.sleep(draw.uniform(0.0, 0.8))
    else:
        calls = draw.randrange(1, 50)
        while len(server.calls) < seen + calls and process.is_alive():
            time.sleep(0.001)
        time.sleep(draw.uniform(0.0, 0.02))
    process.kill()
    process.join()
    return known, seen


def campaign(folder, points: int, target=child.work, seed: int = 3) -> dict[str, int]:
    """Kill ``points`` times, then let it finish; the figures, after checking every promise on the way."""
    draw = random.Random(seed)
    texts = [f"question {n} " + "x" * (n % 50) for n in range(70 * points)]
    lost = sent_again = at_work = 0
    with HostileTeacher(latency_s=0.004) as server:
        URL[0] = server.url
        for _ in range(points):
            known = kill_somewhere(draw, target, server, folder, texts)
            states = stored(folder)
            at_work += "reserved" in states.values()
            lost += len([a for a in acknowledged(folder) if states.get(a) != "received"])
            sent_again += len([c for c in server.calls[known[1] :] if c.text in known[0]])
        process = start(target, server, folder, texts)
        process.join()
        assert process.exitcode == 0
        with Store(folder / "run.db") as store:
            totals, contradictions = store.totals(), store.audit()
        bill, sends = server.bill(PRICE), server.sends()
        from distill.costs import cost_nano
        from tests.fault.hostile import usage_of

        exact = sum(cost_nano(usage_of(text), PRICE) for text in texts)
    return {
        "lost": lost,
        "sent_again": sent_again,
        "rows": totals.answers - len(texts),
        "contradictions": len(contradictions),
        "ledger_minus_exact": totals.balance.spent - exact,
        "idle_kills": max(0, points // 5 - at_work),  # a harness that never hits a call in flight shows nothing
        "uncovered": max(0, bill - totals.balance.spent - totals.balance.uncertain),
        "unknown_sends": max(0, sends - len(texts) - totals.uncertain),
    }


def test_twenty_kills_lose_nothing_and_buy_nothing_twice(tmp_path):
    figures = campaign(tmp_path, points=20)
    assert {name: value for name, value in figures.items() if value} == {}


def test_the_harness_notices_a_store_that_acknowledges_what_it_has_not_kept(tmp_path):
    texts = [f"question {n}" for n in range(50)]
    with HostileTeacher() as server:
        start(child.sabotaged, server, tmp_path, texts).join()
    states = stored(tmp_path)
    assert [a for a in acknowledged(tmp_path) if states.get(a) != "received"]


@pytest.mark.fault
@pytest.mark.parametrize("seed", range(int(os.environ.get("KILL_ROUNDS", "10"))))
def test_three_hundred_kills_lose_nothing_and_buy_nothing_twice(tmp_path, seed):
    assert set(campaign(tmp_path, points=30, seed=100 + seed).values()) == {0}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_lets_calls_in_flight_end_and_the_same_command_goes_on(tmp_path, number, code):
    texts = [f"question {n}" for n in range(400)]
    with HostileTeacher(latency_s=0.1) as server:
        process = start(child.work, server, tmp_path, texts)
        while len(server.calls) < 40:
            time.sleep(0.01)
        os.kill(process.pid, number)
        process.join(10)
        assert process.exitcode == code
        sent = server.sends()
        with Store(tmp_path / "run.db") as store:
            totals = store.totals()
            assert (totals.uncertain, store.recovered) == (0, 0), "nothing was cut off"
            assert totals.answers == sent < 400
            assert totals.balance.spent == server.bill(PRICE)
        process = start(child.work, server, tmp_path, texts)
        process.join(30)
        assert process.exitcode == 0
        assert server.sends() == 400, "no answer was bought twice"


def test_a_second_signal_leaves_at_once_and_stays_consistent(tmp_path):
    with HostileTeacher(latency_s=0.9) as server:
        process = start(child.work, server, tmp_path, [f"question {n}" for n in range(64)])
        while len(server.calls) < 16:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGTERM)
        time.sleep(0.1)
        started = time.monotonic()
        os.kill(process.pid, signal.SIGTERM)
        process.join(5)
        assert process.exitcode == 75
        assert time.monotonic() - started < 0.6
        with Store(tmp_path / "run.db") as store:
            totals = store.totals()
            assert totals.uncertain == 16
            assert totals.balance.uncertain > 0
            assert store.audit() == []
