"""Break-even in the report: against whom, with which interval; what is unknown stays unknown."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from distill.config import Serving
from evals.analysis import Arm, Question, analyse
from evals.bootstrap import bootstrap
from evals.economics import Speed
from evals.money import Money, interval
from tests.unit.evals.synthetic import systems

BILL = {"teacher_eur": 60.0, "training_eur": 30.0, "evaluation_eur": 10.0, "total_eur": 100.0}
HOUR = Serving(eur_per_hour=0.5, utilisation=0.5)
ANSWERS = systems()


def arm(name, label, eur, rows="student", machine=None, spread=0.0):
    rows = [replace(row) for row in ANSWERS[rows]]
    costs = None if eur is None else tuple(eur * 1e9 * (1 + spread * (n % 5 - 2)) for n in range(len(rows)))
    return Arm(name, label, rows, costs=costs, machine=machine, speed=Speed(240, 1, 1, 24.0))


def report(*others, bill=BILL, own=0.001, **changes):
    made = [
        arm("teacher", "the teacher", 0.005, "teacher", spread=0.2),
        arm("student", "it", own, machine=HOUR),
        *others,
    ]
    settings = {"margin": 0.5, "draws": 2000, "money": Money(HOUR, bill, "a made-up processor")}
    return analyse(made, Question("student", "teacher", **(settings | changes)))["economics"]


def test_the_bill_is_paid_back_against_the_reference_with_an_interval():
    (found,) = report()["break_evens"]
    assert (found["against"], found["ending"], found["requests"]) == ("teacher", "after", 25_000)
    assert found["requests_low"] < 25_000 < found["requests_high"]
    assert (found["api_eur_per_1000"], found["own_eur_per_1000"]) == pytest.approx((5.0, 1.0))


def test_the_price_to_beat_is_that_of_the_cheapest_system_that_passes_even_where_the_student_is_cheaper_still():
    cheap, dear = arm("alternative-1", "cheap", 0.002), arm("alternative-2", "dear", 0.004)
    failing = arm("alternative-3", "bad", 0.0011, "base")
    unpriced = arm("alternative-4", "unpriced", None)
    first, second = report(dear, cheap, failing, unpriced, margin=0.2)["break_evens"]
    assert (first["against"], second["against"]) == ("teacher", "alternative-1")
    assert second["requests"] == 100_000
    # Once the student is dearer than it, the bill is never paid back.
    _, never = report(cheap, own=0.003)["break_evens"]
    assert (never["ending"], never["requests"], never["requests_low"]) == ("never", None, None)
    assert never["curve"]["requests"][-1] > 0


def test_a_system_that_needs_the_same_teacher_labels_is_no_way_around_buying_them():
    humble = arm("baseline", "the baseline", 0.00001)
    assert [b["against"] for b in report(humble, humble=("baseline",))["break_evens"]] == ["teacher"]
    assert [b["against"] for b in report(humble)["break_evens"]] == ["teacher", "baseline"]


def test_the_interval_is_that_of_the_same_draws_as_the_costs():
    rng = np.random.default_rng(1)
    own, other = rng.gamma(4, 0.25e6, 300), rng.gamma(4, 0.5e6, 300)
    drawn = bootstrap({"cost:s": own, "cost:t": other}, range(300), 4000, seed=3)
    found = interval(drawn, 100.0, "s", "t")
    saved = drawn.means["cost:t"] - drawn.means["cost:s"]
    assert found.value == pytest.approx(100e9 / (other.mean() - own.mean()))
    assert found.low == pytest.approx(np.quantile(100e9 / saved, 0.025), rel=0.01)
    assert found.high == pytest.approx(np.quantile(100e9 / saved, 0.975), rel=0.01)


def test_draws_in_which_it_never_pays_leave_the_interval_open():
    rng = np.random.default_rng(1)
    own = rng.gamma(1, 1e6, 40)
    other = own[::-1] + 5e4
    drawn = bootstrap({"cost:s": own, "cost:t": other}, range(40), 4000, seed=3)
    assert 0 < (drawn.means["cost:t"] <= drawn.means["cost:s"]).mean() < 1
    found = interval(drawn, 100.0, "s", "t")
    assert found.high == float("inf")
    assert 0 < found.low < found.value
    assert interval(drawn, 100.0, "t", "s") is None  # the point itself never pays
    assert interval(drawn, None, "s", "t") is None


def test_the_interval_covers_the_truth_in_19_of_20_repetitions():
    rng = np.random.default_rng(7)
    truth, hits = 100e9 / 1e6, 0
    for seed in range(300):
        own, other = rng.gamma(4, 0.25e6, 120), rng.gamma(4, 0.5e6, 120)
        found = interval(bootstrap({"cost:s": own, "cost:t": other}, range(120), 1000, seed), 100.0, "s", "t")
        hits += found.low <= truth <= found.high
    assert 0.92 <= hits / 300 <= 0.98


@pytest.mark.parametrize("missing", ["bill", "own", "other"])
def test_what_is_unknown_stays_unknown_everywhere(missing):
    bill = {**BILL, "total_eur": None} if missing == "bill" else BILL
    made = report(bill=bill, own=None if missing == "own" else 0.001)
    if missing == "other":
        unknown = arm("teacher", "the teacher", None, "teacher")
        money = Money(HOUR, BILL, "a made-up processor")
        question = Question("student", "teacher", draws=1000, money=money)
        made = analyse([unknown, arm("student", "it", 0.001, machine=HOUR)], question)["economics"]
    (found,) = made["break_evens"]
    assert found["ending"] == "unknown"
    assert found["requests"] is found["curve"] is found["requests_low"] is made["tornado"] is None
    assert (made["shocks"] == []) == (missing != "bill")
    if missing != "own":
        assert (found["per_month"] is None) == (missing in ("bill", "other"))


def test_the_tornado_moves_what_the_break_even_rests_on():
    found = report()["tornado"]
    assert (found["base"], found["against"]) == (25_000, "teacher")
    ends = {bar["case"]: (bar["low"], bar["high"]) for bar in found["bars"]}
    assert ends["one-off bill \u00b150 %"] == (12_500, 37_500)
    assert ends["reference price \u00b150 %"] == (66_667, 15_385)
    assert ends["utilisation \u00b150 %"] == (33_334, 23_077)  # 100 / 0.003, 100 / (0.005 - 0.00067)
