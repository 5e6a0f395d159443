"""The crash campaign: SIGKILL at random moments; what was committed is never lost, never sent again, exactly paid."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from distill.query import attempts, crash, spool
from distill.query.crash import Figures, live

MEMORY = Path("/dev/shm")  # a kill leaves the page cache alone, so no disk is needed to show what it does


@pytest.fixture
def folder(tmp_path, tmp_path_factory):
    """A place in memory where there is one."""
    if not MEMORY.is_dir():
        yield tmp_path
        return
    import tempfile

    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        yield Path(name)


def test_three_hundred_kills_lose_nothing_buy_nothing_twice_and_leave_exact_books(folder):
    figures = crash.campaign(folder, 300, seed=3)
    assert figures.broken(concurrency=16) == {}
    assert figures.kills == 300
    assert figures.at_work > 200, "a campaign that never hits a call in flight shows nothing"
    assert figures.committed > 3000


@pytest.mark.fault
def test_ten_thousand_kills_lose_nothing_buy_nothing_twice_and_leave_exact_books(tmp_path):
    figures = crash.campaign(tmp_path, int(os.environ.get("KILLS", "10000")), seed=10_000, told=print)
    assert figures.broken(concurrency=16) == {}
    assert figures.at_work > figures.kills // 2


def test_under_load_a_kill_bills_no_more_twice_than_was_in_flight(folder):
    with burners():
        figures = crash.campaign(folder, 4, seed=5, concurrency=100, latency_s=0.02, calls=400)
    assert figures.broken(concurrency=100) == {}
    assert figures.at_work >= 2


# -- negative controls: a harness that cannot fail proves nothing ---------------------------------------------


def forgetful(*life):
    """Acknowledges what it has not kept."""

    def only_the_state(connection, answers):
        for answer in answers:
            connection.execute("UPDATE attempt SET state = 'received' WHERE id = ?", (answer.attempt,))

    attempts.settle = only_the_state
    live(*life)


def unspooled(*life):
    """Keeps nothing of an answer until it is committed."""
    spool.Spool.keep = lambda self, answers: None
    live(*life)


def generous(*life):
    """Books one nano-EUR too little each time."""
    settle = attempts.settle

    def less(connection, answers):
        from dataclasses import replace

        settle(connection, [replace(answer, cost_nano=answer.cost_nano - 1) for answer in answers])

    attempts.settle = less
    live(*life)


def test_the_campaign_notices_a_store_that_acknowledges_what_it_has_not_kept(folder):
    assert "lost" in crash.campaign(folder, 3, seed=1, target=forgetful).broken(16)


def test_the_campaign_notices_books_that_are_a_nano_euro_off(folder):
    assert "ledger_difference" in crash.campaign(folder, 1, seed=1, target=generous).broken(16)


@pytest.mark.fault
def test_without_the_spool_a_kill_under_load_bills_more_twice_than_was_in_flight(folder):
    with burners():
        figures = crash.campaign(folder, 10, seed=5, concurrency=100, latency_s=0.02, calls=400, target=unspooled)
    assert figures.most_twice > 100


def test_every_line_that_durability_hangs_on_is_still_where_the_check_removes_it():
    script = Path(__file__).parents[2] / "scripts" / "durability.py"
    done = subprocess.run([sys.executable, str(script), "--list"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_figures_name_each_broken_promise():
    assert Figures(kills=3, committed=9, most_twice=16).broken(16) == {}
    assert Figures(lost=1, most_twice=17).broken(16) == {"lost": 1, "most_twice": 17}


class burners:  # noqa: N801 - reads as a phrase
    """Four busy processes beside."""

    def __enter__(self):
        command = ["nice", "-n", "5", sys.executable, "-c", "while True: pass"]
        self.processes = [subprocess.Popen(command) for _ in range(4)]

    def __exit__(self, *exc):
        for process in self.processes:
            process.kill()
            process.wait()
