"""A cap on one key over all runs: shares of it are handed out before anything is reserved, and come back."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
from types import SimpleNamespace

import pytest

from distill.errors import BudgetReached
from distill.query import crash, ledger
from distill.query.ask import ask_all
from distill.query.attempts import Received
from distill.query.crash import PRICE
from distill.query.keys import Account, state_dir
from distill.query.store import Store
from distill.query.wire import Teacher, Wire
from tests.unit.query.dying import die, in_a_fork
from tests.unit.query.test_store import plan_of

FORKS = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("ALAMBIC_STATE", str(tmp_path / "state"))


def account(tmp_path, cap=1000) -> Account:
    return Account("KEY in 2026-11", cap, tmp_path / "state" / "keys.db")


def reserve(store, *worsts):
    return asyncio.run(store.reserve([[plan_of(os.urandom(8), worst)] for worst in worsts]))


def settle(store, attempts, cost):
    for attempt in attempts:
        asyncio.run(store.settle([Received(attempt[0], b"x", cost_nano=cost)]))


def test_runs_share_one_cap_and_give_back_what_they_do_not_use(tmp_path):
    with Store(tmp_path / "a.db") as a, Store(tmp_path / "b.db") as b:
        for store in (a, b):
            store.set_cap(10_000, account(tmp_path))
        first = reserve(a, 600)
        assert reserve(b, 600) == [], "it does not fit beside the other run's reservation"
        assert len(reserve(b, 400)) == 1
        settle(a, first, 100)
        assert a.audit() == b.audit() == []
    with Store(tmp_path / "c.db") as c:  # a spent 100, b left 400 uncertain
        c.set_cap(10_000, account(tmp_path))
        assert len(reserve(c, 300, 200, 1)) == 2
        assert c.totals().balance.committed == 500


def test_the_runs_own_cap_still_holds(tmp_path):
    with Store(tmp_path / "a.db") as a:
        a.set_cap(50, account(tmp_path))
        assert reserve(a, 60) == []
        assert len(reserve(a, 50)) == 1


def test_a_killed_run_keeps_its_share_until_it_is_opened_again(tmp_path):
    def spend_and_die():
        store = Store(tmp_path / "a.db")
        store.set_cap(10_000, account(tmp_path))
        settle(store, reserve(store, 300), 300)
        reserve(store, 500)
        die()

    assert in_a_fork(spend_and_die) == -9
    with Store(tmp_path / "b.db") as b:
        b.set_cap(10_000, account(tmp_path))
        assert reserve(b, 250) == []
        assert len(reserve(b, 200)) == 1
    with Store(tmp_path / "a.db") as a:
        a.set_cap(10_000, account(tmp_path))
        assert ledger.balance(a._reader, "KEY in 2026-11").uncertain == 500
        assert reserve(a, 1) == []
        assert a.audit() == []


def test_a_share_never_shrinks_inside_a_transaction_that_may_fail(tmp_path):
    with Store(tmp_path / "a.db") as a, Store(tmp_path / "b.db") as b:
        a.set_cap(10_000, account(tmp_path))
        held = reserve(a, 900)

        def settle_then_reserve_and_fail():
            a._writer.execute("UPDATE attempt SET started = 0")
            from distill.query import attempts

            attempts.settle(a._writer, [Received(held[0][0], b"x", cost_nano=0)])
            assert attempts.reserve(a._writer, [[plan_of("too much", 1001)]], a.account) == []
            raise RuntimeError("the transaction fails after the share was asked for")

        with pytest.raises(RuntimeError):
            asyncio.run(a.write(lambda c: settle_then_reserve_and_fail()))
        b.set_cap(10_000, account(tmp_path))
        assert reserve(b, 200) == [], "the 900 are still held"


def test_a_lost_ledger_of_keys_is_entered_again_by_the_runs_that_are_opened(tmp_path):
    with Store(tmp_path / "a.db") as a:
        a.set_cap(10_000, account(tmp_path))
        settle(a, reserve(a, 800), 800)
    (tmp_path / "state" / "keys.db").unlink()
    with Store(tmp_path / "a.db") as a, Store(tmp_path / "b.db") as b:
        a.set_cap(10_000, account(tmp_path))
        b.set_cap(10_000, account(tmp_path))
        assert reserve(b, 300) == []
        assert len(reserve(b, 200)) == 1


def test_a_teacher_with_a_monthly_cap_stops_all_runs_of_its_key(tmp_path):
    with Teacher(0.001) as teacher:
        spent = 0
        for run in ("one", "two", "three"):
            wire = Wire(teacher.port)
            cap = 60 * 200_000 / ledger.NANO
            wire.config = SimpleNamespace(
                model="wire-1", concurrency=4, api_key_env="SOME_KEY", base_url="x", max_cost_eur_per_month=cap
            )
            requests = crash.requests_of([f"{run} {number}" for number in range(2000)])
            with Store(tmp_path / f"{run}.db") as store:
                with pytest.raises(BudgetReached) as caught:
                    ask_all(wire, requests, store, title="t", price=PRICE, max_cost_eur=1.0)
                assert "max_cost_eur_per_month" in str(caught.value)
                spent += store.totals().balance.committed
        assert 0.95 * cap * ledger.NANO < spent <= cap * ledger.NANO
        assert spent == sum(crash.cost_nano(crash.usage_of(call.text), PRICE) for call in teacher.calls)


def test_without_the_setting_no_file_of_keys_is_made(tmp_path):
    with Teacher(0.001) as teacher, Store(tmp_path / "a.db") as store:
        ask_all(Wire(teacher.port), crash.requests_of(["a"]), store, title="t", price=PRICE, max_cost_eur=1.0)
    assert not state_dir().exists()


def spend(folder, number, cap, calls, seed):
    """One of several processes: adversarial prices, some calls never settled, killed now and then."""
    draw = random.Random(seed)
    with Store(folder / f"{number}.db") as store:
        store.set_cap(10**12, Account("KEY in 2026-11", cap, folder / "state" / "keys.db"))
        for _ in range(calls):
            worst = draw.choice([1, draw.randrange(1, 100), draw.randrange(1, 4000)])
            attempts = reserve(store, worst)
            if not attempts:
                continue
            fate = draw.random()
            if fate < 0.02:
                die()
            if fate < 0.1:
                asyncio.run(store.release(attempts[0], "test"))
            else:
                settle(store, attempts, draw.choice([0, worst, draw.randrange(worst + 1)]))


def test_eight_processes_with_kills_and_restarts_never_pass_the_cap_and_use_nearly_all_of_it(tmp_path):
    cap, seed = 200_000, 0
    for _ in range(6):
        running = []
        for number in range(8):
            seed += 1
            running.append(FORKS.Process(target=spend, args=(tmp_path, number, cap, 60, seed)))
            running[-1].start()
        for process in running:
            process.join(60)
        committed = sum(book(tmp_path, number) for number in range(8))
        assert committed <= cap
    assert committed >= 0.99 * cap


def book(folder, number) -> int:
    with Store(folder / f"{number}.db") as store:
        assert store.audit() == []
        return store.totals().balance.committed
