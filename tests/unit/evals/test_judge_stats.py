"""What a judge's verdicts are worth: the intervals cover, and the formulas equal hand-worked ones."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize

from evals import judge_stats

TRIALS = 5_000


def covered(intervals, truth):
    """Share of the intervals that hold the truth."""
    return float(np.mean([i.low <= truth <= i.high for i in intervals]))


def test_kappa_equals_the_hand_worked_table():
    # 20 both yes, 15 both no, 5 and 10 apart: observed 0.7, by chance 0.5.
    judge = [1] * 20 + [1] * 5 + [0] * 10 + [0] * 15
    human = [1] * 20 + [0] * 5 + [1] * 10 + [0] * 15
    found = judge_stats.kappa(judge, human)
    assert found.value == pytest.approx(0.4)
    assert found.low < 0.4 < found.high
    assert judge_stats.kappa([1] * 50, human) is None


def test_kappa_covers():
    rng = np.random.default_rng(0)
    human = rng.random((TRIALS, 150)) < 0.6
    judge = np.where(rng.random((TRIALS, 150)) < 0.85, human, ~human)
    same, j = 0.85, 0.6 * 0.85 + 0.4 * 0.15
    chance = j * 0.6 + (1 - j) * 0.4
    found = [judge_stats.kappa(a, b) for a, b in zip(judge.tolist(), human.tolist(), strict=True)]
    assert covered(found, (same - chance) / (1 - chance)) == pytest.approx(0.95, abs=0.01)


def test_a_corrected_rate_covers_the_truth_that_the_plain_one_misses():
    rng = np.random.default_rng(1)
    sensitivity, specificity, truth = 0.9, 0.75, 0.7

    def judged(right):
        return np.where(rng.random(right.shape) < np.where(right, sensitivity, 1 - specificity), 1, 0)

    right, human = rng.random((TRIALS, 300)) < truth, rng.random((TRIALS, 200)) < 0.5
    seen, checked = judged(right), judged(human)
    found = [judge_stats.corrected_rate(seen[i], range(300), checked[i], human[i]) for i in range(TRIALS)]
    assert covered(found, truth) == pytest.approx(0.95, abs=0.01)
    half = 1.96 * np.sqrt(seen.mean(1) * (1 - seen.mean(1)) / 300)
    assert np.mean(np.abs(seen.mean(1) - truth) <= half) > 0.9  # here the judge's two errors nearly cancel
    rare = judged(rng.random((TRIALS, 300)) < 0.2)
    found = [judge_stats.corrected_rate(rare[i], range(300), checked[i], human[i]) for i in range(TRIALS)]
    assert covered(found, 0.2) == pytest.approx(0.95, abs=0.01)
    assert np.mean(np.abs(rare.mean(1) - 0.2) <= 0.05) < 0.5  # negative control: the plain rate is far off


def test_a_judge_at_chance_corrects_nothing():
    rng = np.random.default_rng(2)
    human, judge = rng.random(2000) < 0.5, rng.random(2000) < 0.5
    assert judge_stats.corrected_rate([1, 0] * 50, range(100), judge, human) is None
    assert judge_stats.corrected_rate([1, 0], range(2), [1, 1], [1, 1]) is None


def test_the_regression_equals_a_general_optimiser():
    rng = np.random.default_rng(3)
    x = np.tanh(rng.standard_normal(80))
    y = rng.choice([0.0, 0.5, 1.0], 80)

    def loss(ab):
        z = ab[0] + ab[1] * x
        return float(np.sum(np.logaddexp(0, z) - y * z) + judge_stats.RIDGE * ab[1] ** 2 / 2)

    best = minimize(loss, [0.0, 0.0], tol=1e-10).x
    assert judge_stats.fit(y, x) == pytest.approx(best, abs=1e-4)


def test_the_win_rate_at_equal_length_covers_where_the_plain_one_rewards_length():
    rng = np.random.default_rng(4)
    trials, n = 3000, 200
    extra = rng.normal(120, 100, size=(trials, n))  # the student writes more
    x = np.tanh(extra / extra.std())
    won = rng.random((trials, n)) < 1 / (1 + np.exp(-(-0.4 + 1.5 * x)))
    truth = 1 / (1 + math.exp(0.4))
    found = [judge_stats.length_controlled(won[i], extra[i], range(n)) for i in range(trials)]
    assert covered(found, truth) == pytest.approx(0.95, abs=0.01)
    assert won.mean() > 0.55 > 0.45 > truth  # the plain win rate says the opposite


def test_equal_lengths_and_equal_verdicts_have_no_length_to_control():
    assert judge_stats.length_controlled([1, 0, 1], [5, 5, 5], range(3)) is None
    assert judge_stats.length_controlled([1, 1, 1], [5, 6, 7], range(3)) is None
