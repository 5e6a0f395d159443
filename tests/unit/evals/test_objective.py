"""A request's cost at the load that keeps its objective; reading told apart from writing; both by hand."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from distill.config import Serving
from evals import objective, split
from evals.analysis import Arm, Question, analyse
from evals.economics import Speed, self_hosted
from evals.money import per_mtok
from tests.unit.evals.synthetic import systems

ROWS = [replace(row, prompt_tokens=100, completion_tokens=20) for row in systems()["student"]]
L40S = Serving(eur_per_hour=1.09, utilisation=0.3)
BATCH = Speed(240, 24_000, 4_800, 2.0, 16)  # 120 answers a second, and nobody would wait for it


def level(concurrency, per_s, within, good, tokens=(6400, 1280)):
    return {
        "concurrency": concurrency, "requests": 64, "errors": 0, "seconds": 64 / per_s,
        "prompt_tokens": tokens[0], "completion_tokens": tokens[1], "ttft": None, "tpot": None, "e2e": {},
        "requests_per_s": per_s, "tokens_per_s": None, "within": within, "goodput_per_s": good,
    }  # fmt: skip


def load_of(best, *levels):
    limits = {"ttft_s": 1.0, "tpot_s": None, "e2e_s": 5.0, "share": 0.95}
    arm = {"name": "student", "engine": "x", "streamed": True, "best": best, "levels": list(levels)}
    return {"objective": limits, "prompts": 64, "arms": [arm]}


# NVIDIA's figures for Llama-3.3-70B: twice the load, 13 % more tokens, ten times the wait for the first one.
LOAD = load_of(1, level(1, 2.0, 1.0, 2.0), level(4, 6.0, 0.97, 5.82), level(16, 9.0, 0.2, 1.8))


def hosted(**changes):
    costs = self_hosted(ROWS, BATCH, L40S)
    return Arm("student", "the student", ROWS, speed=BATCH, costs=costs, cost_source="batch", machine=L40S, **changes)


def test_a_request_costs_the_second_over_the_goodput_of_the_best_level():
    found = objective.repriced(hosted(), LOAD)
    assert sum(found.costs) / 240 / 1e9 == pytest.approx(1.09 / 3600 / 0.3 / 5.82)
    assert sum(hosted().costs) / 240 / 1e9 == pytest.approx(1.09 / 3600 / 0.3 / 120)  # what the batch would claim
    assert found.cost_source == (
        "1.09 EUR/h, 30 % utilised; 5.82 answers/s with 4 at once, 95 % of them with first token within 1 s, "
        "the whole answer within 5 s"
    )
    pace = objective.pace(LOAD, "student")
    assert (pace.answers_per_s, pace.concurrency) == (5.82, 4)
    assert pace.tokens_per_s == pytest.approx(5.82 * 120)


def test_items_share_the_cost_by_their_tokens_as_far_as_these_are_known():
    rows = [replace(row, prompt_tokens=100 if n % 2 else 340) for n, row in enumerate(ROWS)]
    costs = objective.repriced(replace(hosted(), samples=rows), LOAD).costs
    assert costs[0] == pytest.approx(3 * costs[1])
    blind = load_of(0, level(4, 6.0, 0.97, 5.82, (None, None)))
    even = objective.repriced(replace(hosted(), samples=rows), blind).costs
    assert even == pytest.approx((1.09e9 / 3600 / 0.3 / 5.82,) * 240)


@pytest.mark.parametrize(
    "load", [None, load_of(None, level(1, 2.0, 0.5, 1.0)), load_of(0, level(1, 2.0, 0.5, None)), {"arms": []}]
)
def test_without_a_level_that_keeps_the_objective_the_batch_s_speed_stands(load):
    assert objective.repriced(hosted(), load) == hosted()
    assert objective.pace(load, "student") is None


def test_a_billed_or_unpriced_arm_is_left_alone():
    api = Arm("student", "x", ROWS, costs=(1.0,) * 240, price={"input": 1, "output": 1})
    assert objective.repriced(api, LOAD) is api
    unpriced = replace(hosted(), machine=Serving(), costs=None)
    assert objective.repriced(unpriced, LOAD) is unpriced


def test_the_report_prices_the_arm_and_the_break_even_at_the_objective():
    from evals.money import Money

    teacher = Arm("teacher", "the teacher", systems()["teacher"], costs=(5e6,) * 240, price={"input": 1, "output": 1})
    bill = {"total_eur": 100.0, "teacher_eur": 50.0, "training_eur": 40.0, "evaluation_eur": 10.0}
    question = Question(
        "student", "teacher", draws=1000, extra={"load": LOAD}, money=Money(L40S, bill, "a made-up processor")
    )
    report = analyse([teacher, hosted()], question)
    arm = report["arms"][1]
    assert arm["cost"]["per_1000_requests"]["value"] == pytest.approx(1000 * 1.09 / 3600 / 0.3 / 5.82)
    assert "answers/s with 4 at once" in arm["cost"]["source"]
    money = report["economics"]
    assert money["at_objective"] == {"answers_per_s": 5.82, "concurrency": 4}
    assert money["break_evens"][0]["capacity_per_month"] == pytest.approx(5.82 * 3600 * 730)
    without = analyse([teacher, hosted()], replace(question, extra={}))
    assert without["economics"]["at_objective"] is None
    assert without["economics"]["break_evens"][0]["capacity_per_month"] == pytest.approx(120 * 3600 * 730)


# -- reading and writing -------------------------------------------------------------------------------------------


def calls(count, read, written, noise=0.0, seed=0):
    rng = random.Random(seed)
    made = []
    for _ in range(count):
        r, w = rng.randint(100, 4000), rng.randint(1, 300)
        made.append(split.moment(r, w, (read * r + written * w) * (1 + rng.gauss(0, noise))))
    return split.total(made)


def test_seconds_per_token_read_and_written_are_those_that_made_the_calls():
    assert split.fitted(calls(20, 1e-4, 5e-3)) == pytest.approx((1e-4, 5e-3))
    noisy = split.fitted(calls(400, 1e-4, 5e-3, noise=0.1))
    assert noisy == pytest.approx((1e-4, 5e-3), rel=0.1)


@pytest.mark.parametrize(
    ("sums", "why"),
    [
        ((), "0 calls are too few"),
        (calls(4, 1e-4, 5e-3), "4 calls are too few"),
        (split.total([split.moment(100 * n, 20 * n, n) for n in range(1, 20)]), "the same mix"),
        (split.total([split.moment(100, 0, 1)] * 9), "the same mix"),
        (calls(40, 1e-3, -1e-3), "do not grow with both"),
        (calls(12, 1e-4, 5e-3, noise=1.5), "vary too much"),
    ],
)
def test_where_reading_and_writing_cannot_be_told_apart_it_says_why(sums, why):
    assert why in split.fitted(sums)


def test_prices_of_tokens_read_and_written_add_up_to_what_the_items_cost():
    speed = replace(BATCH, moments=calls(20, 1e-4, 5e-3))
    arm = replace(hosted(), speed=speed)
    found = per_mtok(arm, ROWS, arm.costs, None)
    assert found["output"] == pytest.approx(50 * found["input"])
    assert found["split"] == "least squares over 20 calls"
    eur = (24_000 * found["input"] + 4_800 * found["output"]) / 1e6
    assert eur == pytest.approx(sum(arm.costs) / 1e9)
    assert found["blended"] == pytest.approx(sum(arm.costs) / 1e9 / 28_800 * 1e6)


def test_levels_of_load_with_one_mix_give_no_split_and_with_many_they_do():
    arm = hosted()
    assert "too few" in per_mtok(arm, ROWS, arm.costs, LOAD)["split"]
    alike = load_of(0, *(level(n, n, 1.0, n) for n in range(1, 9)))
    assert "same mix" in per_mtok(arm, ROWS, arm.costs, alike)["split"]
    mixed = [(r, w) for r in (1000, 5000, 9000) for w in (100, 2000)]
    levels = [{**level(4, 1, 1.0, 1.0, m), "seconds": 1e-4 * m[0] + 5e-3 * m[1]} for m in mixed]
    found = per_mtok(arm, ROWS, arm.costs, load_of(0, *levels))
    assert found["split"] == "least squares over 6 levels of load"
    assert found["output"] == pytest.approx(50 * found["input"])


def test_a_billed_arm_has_its_list_s_prices_and_an_unknown_cost_no_blend():
    api = Arm("api", "api", ROWS, costs=(1000.0,) * 240, price={"input": 2.0, "output": 10.0})
    found = per_mtok(api, ROWS, api.costs, None)
    assert (found["input"], found["output"], found["split"]) == (2.0, 10.0, "price list")
    assert found["blended"] == pytest.approx(1000 / 1e9 / 120 * 1e6)
    lost = per_mtok(hosted(), ROWS, None, None)
    assert lost["input"] is lost["output"] is lost["blended"] is None
