"""The one-off bill: everything the ledger was charged and every hour of a machine, once each; unknown stays unknown."""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from distill.artifacts import RunFolder
from distill.config import Serving
from distill.query.attempts import Plan, Received
from distill.query.store import Store
from evals import bill
from evals.analysis import Arm
from evals.bill import Paid
from evals.economics import Speed
from tests.unit.evals.synthetic import systems

NANO = 10**9
HOUR = Serving(eur_per_hour=3.6)  # a thousandth of a euro per second
ROWS = systems(clusters=1)["student"][:2]


def key_of(name):
    return hashlib.sha256(name.encode()).hexdigest()


def config_of(teacher="openai", serving=HOUR, remote=None):
    return SimpleNamespace(
        teacher=SimpleNamespace(kind=teacher), eval=SimpleNamespace(serving=serving, teacher_serving=remote)
    )


@pytest.fixture
def folder(tmp_path):
    """A run: 100 answers bought for 2 EUR, 500 seconds of training."""
    for name in ("data", "student"):
        (tmp_path / name).mkdir()
    write(tmp_path / "data" / "card.json", paid_card())
    write(tmp_path / "student" / "student.json", {"seconds": 500.0, "eur_per_hour": None})
    return RunFolder(tmp_path)


def paid_card():
    return {"answers": 100, "spent": {"answers": {"eur": "2.0"}}, "speed": None, "teachers": [{}]}


def free_card(**changes):
    speed = {"answers": 50, "seconds": 20.0}
    return {"answers": 100, "spent": {"answers": {"eur": None}}, "speed": speed, "teachers": [{}], **changes}


def write(path, values):
    path.write_text(json.dumps(values))


def arm(name, keys, price=None, machine=None, seconds=0.0):
    rows = [replace(row, id=key, request_key=key_of(key)) for row, key in zip(ROWS, keys, strict=False)]
    return Arm(name, name, rows, price=price, machine=machine, speed=Speed(len(rows), 1, 1, seconds))


PRICED = {"input": 1.0, "output": 2.0}
ARMS = [arm("teacher", ["e1", "e2"], PRICED), arm("student", ["s1", "s2"], None, HOUR, 90.0)]
CHARGES = {key_of("g1"): 2 * NANO, key_of("g2"): NANO // 2, key_of("e1"): NANO // 4, key_of("e2"): 0}


def test_the_bill_is_what_the_ledger_charged_and_what_the_machines_took(folder):
    found = bill.one_off(config_of(), folder, ARMS, Paid({**CHARGES, key_of("s1"): None}, {}))
    assert found["evaluation_eur"] == pytest.approx(0.25 + 0.09)
    assert found["training_eur"] == pytest.approx(0.5)
    # The student's own answers have no price, but they are the evaluation's: the teacher's part stays known.
    assert found["teacher_eur"] == pytest.approx(2.5)
    assert found["total_eur"] == found["known_eur"] == pytest.approx(2.5 + 0.5 + 0.34)
    assert (found["unknown"], found["evaluation_seconds"]) == ([], 90.0)


def test_every_charge_of_the_ledger_is_in_the_bill_once(folder):
    judging, loading = {key_of("j"): True}, {key_of("l")}
    charges = {**CHARGES, key_of("j"): 3 * NANO, key_of("l"): 5 * NANO}
    found = bill.one_off(config_of(), folder, ARMS, Paid(charges, judging, loading))
    assert found["evaluation_eur"] == pytest.approx(0.25 + 3 + 5 + 0.09)
    assert found["teacher_eur"] == pytest.approx(2.5)
    billed = found["teacher_eur"] + found["evaluation_eur"] - 0.09
    assert billed == pytest.approx(sum(charges.values()) / NANO)


def test_training_costs_its_own_machine_where_that_has_a_price(folder):
    write(folder.student / "student.json", {"seconds": 500.0, "eur_per_hour": 36.0})
    assert bill.one_off(config_of(), folder, ARMS, Paid(CHARGES, {}))["training_eur"] == pytest.approx(5.0)
    alone = bill.one_off(config_of(serving=Serving()), folder, ARMS, Paid(CHARGES, {}))
    assert alone["training_eur"] == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("teacher", "remote", "eur"),
    [("transformers", None, 0.04), ("openai", Serving(eur_per_hour=36.0), 0.4), ("openai", None, None),
     ("openai", Serving(), None), ("fake", Serving(eur_per_hour=36.0), None)],
)  # fmt: skip
def test_a_teacher_on_a_machine_costs_all_its_answers_at_the_measured_speed(folder, teacher, remote, eur):
    write(folder.data_card, free_card())  # 20 seconds for half of the answers
    found = bill.one_off(config_of(teacher, remote=remote), folder, ARMS, Paid({key_of("g1"): None}, {}))
    assert found["teacher_eur"] == (None if eur is None else pytest.approx(eur))
    assert (found["total_eur"] is None) == (eur is None)
    assert found["unknown"] == ([] if eur is not None else ["teacher"])


