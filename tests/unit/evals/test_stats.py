"""Closed forms against oracles worked by hand; that the intervals cover is shown in test_coverage.py."""

import math

import numpy as np
import pytest

from evals import stats
from evals.bootstrap import bootstrap


def clustered_pairs(rng, clusters=120, size=5, teacher=0.8, student=0.72, rho=0.5):
    """Correlated 0/1 scores: a cluster effect shared by both systems. Marginal means are exact."""
    shared = rng.normal(size=(clusters, 1))
    common = rng.normal(size=(clusters, size))
    own = rng.normal(size=(2, clusters, size))
    latent = math.sqrt(rho * 0.5) * shared + math.sqrt(rho * 0.5) * common + math.sqrt(1 - rho) * own
    cut = [stats.NormalDist().inv_cdf(p) for p in (teacher, student)]
    scores = (latent < np.array(cut)[:, None, None]).astype(float).reshape(2, -1)
    return scores[0], scores[1], np.repeat(np.arange(clusters), size)


def coverage(trials, one):
    """Share of the trials in which ``one(rng)`` is true."""
    return sum(bool(one(np.random.default_rng(seed))) for seed in range(trials)) / trials


def test_wilson_equals_the_worked_example():
    # 45 of 50: centre and half width worked by hand.
    interval = stats.wilson(45, 50)
    assert interval.value == 0.9
    assert interval.low == pytest.approx(0.78640, abs=1e-4)
    assert interval.high == pytest.approx(0.95652, abs=1e-4)


def test_wilson_stays_inside_0_and_1_and_holds_its_share():
    for n in (1, 2, 7, 500):
        for correct in (0, n):
            interval = stats.wilson(correct, n)
            assert 0 <= interval.low <= interval.value <= interval.high <= 1
    assert stats.wilson(0, 100).high == pytest.approx(0.037, abs=1e-3)


def test_a_paired_difference_is_tighter_than_two_intervals():
    t, s, c = clustered_pairs(np.random.default_rng(1))
    unpaired = math.hypot(stats.clustered_mean(t, c).se, stats.clustered_mean(s, c).se)
    assert stats.paired_difference(s, t, c).se < 0.9 * unpaired


def test_equal_answers_to_few_items_do_not_prove_that_two_systems_are_equal():
    t, _, c = clustered_pairs(np.random.default_rng(0))
    d = stats.paired_difference(t, t, c)
    assert (d.value, d.se, stats.p_value(d)) == (0, 0, 1.0)
    assert d.high == -d.low == pytest.approx(1 - 0.025 ** (1 / 120))  # none of 120 clusters: up to 3.0 %
    few = stats.paired_difference([1, 1, 0], [1, 1, 0], [0, 1, 2])
    assert stats.non_inferiority(few, 0.05) == "inconclusive"
    worse = stats.paired_difference([0, 0], [1, 1], [0, 1])
    assert stats.p_value(worse) == 0.5
    assert worse.low == -1.0


def test_one_cluster_gives_an_infinite_interval_never_a_narrow_one():
    d = stats.paired_difference([1, 0, 1], [0, 0, 1], ["a", "a", "a"])
    assert d.low == -math.inf
    assert d.high == math.inf
    assert stats.non_inferiority(d, 0.05) == "inconclusive"
    assert stats.accuracy([1, 1], ["a", "a"]).low == 0.0


def test_mcnemar_equals_the_hand_worked_tables():
    # 10 discordant pairs, 2 against 8: exact 2*(1+10+45)/1024, mid-p takes off the middle term 45/1024.
    result = stats.mcnemar(8, 2)
    assert result.exact == pytest.approx(112 / 1024)
    assert result.mid == pytest.approx(112 / 1024 - 45 / 1024)
    assert stats.mcnemar(0, 0).exact == 1.0
    assert stats.mcnemar(5, 5).exact == 1.0
    assert stats.mcnemar(2, 8).mid == result.mid


def test_holm_equals_the_textbook_example():
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([]) == []


def test_bootstrap_is_seeded_and_reads_all_columns_under_the_same_draws():
    t, s, c = clustered_pairs(np.random.default_rng(0))
    a = bootstrap({"t": t, "s": s}, c, 1000, seed=3)
    b = bootstrap({"s": s, "t": t, "twice": 2 * s}, c, 1000, seed=3)
    assert np.array_equal(a.means["s"], b.means["s"])
    assert np.allclose(b.means["twice"], 2 * b.means["s"])
    assert not np.array_equal(a.means["s"], bootstrap({"s": s}, c, 1000, seed=4).means["s"])


def test_bootstrap_blocks_do_not_change_the_draws(monkeypatch):
    t, _, c = clustered_pairs(np.random.default_rng(0))
    whole = bootstrap({"t": t}, c, 1000, seed=1).means["t"]
    monkeypatch.setattr("evals.bootstrap.BLOCK", 5000)
    assert np.array_equal(whole, bootstrap({"t": t}, c, 1000, seed=1).means["t"])


