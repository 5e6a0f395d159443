"""From records to verdict: errors never inflate, everything adds up, and the sentence says what the numbers say."""

import random
from dataclasses import replace

import pytest

from distill.errors import DataError
from evals import fidelity
from evals.analysis import Arm, Question, analyse
from evals.leaks import leaks
from evals.samples import Sample, aligned, read, sample_of, write
from tests.unit.evals.synthetic import LABELS, made, systems


def compared(arms, **changes):
    settings = {"candidate": "student", "reference": "teacher", "draws": 1000, "extra": {"name": "x"}}
    return analyse([Arm(n, n, s, legal=LABELS) for n, s in arms.items()], Question(**(settings | changes)))


def faulty(samples, share, seed=0):
    """The same answers after a share of the calls broke."""
    rng = random.Random(seed)
    return [
        replace(s, text="", predicted="", correct=0.0, reject="html") if rng.random() < share else s for s in samples
    ]


def test_ten_percent_faults_leave_the_headline_at_or_below_the_faultless_one():
    arms = systems()
    clean = compared(arms)
    for seed in range(20):
        broken = compared({**arms, "student": faulty(arms["student"], 0.1, seed)})
        before, after = clean["arms"][3], broken["arms"][3]
        assert after["accuracy"]["value"] <= before["accuracy"]["value"]
        assert after["n"] == before["n"] == 240
        assert sum(after["rejects"].values()) > 0
        assert sum(broken["fidelity"]["cells"].values()) == 240


def test_the_cells_add_up_with_the_pair_and_the_arms():
    report = made()
    cells, pair = report["fidelity"]["cells"], report["pairs"][0]
    arms = {arm["name"]: arm for arm in report["arms"]}
    assert pair["other"] == "teacher"
    assert (cells["lost"], cells["gained"]) == (pair["lost"], pair["gained"])
    assert cells["both_right"] + cells["gained"] == arms["student"]["right"]
    assert cells["both_right"] + cells["lost"] == arms["teacher"]["right"]
    assert pair["difference"]["value"] == pytest.approx((pair["gained"] - pair["lost"]) / 240)


def test_the_order_of_the_items_changes_nothing():
    arms = systems()
    shuffled = {name: random.Random(1).sample(rows, len(rows)) for name, rows in arms.items()}
    shuffled["teacher"] = arms["teacher"]
    assert compared(shuffled) == compared(arms)


def test_costs_follow_their_items_when_arms_come_in_another_order():
    arms = systems()
    rows = list(reversed(arms["student"]))
    costs = tuple(float(10 + int(s.correct)) for s in rows)
    student = Arm("student", "student", rows, costs=costs)
    report = analyse([Arm("teacher", "teacher", arms["teacher"]), student], Question("student", "teacher", draws=1000))
    right = sum(s.correct for s in rows)
    total = sum(costs)
    assert report["arms"][1]["cost"]["per_correct"]["value"] == pytest.approx(total / right / 1e9)


def test_a_system_without_a_right_answer_has_no_cost_per_correct():
    arms = systems()
    wrong = [replace(s, correct=0.0) for s in arms["student"]]
    costs = (5.0,) * len(wrong)
    report = analyse(
        [Arm("teacher", "t", arms["teacher"]), Arm("student", "s", wrong, costs=costs)],
        Question("student", "teacher", draws=1000),
    )
    assert report["arms"][1]["cost"]["per_correct"] is None
    assert report["arms"][1]["cost"]["per_1000_requests"]["value"] > 0


def test_clusters_widen_the_interval():
    arms = systems()
    single = {name: [replace(s, cluster=s.id) for s in rows] for name, rows in arms.items()}
    wide, narrow = (compared(a)["arms"][0]["accuracy"] for a in (arms, single))
    assert wide["high"] - wide["low"] > 1.2 * (narrow["high"] - narrow["low"])
    assert compared(arms)["pairs"][0]["mcnemar"]["valid"] is False
    assert compared(single)["pairs"][0]["mcnemar"]["valid"] is True


@pytest.mark.parametrize(
    ("accuracies", "outcome", "words"),
    [
        ({"student": 0.97}, "pass", "loses less than"),
        ({"student": 0.4}, "fail", "loses more than"),
        ({}, "inconclusive", "would settle it"),
    ],
)
def test_the_sentence_says_the_outcome(accuracies, outcome, words):
    verdict = made(accuracies=accuracies)["verdict"]
    assert verdict["outcome"] == outcome
    assert words in verdict["sentence"]


@pytest.mark.parametrize(
    ("accuracy", "outcome", "words"),
    [
        (0.2, "beaten", "is worse"),
        (0.97, "equal", "No language model is needed"),
        (0.78, "equal", "does as well as the student"),
        (0.74, "open", "may do"),
    ],
)
def test_the_humble_baseline_is_said_plainly(accuracy, outcome, words):
    verdict = made(accuracies={"baseline": accuracy})["verdict"]
    assert verdict["humble"] == outcome
    assert words in verdict["sentence"]


def test_a_student_that_costs_more_is_told_so():
    arms = systems()
    made_ = [
        Arm("teacher", "the teacher", arms["teacher"], costs=(1.0,) * 240),
        Arm("student", "the student", arms["student"], costs=(3.0,) * 240),
    ]
    report = analyse(made_, Question("student", "teacher", draws=1000))
    assert "3.0 times MORE" in report["verdict"]["sentence"]