@pytest.mark.parametrize(
    "card",
    [free_card(speed=None), free_card(teachers=[{}, {}]),
     free_card(spent={"answers": {"eur": "1"}, "judge": {"eur": None}}), None],
    ids=["no speed", "two teachers", "a judge without a price", "no card"],
)  # fmt: skip
def test_a_part_that_nobody_knows_keeps_the_total_unknown_and_the_known_parts_are_shown(folder, card):
    if card is None:
        folder.data_card.unlink()
    else:
        write(folder.data_card, card)
    found = bill.one_off(config_of("transformers"), folder, ARMS, Paid(CHARGES, {}))
    assert found["teacher_eur"] is found["total_eur"] is None
    assert found["unknown"] == ["teacher"]
    assert found["known_eur"] == pytest.approx(2.5 + 0.5 + 0.34)


def test_an_arm_or_a_judge_that_nobody_pays_for_visibly_makes_the_evaluation_unknown(folder):
    lost = bill.one_off(config_of(), folder, [*ARMS, arm("own server", ["o1"])], Paid(CHARGES, {}))
    assert lost["evaluation_eur"] is lost["total_eur"] is None
    assert lost["known_eur"] == pytest.approx(3.34)
    judged = bill.one_off(config_of(), folder, ARMS, Paid(CHARGES, {key_of("j"): False}))
    assert judged["unknown"] == ["evaluation"]
    unpriced = bill.one_off(config_of(serving=Serving()), folder, ARMS, Paid(CHARGES, {}))
    assert unpriced["unknown"] == ["training"]


def test_votes_and_the_sweep_of_load_are_a_part_of_the_evaluation(folder):
    half = Serving(eur_per_hour=3.6, utilisation=0.5)
    voting = replace(
        arm("student", ["s1", "s2"], None, half, 90.0), voted=ROWS, voted_costs=(4e6, 6e6), ballots=(key_of("v"),)
    )
    swept = {"arms": [{"name": "student", "levels": [{"seconds": 20.0}, {"seconds": 30.0}]}]}
    charges = {**CHARGES, key_of("v"): None}  # a vote of an engine without a price leaves the teacher's part known
    found = bill.one_off(config_of(), folder, [ARMS[0], voting], Paid(charges, {}), swept)
    # 10 million nano-EUR at half the time: 5 seconds of the machine.
    assert found["evaluation_eur"] == pytest.approx(0.25 + (90 + 50 + 5) / 1000)
    assert found["evaluation_seconds"] == 140.0
    assert found["teacher_eur"] == pytest.approx(2.5)
    lost = bill.one_off(config_of(), folder, [ARMS[0], replace(voting, voted_costs=None)], Paid(charges, {}), swept)
    assert lost["unknown"] == ["evaluation"]


def test_the_ledger_knows_the_sends_that_brought_nothing(tmp_path):
    load = json.dumps({"provider": {"load": {"level": 1}}, "request": {}}).encode()

    async def go(store):
        plans = [Plan(key_of(name), f'{{"provider": {{}}, "request": "load {name}"}}'.encode(), 100) for name in "abc"]
        plans += [Plan(key_of("own"), b"{}"), Plan(key_of("load"), load, 100)]
        ids = [one for (one,) in await store.reserve([[plan] for plan in plans])]
        await store.settle([Received(ids[0], b"x", cost_nano=40), Received(ids[3], b"y")])
        await store.uncertain([ids[1]], "timeout")
        await store.release([ids[2]], "http_500")
        ((again,),) = await store.reserve([[Plan(key_of("b"), b"", 100)]])
        await store.settle([Received(again, b"z", cost_nano=30), Received(ids[4], b"w", cost_nano=7)])

    with Store(tmp_path / "run.db") as store:
        store.set_cap(1000)
        asyncio.run(go(store))
        charges = store.charges()
        # Without an answer it stays charged at its worst case; what did no work cost nothing.
        assert charges == {key_of("a"): 40, key_of("b"): 130, key_of("own"): None, key_of("load"): 7}
        assert sum(nano or 0 for nano in charges.values()) == store.totals().balance.committed
        assert Paid.of(store, {}) == Paid(charges, {}, {key_of("load")})
