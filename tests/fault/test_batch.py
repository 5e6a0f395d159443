"""Batch APIs: every ending of a batch, every lost call, and SIGKILL at every arrow; the ledger is what was billed."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from dataclasses import replace

import pytest

from distill.errors import BudgetReached, TeacherRefused, TeacherUnavailable
from distill.query.ask import ask_all
from distill.query.store import Store
from tests.fault import batch_child
from tests.fault.asking import QUICK, provider_of, requests_of
from tests.fault.batch_server import BatchServer, Ending
from tests.unit.query.prices import PRICE

HALF = replace(PRICE, batch_discount=0.5)
TEXTS = [f"question {n}" for n in range(40)]
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.fault.batch_child"])


def ask(server, tmp_path, texts=TEXTS, cap=1.0, **settings):
    """(outcomes, totals, contradictions) of asking through batches."""
    wanted = {"batch": True, "batch_poll_s": 0.01, "batch_requests": 100} | settings
    with Store(tmp_path / "run.db") as store:
        outcomes = ask_all(
            provider_of(server.url, **wanted), requests_of(texts), store,
            title="test", price=HALF, max_cost_eur=cap, policy=QUICK,
        )  # fmt: skip
        return outcomes, store.totals(), store.audit()


def test_answers_come_back_by_key_and_at_the_batch_price(tmp_path):
    with BatchServer() as server:
        outcomes, totals, contradictions = ask(server, tmp_path, batch_requests=15)
        assert [len(made.lines) for made in server.made] == [15, 15, 10]
        assert totals.balance.spent == server.bill(HALF) == sum(o.cost_nano for o in outcomes)
        full = sum(2 * o.cost_nano for o in outcomes)
        with Store(tmp_path / "run.db") as store:
            from distill.costs import cost_nano

            answers = store.get_many([o.key for o in outcomes])
            parse = provider_of(server.url).parse
            assert abs(full - sum(cost_nano(parse(a.raw).usage, HALF) for a in answers.values())) <= 2 * len(TEXTS)
    assert [o.completion.text for o in outcomes] == [f"answer to {t}" for t in TEXTS]
    assert (totals.balance.reserved, totals.balance.uncertain, contradictions) == (0, 0, [])
    assert all(o.latency_s is None for o in outcomes), "a batch has no latency"


def test_what_was_asked_one_by_one_is_not_asked_in_a_batch(tmp_path):
    with BatchServer() as server:
        ask(server, tmp_path, TEXTS[:10])
        outcomes, _, _ = ask(server, tmp_path)
        again, _, _ = ask(server, tmp_path, batch=False)
    assert [len(made.lines) for made in server.made] == [10, 30]
    assert [o.key for o in again] == [o.key for o in outcomes], "batch or not, it is the same question"
    assert all(o.cached for o in again)


@pytest.mark.parametrize("status", ["completed", "expired", "cancelled"])
def test_an_unfinished_batch_is_used_as_far_as_it_goes_and_the_rest_is_asked_again(tmp_path, status):
    with BatchServer(lambda nth: Ending(status, answered=0.5, failed=0.25) if nth == 0 else Ending()) as server:
        outcomes, totals, contradictions = ask(server, tmp_path)
        assert [len(made.lines) for made in server.made] == [40, 20]
        assert sorted(server.asked()) == sorted(TEXTS), "nothing answered is asked twice"
        assert totals.balance.spent == server.bill(HALF)
    assert [o.completion.text for o in outcomes] == [f"answer to {t}" for t in TEXTS]
    # A completed batch may have worked on what it does not mention: that stays charged. An expired one has not.
    assert (totals.uncertain, totals.released) == ((10, 10) if status == "completed" else (0, 20))
    assert contradictions == []


def test_a_completed_batch_with_nothing_but_an_error_file(tmp_path):
    only_errors = Ending(answered=0.0, failed=1.0)
    with BatchServer(lambda nth: only_errors if nth == 0 else Ending()) as server:
        outcomes, totals, _ = ask(server, tmp_path)
        assert totals.balance.spent == server.bill(HALF)
    assert (totals.released, totals.uncertain) == (40, 0)
    assert all(not o.completion.reject for o in outcomes)


def test_a_batch_that_is_refused_line_by_line_is_not_followed_by_another(tmp_path):
    refused = {"status_code": 400, "body": {"error": {"message": "no such parameter", "code": "bad"}}}
    with BatchServer(lambda nth: Ending(answered=0.0, failed=1.0, error=refused)) as server:
        with pytest.raises(TeacherRefused, match="no such parameter"):
            ask(server, tmp_path, batch_requests=20, batch_jobs=1)
        assert len(server.made) == 1


def test_a_batch_that_never_runs_is_tried_twice_and_costs_nothing(tmp_path):
    with BatchServer(lambda nth: Ending("failed", answered=0.0, message="token limit reached")) as server:
        with pytest.raises(TeacherRefused, match="token limit reached"):
            ask(server, tmp_path)
        assert len(server.made) == 2
    with Store(tmp_path / "run.db") as store:
        book = store.totals().balance
        assert (book.spent, book.reserved, book.uncertain) == (0, 0, 0)
    with BatchServer(lambda nth: Ending("failed", answered=0.0) if nth == 0 else Ending()) as server:
        outcomes, _, _ = ask(server, tmp_path / "other")
    assert all(not o.completion.reject for o in outcomes)


def test_a_batch_the_endpoint_has_forgotten_stays_charged(tmp_path):
    with BatchServer(lambda nth: Ending("vanished") if nth == 0 else Ending()) as server:
        outcomes, totals, _ = ask(server, tmp_path)
        assert totals.balance.spent + totals.balance.uncertain >= server.bill(HALF)
    assert totals.uncertain == 40
    assert all(not o.completion.reject for o in outcomes)


def test_strange_lines_are_counted_and_harm_nothing(tmp_path, capsys):
    foreign = json.dumps({"custom_id": "f" * 64, "response": {"status_code": 200, "body": {}}})
    extra = (foreign, "{broken", "[]", '{"custom_id": 7}', "", "[" * 5000)
    doubled = []

    def ending(nth):
        return Ending(extra=extra)

    with BatchServer(ending) as server:
        create = server._create

        def twice(wanted):
            answer = create(wanted)
            name = server.made[-1].output
            lines = server.files[name].splitlines()
            doubled.append(next(line for line in lines if b"question" in line))
            server.files[name] += doubled[-1] + b"\n"
            return answer

        server._create = twice
        outcomes, totals, contradictions = ask(server, tmp_path)
        assert totals.balance.spent == server.bill(HALF)
    said = capsys.readouterr().err
    assert "1 foreign_id" in said
    assert "1 duplicate_id" in said
    assert all(not o.completion.reject for o in outcomes)
    assert contradictions == []


@pytest.mark.parametrize("what", ["upload", "create", "look", "content"])
@pytest.mark.parametrize("fault", ["lost", "500", "429", "html"])
def test_a_lost_call_neither_loses_nor_doubles_a_batch(tmp_path, what, fault):
    script = lambda kind, nth: fault if (kind, nth) == (what, 1) else ""  # noqa: E731
    if (what, fault) == ("content", "html"):
        pytest.skip("a file of rubbish is a file whose requests have no result")
    with BatchServer(fault=script) as server:
        outcomes, totals, contradictions = ask(server, tmp_path)
        assert len(server.made) == 1
        assert totals.balance.spent == server.bill(HALF)
    assert [o.completion.text for o in outcomes] == [f"answer to {t}" for t in TEXTS]
    assert (totals.balance.uncertain, totals.balance.reserved, contradictions) == (0, 0, [])


def test_an_endpoint_without_batches_is_named(tmp_path):
    with BatchServer(fault=lambda what, nth: "404") as server, pytest.raises(TeacherRefused, match="no batches"):
        ask(server, tmp_path)
    with Store(tmp_path / "run.db") as store:
        assert store.totals().balance.reserved == 0


def test_an_endpoint_that_goes_away_is_given_up_and_its_batch_is_found_again(tmp_path, monkeypatch):
    monkeypatch.setattr("distill.query.batch.TRIES", 2)
    with BatchServer(fault=lambda what, nth: "500" if what == "content" else "") as server:
        with pytest.raises(TeacherUnavailable):
            ask(server, tmp_path)
        with Store(tmp_path / "run.db") as store:
            assert (store.recovered, store.totals().balance.uncertain) == (0, 0), "the batch goes on"
        server.fault = lambda what, nth: ""
        outcomes, totals, _ = ask(server, tmp_path)
        assert (len(server.made), totals.balance.spent) == (1, server.bill(HALF))
    assert all(not o.completion.reject for o in outcomes)


def test_the_cap_holds_in_batches(tmp_path):
    with BatchServer() as server:
        with pytest.raises(BudgetReached):
            ask(server, tmp_path, [f"question {n}" for n in range(400)], cap=0.004, batch_requests=50, batch_jobs=3)
        assert 0.9 * 4_000_000 < server.bill(HALF) <= 4_000_000
    with Store(tmp_path / "run.db") as store:
        book = store.totals().balance
        assert (book.spent, book.reserved) == (server.bill(HALF), 0)


def test_switching_batches_off_first_collects_the_open_one(tmp_path):
    process_one(tmp_path, "look:before", server := BatchServer(after_s=0.3).__enter__())
    try:
        with pytest.raises(TeacherRefused):  # this server has no /chat/completions: what is left is asked there
            ask(server, tmp_path, [*TEXTS, "one more"], batch=False)
        with Store(tmp_path / "run.db") as store:
            assert store.totals().answers == len(TEXTS)
    finally:
        server.__exit__()


# -- kills ------------------------------------------------------------------------------------------------------


def process_one(folder, die_at, server, texts=TEXTS):
    """A process that asks and dies at a given arrow; its exit code."""
    process = FORKS.Process(target=batch_child.work, args=(server.url, str(folder), texts, die_at))
    process.start()
    process.join(30)
    return process.exitcode


@pytest.mark.parametrize("place", batch_child.PLACES)
def test_killed_at_any_arrow_nothing_is_lost_or_bought_twice(tmp_path, place):
    with BatchServer() as server:
        assert process_one(tmp_path, place, server) == -signal.SIGKILL, "the arrow was never reached"
        assert process_one(tmp_path, "", server) == 0
        assert sorted(server.asked()) == sorted(TEXTS), "one batch, once"
        with Store(tmp_path / "run.db") as store:
            totals = store.totals()
            assert totals.answers == len(TEXTS)
            assert totals.balance.spent == server.bill(HALF)
            assert (totals.balance.uncertain, totals.balance.reserved, store.audit()) == (0, 0, [])


@pytest.mark.fault
@pytest.mark.parametrize("seed", range(20))
def test_killed_again_and_again_at_random_moments(tmp_path, seed):
    import random

    draw = random.Random(seed)
    texts = [f"question {n}" for n in range(300)]
    with BatchServer(lambda nth: Ending("expired", answered=0.7) if nth % 3 == 0 else Ending(), after_s=0.05) as server:
        for _ in range(15):
            process = FORKS.Process(target=batch_child.work, args=(server.url, str(tmp_path), texts, "", 40))
            process.start()
            process.join(draw.uniform(0.2, 0.9))
            process.kill()
            process.join()
        assert process_one(tmp_path, "", server, texts) == 0
        assert sorted(server.asked()) == sorted(texts)
        with Store(tmp_path / "run.db") as store:
            totals = store.totals()
            assert totals.balance.spent == server.bill(HALF)
            assert (totals.balance.uncertain, totals.balance.reserved, store.audit()) == (0, 0, [])


def test_a_signal_leaves_the_batch_running_and_the_same_command_collects_it(tmp_path):
    with BatchServer(after_s=1.0) as server:
        process = FORKS.Process(target=batch_child.work, args=(server.url, str(tmp_path), TEXTS, ""))
        process.start()
        while "look" not in server.calls:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGTERM)
        started = time.monotonic()
        process.join(10)
        assert process.exitcode == 75
        assert time.monotonic() - started < 0.8
        assert process_one(tmp_path, "", server) == 0
        assert (len(server.made), sorted(server.asked())) == (1, sorted(TEXTS))