def test_a_harmful_distillation_is_told_so():
    assert "HARMED" in made(accuracies={"student": 0.1, "base_forced": 0.6})["verdict"]["sentence"]


def test_copied_errors_need_the_same_legal_answer():
    def sample(predicted, correct):
        return Sample("1", "t", "c", "", "g", "", predicted, predicted, correct)

    assert fidelity.cell(sample("x", 0.0), sample("x", 0.0)) == "copied"
    assert fidelity.cell(sample("x", 0.0), sample("y", 0.0)) == "both_wrong"
    assert fidelity.cell(sample("", 0.0), sample("", 0.0)) == "both_wrong"
    assert fidelity.cell(sample("g", 1.0), sample("y", 0.0)) == "gained"
    assert fidelity.kappa(["a", "a", "b", "b"], ["a", "b", "b", "b"]) == pytest.approx(0.5)
    assert fidelity.kappa(["a"], ["a"]) is None


def test_unpaired_or_doubled_items_are_refused():
    arms = systems()
    with pytest.raises(DataError, match="1 missing, 0 more"):
        aligned({"a": arms["teacher"], "b": arms["student"][1:]})
    with pytest.raises(DataError, match="0 missing, 1 more"):
        aligned({"a": arms["teacher"][1:], "b": arms["student"]})
    with pytest.raises(DataError, match="occurs twice"):
        aligned({"a": arms["teacher"], "b": [*arms["student"], arms["student"][0]]})


def test_samples_survive_the_file_exactly_even_with_a_lone_surrogate(tmp_path):
    rows = systems()["student"]
    write(tmp_path / "s.parquet", rows, {"arm": "student"})
    assert read(tmp_path / "s.parquet") == rows
    write(tmp_path / "t.parquet", [replace(rows[0], text="a\ud800b")], {})
    assert read(tmp_path / "t.parquet")[0].text == "a\\ud800b"
    first = (tmp_path / "s.parquet").read_bytes()
    write(tmp_path / "s.parquet", rows, {"arm": "student"})
    assert (tmp_path / "s.parquet").read_bytes() == first


def test_a_cheaper_system_that_passes_the_same_gate_is_named():
    arms = systems(accuracies={"student": 0.97, "base_forced": 0.97})
    prices = {"teacher": 9.0, "student": 3.0, "base_forced": 1.0}
    made_ = [Arm(n, f"the {n}", arms[n], costs=(price,) * 240) for n, price in prices.items()]
    verdict = analyse(made_, Question("student", "teacher", draws=1000))["verdict"]
    assert verdict["cheapest"] == "base_forced"
    assert "Cheaper than the student and good enough" in verdict["sentence"]
    unpriced = [replace(arm, costs=None) if arm.name == "base_forced" else arm for arm in made_]
    assert analyse(unpriced, Question("student", "teacher", draws=1000))["verdict"]["cheapest"] is None


def test_items_that_were_trained_on_are_found_and_the_template_is_not_a_leak():
    template = "Please sort the following package into one of the eight known sections now:"
    trained = [
        f"{template} package {n} draws pictures of the number {n} in {n} colours for children" for n in range(50)
    ]
    fresh = [f"{template} tool {n} sends letters to the person {n} by way of {n} wires at night" for n in range(50)]
    assert leaks(fresh, trained) == {"checked": 50, "exact": 0, "near": 0}
    same = [trained[3].upper() + ".", *fresh[1:]]
    assert leaks(same, trained) == {"checked": 50, "exact": 1, "near": 0}
    nearly = [trained[3] + " and their parents", *fresh[1:]]
    assert leaks(nearly, trained) == {"checked": 50, "exact": 0, "near": 1}
    assert leaks(["short text"], ["short text", "other"])["exact"] == 1
    warned = made(extra={"kind": "run", "name": "x", "gate": "none", "leaks": {"checked": 240, "exact": 3, "near": 1}})
    assert "WARNING: 4 of the items were in the training data" in warned["verdict"]["sentence"]


def test_two_thousand_broken_rows_give_a_record_or_one_line():
    rng = random.Random(0)
    names = ["id", "task", "cluster", "lang", "gold", "prompt", "text", "correct", "usage", "prompt_tokens", "cached"]
    names += [
        "cost",
        "cost_nano",
        "cost_eur",
        "latency_s",
        "finish",
        "reject",
        "predicted",
        "confidence",
        "completion_tokens",
    ]
    values = [
        None,
        "",
        "x",
        "7",
        0,
        1,
        -1,
        0.5,
        float("nan"),
        float("inf"),
        10**40,
        True,
        [],
        {},
        {"prompt": "x"},
        {"prompt": 3},
    ]
    records = 0
    for _ in range(2000):
        row = {name: rng.choice(values) for name in rng.sample(names, rng.randint(0, 8))} | {
            "id": rng.choice(["1", 1, None])
        }
        try:
            made_ = sample_of(row, "here", "t")
        except DataError as error:
            assert "\n" not in str(error)
            continue
        records += 1
        assert 0 <= made_.correct <= 1
        assert made_.cost_nano is None or made_.cost_nano >= 0
    assert records > 30
