"""SIGTERM and SIGINT while asking: calls in flight may end, a second signal leaves at once; books stay exact."""

from __future__ import annotations

import multiprocessing
import os
import signal
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