def test_bootstrap_agrees_with_the_clustered_standard_error():
    t, s, c = clustered_pairs(np.random.default_rng(5))
    closed = stats.paired_difference(s, t, c)
    drawn = bootstrap({"s": s, "t": t}, c, 10_000, seed=0).difference("s", "t")
    assert drawn.low == pytest.approx(closed.low, abs=0.004)
    assert drawn.high == pytest.approx(closed.high, abs=0.004)


def test_retention_by_bootstrap_agrees_with_fieller():
    t, s, c = clustered_pairs(np.random.default_rng(2), clusters=500, size=1)
    drawn, oracle = bootstrap({"s": s, "t": t}, c, 10_000).ratio("s", "t"), stats.fieller(s, t, c)
    assert drawn.value == oracle.value
    assert drawn.low == pytest.approx(oracle.low, abs=0.01)
    assert drawn.high == pytest.approx(oracle.high, abs=0.01)


def test_retention_of_a_teacher_at_zero_is_undefined():
    c = list(range(50))
    assert bootstrap({"s": [0.5] * 50, "t": [0.0] * 50}, c, 1000).ratio("s", "t") is None
    assert stats.fieller([0.5] * 50, [0.0] * 50, c) is None


def test_chance_is_taken_off_both_sides():
    s, t = [1.0] * 40 + [0.0] * 60, [1.0] * 70 + [0.0] * 30
    draws = bootstrap({"s": s, "t": t}, list(range(100)), 2000)
    assert draws.ratio("s", "t").value == pytest.approx(0.4 / 0.7)
    assert draws.ratio("s", "t", offset=0.25).value == pytest.approx(15 / 45)
    assert draws.ratio("s", "t", offset=0.69) is None


def test_recovered_gap_is_undefined_without_a_gap():
    t, s, c = clustered_pairs(np.random.default_rng(0))
    zero = np.zeros_like(t)
    draws = bootstrap({"s": s, "t": t, "base": zero, "same": t}, c, 2000)
    assert draws.recovered_gap("s", "base", "t").value == pytest.approx(s.mean() / t.mean())
    assert draws.recovered_gap("s", "same", "t") is None


def test_non_inferiority_has_three_endings():
    def make(low, high):
        return stats.Estimate((low + high) / 2, low, high)

    assert stats.non_inferiority(make(-0.04, 0.01), 0.05) == "pass"
    assert stats.non_inferiority(make(-0.09, -0.06), 0.05) == "fail"
    assert stats.non_inferiority(make(-0.06, -0.01), 0.05) == "inconclusive"
    assert stats.superiority(make(0.01, 0.02)) == "pass"
    assert stats.superiority(make(-0.01, 0.02)) == "inconclusive"


def test_power_formulas_agree_with_each_other_and_with_the_table():
    # The published table: 20 % discordant, 5-point drop, 80 % power: 621 pairs.
    assert stats.detectable_before(621, 0.20) == pytest.approx(0.05, abs=5e-4)
    # One-sided 2.5 %, margin 5 points, truly equal: 7.849 * .2 / .0025.
    assert stats.items_needed(0.05, 0.20) == 628
    assert stats.items_needed(0.05, 0.20, -0.05) is None


def test_a_difference_of_the_detectable_size_is_found_four_times_in_five():
    pairs = [clustered_pairs(np.random.default_rng(seed), student=0.755) for seed in range(100)]
    size = stats.detectable(float(np.mean([stats.paired_difference(s, t, c).se for t, s, c in pairs])))

    def one(rng):
        t, s, c = clustered_pairs(rng, student=0.8 - size)
        return stats.paired_difference(s, t, c).high < 0

    assert coverage(600, one) == pytest.approx(0.8, abs=0.07)


def test_quantiles_never_leave_the_values_seen():
    assert stats.quantile([1, 1, 9], 0.95) <= 9


def test_fieller_equals_the_hand_worked_ratio():
    # a = 2, 4, 6 and b = 4, 5, 9: means 4 and 6; variances of the means 4/3 and 7/3, covariance 10/6; t(2) = 4.30265.
    # With k = 18.5128: (36 - 7/3 k) < 0, so unbounded at 95 %; at 50 % t(2) = 0.81650 and k = 2/3.
    assert stats.fieller([2, 4, 6], [4, 5, 9], [0, 1, 2]) is None
    ratio = stats.fieller([2, 4, 6], [4, 5, 9], [0, 1, 2], confidence=0.5)
    # (36 - 14/9) r^2 - 2 (24 - 10/9) r + (16 - 8/9) = 0
    a, b, c = 310 / 9, 206 / 9, 136 / 9
    root = math.sqrt(b * b - a * c)
    assert ratio.value == pytest.approx(2 / 3)
    assert (ratio.low, ratio.high) == pytest.approx(((b - root) / a, (b + root) / a))
