"""Several samples in one request: one paid prompt, a row and a key for each sample."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from distill.costs import cost_nano, worst_case_nano
from distill.providers._samples import apart
from distill.query.ask import ask_all
from distill.query.store import Store
from distill.records import Message, Request, Sampling
from tests.fault.asking import QUICK, provider_of
from tests.fault.hostile import HostileTeacher
from tests.unit.query.prices import PRICE

TEXTS = [f"question {n}" for n in range(6)]


def requests(samples=4):
    return [
        Request(
            (Message("user", text),), Sampling(max_new_tokens=32, temperature=0.7, seed=100 + sample), sample=sample
        )
        for text in TEXTS
        for sample in range(samples)
    ]


def ask(server, tmp_path, wanted, cap=1.0, **settings):
    with Store(tmp_path / "run.db") as store:
        outcomes = ask_all(
            provider_of(server.url, **{"samples_per_request": 4} | settings), wanted, store,
            title="test", price=PRICE, max_cost_eur=cap, policy=QUICK,
        )  # fmt: skip
        return outcomes, store.totals(), store.audit()


def test_samples_of_a_prompt_leave_together_and_each_is_a_row(tmp_path):
    with HostileTeacher() as server:
        outcomes, totals, contradictions = ask(server, tmp_path, requests())
        assert [call.body.get("n") for call in server.calls if call.text in TEXTS] == [4] * len(TEXTS)
        assert totals.balance.spent == server.bill(PRICE)
        asked = sum(cost_nano(call.usage, PRICE) for call in server.calls if call.text in TEXTS)
        assert sum(o.cost_nano for o in outcomes) == asked
        again, _, _ = ask(server, tmp_path, requests())
        assert sum(server.sends(text) for text in TEXTS) == len(TEXTS)
    assert len({o.key for o in outcomes}) == 4 * len(TEXTS)
    assert all(o.cached for o in again)
    assert (totals.balance.reserved, contradictions) == (0, [])


def test_samples_that_one_request_cannot_hold_go_in_several(tmp_path):
    with HostileTeacher() as server:
        ask(server, tmp_path, requests(), samples_per_request=3)
        assert sorted(call.body.get("n", 1) for call in server.calls if call.text in TEXTS) == [1] * len(TEXTS) + [
            3
        ] * len(TEXTS)


@pytest.mark.parametrize(("fault", "missing"), [("one_too_few", 1), ("ignores_n", 3)])
def test_samples_that_do_not_come_are_asked_for_one_by_one(tmp_path, fault, missing):
    with HostileTeacher(lambda text, nth: fault if nth == 1 and text in TEXTS else "ok") as server:
        outcomes, totals, contradictions = ask(server, tmp_path, requests())
        assert sum(server.sends(text) for text in TEXTS) == (1 + missing) * len(TEXTS)
        assert totals.balance.spent == server.bill(PRICE)
    assert all(not o.completion.reject for o in outcomes)
    assert (totals.released, totals.uncertain, contradictions) == (missing * len(TEXTS), 0, [])


def test_one_request_reserves_its_prompt_once(tmp_path):
    wanted = requests()[:4]
    full = worst_case_nano(wanted[0], PRICE)
    silent = worst_case_nano(replace(wanted[0], sampling=Sampling(max_new_tokens=0)), PRICE)
    with HostileTeacher() as server:
        ask(server, tmp_path / "probed", wanted)
        outcomes, _, _ = ask(server, tmp_path, wanted, cap=(full + 3 * (full - silent + 1)) / 1e9 + 1e-12)
    assert all(not o.completion.reject for o in outcomes)


def test_the_parts_of_a_response_add_up_to_it():
    usage = {"prompt_tokens": 10, "completion_tokens": 11, "prompt_tokens_details": {"cached_tokens": 4}}
    choice = {"message": {"content": "x"}, "finish_reason": "stop"}
    parts = [json.loads(raw) for raw in apart(json.dumps({"choices": [choice] * 3, "usage": usage}).encode(), 3)]
    assert [len(part["choices"]) for part in parts] == [1, 1, 1]
    assert [part["usage"]["completion_tokens"] for part in parts] == [4, 4, 3]
    assert [part["usage"]["prompt_tokens"] for part in parts] == [10, 0, 0]
    assert len(apart(json.dumps({"choices": [choice] * 5}).encode(), 3)) == 3, "more than asked for is not used"


@pytest.mark.parametrize("raw", [b"", b"<html>", b"[]", b"{}", b'{"choices": []}', b'{"choices": 3}', b"7", b"null"])
def test_what_cannot_be_taken_apart_stays_whole(raw):
    assert apart(raw, 3) == [raw]


def test_asking_together_is_another_question_than_asking_apart():
    one, four = (provider_of("http://127.0.0.1:1/v1", samples_per_request=n).identity() for n in (1, 4))
    assert requests()[0].key(one) != requests()[0].key(four)
