"""Every interval that a report prints covers 95 % +- 1 % in simulation, and every test holds its level.

Trials are columns of one bootstrap, so that thousands cost seconds; the report's own functions are called. Enough
trials that the simulation's own error (0.2 points) fits into the point allowed.
"""

import math

import numpy as np
import pytest
from scipy.special import ndtr

from evals import stats
from evals.bootstrap import bootstrap
from evals.fidelity import agreement

TRIALS, CLUSTERS, SIZE = 10_000, 80, 4
TRUTH = {"teacher": 0.8, "student": 0.72, "base": 0.4}


def pairs_of(trials=TRIALS, clusters=CLUSTERS, size=SIZE, seed=0, rho=0.5, truth=TRUTH):
    """0/1 scores of each system, [trials, items], with exact means; a package is hard or easy for all of them."""
    rng = np.random.default_rng(seed)
    shared = rng.standard_normal((trials, clusters, 1), dtype=np.float32)
    common = rng.standard_normal((trials, clusters, size), dtype=np.float32)
    scores = {}
    for name, mean in truth.items():
        own = rng.standard_normal((trials, clusters, size), dtype=np.float32)
        latent = math.sqrt(rho / 2) * (shared + common) + math.sqrt(1 - rho) * own
        scores[name] = (latent < stats.NormalDist().inv_cdf(mean)).reshape(trials, -1).astype(float)
    return scores, np.repeat(np.arange(clusters), size)


@pytest.fixture(scope="module")
def scores():
    return pairs_of()


@pytest.fixture(scope="module")
def drawn(scores):
    """One bootstrap whose columns are the trials: the same draws for each, as a report's own seed gives them."""
    systems, clusters = scores
    rng = np.random.default_rng(1)
    columns = {f"{name}{i}": row for name, rows in systems.items() for i, row in enumerate(rows[:6000])}
    # A request costs more where the text is long, and texts of a package are alike.
    length = rng.gamma(4, 0.25, size=(6000, CLUSTERS, 1)) * rng.gamma(4, 0.25, size=(6000, CLUSTERS, SIZE))
    columns |= {f"cost{i}": row for i, row in enumerate(length.reshape(6000, -1))}
    return bootstrap(columns, clusters, 1000, seed=0)


def covered(intervals, truth):
    """Share of the intervals that hold the truth; None among them is a failure of the simulation."""
    found = list(intervals)
    assert all(interval is not None for interval in found)
    return float(np.mean([interval.low <= truth <= interval.high for interval in found]))


def test_accuracy_covers_and_an_interval_that_forgets_the_clusters_does_not(scores):
    systems, clusters = scores
    rows = systems["student"]
    assert covered((stats.accuracy(row, clusters) for row in rows), 0.72) == pytest.approx(0.95, abs=0.01)
    naive = covered((stats.wilson(row.sum(), len(row)) for row in rows), 0.72)
    assert naive < 0.92  # negative control


def test_accuracy_covers_at_the_edge_and_in_a_small_sample():
    rows, clusters = pairs_of(4000, clusters=30, size=2, truth={"good": 0.93})
    assert covered((stats.accuracy(row, clusters) for row in rows["good"]), 0.93) >= 0.94


def test_wilson_covers_averaged_over_shares():
    shares = np.linspace(0.02, 0.98, 193)
    n = 60
    intervals = [stats.wilson(k, n) for k in range(n + 1)]
    inside = 0.0
    for p in shares:
        chance = [math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]
        inside += sum(c for c, i in zip(chance, intervals, strict=True) if i.low <= p <= i.high)
    assert inside / len(shares) == pytest.approx(0.95, abs=0.01)


def test_paired_difference_covers_and_its_test_holds_its_level(scores):
    systems, clusters = scores
    found = [
        stats.paired_difference(s, t, clusters) for s, t in zip(systems["student"], systems["teacher"], strict=True)
    ]
    assert covered(found, -0.08) == pytest.approx(0.95, abs=0.01)
    equal, clusters = pairs_of(truth={"a": 0.7, "b": 0.7}, seed=2)
    p_values = [
        stats.p_value(stats.paired_difference(a, b, clusters)) for a, b in zip(equal["a"], equal["b"], strict=True)
    ]
    assert np.mean(np.array(p_values) < 0.05) == pytest.approx(0.05, abs=0.01)


def test_a_student_exactly_at_the_margin_passes_once_in_forty():
    rows, clusters = pairs_of(truth={"t": 0.8, "s": 0.75}, seed=3)
    passed = [
        stats.non_inferiority(stats.paired_difference(s, t, clusters), 0.05) == "pass"
        for s, t in zip(rows["s"], rows["t"], strict=True)
    ]
    assert np.mean(passed) == pytest.approx(0.025, abs=0.006)


def test_agreement_is_an_interval_over_clusters(scores):
    systems, clusters = scores
    same = (systems["student"] == systems["teacher"])[:4000]
    truth = float((systems["student"] == systems["teacher"]).mean())
    rate = np.mean([(a := agreement(row, clusters))["low"] <= truth <= a["high"] for row in same])
    assert rate == pytest.approx(0.95, abs=0.01)


def test_fieller_covers(scores):
    systems, clusters = scores
    found = (
        stats.fieller(s, t, clusters) for s, t in zip(systems["student"][:5000], systems["teacher"][:5000], strict=True)
    )
    assert covered(found, 0.9) == pytest.approx(0.95, abs=0.01)


@pytest.mark.parametrize(
    ("what", "truth"),
    [
        (lambda d, i: d.mean(f"cost{i}"), 1.0),
        (lambda d, i: d.difference(f"student{i}", f"teacher{i}"), -0.08),
        (lambda d, i: d.ratio(f"student{i}", f"teacher{i}"), 0.9),
        (lambda d, i: d.ratio(f"student{i}", f"teacher{i}", 0.25), 0.47 / 0.55),
        (lambda d, i: d.ratio(f"cost{i}", f"student{i}"), 1 / 0.72),
        (lambda d, i: d.recovered_gap(f"student{i}", f"base{i}", f"teacher{i}"), 0.8),
    ],
    ids=["cost", "difference", "retention", "retention above chance", "cost per correct", "recovered gap"],
)
def test_what_the_bootstrap_says_covers(drawn, what, truth):
    assert covered((what(drawn, i) for i in range(6000)), truth) == pytest.approx(0.95, abs=0.01)


def test_a_bootstrap_of_few_clusters_covers_too_where_plain_percentiles_do_not():
    rows, clusters = pairs_of(6000, clusters=12, size=4, truth={"t": 0.7, "s": 0.6}, seed=4)
    columns = {f"{name}{i}": row for name, found in rows.items() for i, row in enumerate(found)}
    draws = bootstrap(columns, clusters, 1000, seed=0)
    found = [draws.difference(f"s{i}", f"t{i}") for i in range(6000)]
    assert covered(found, -0.1) == pytest.approx(0.95, abs=0.015)
    plain = [np.quantile(draws.means[f"s{i}"] - draws.means[f"t{i}"], [0.025, 0.975]) for i in range(6000)]
    assert np.mean([low <= -0.1 <= high for low, high in plain]) < 0.935  # negative control


def level(test, n=40):
    """Exact chance, over all tables of ``n`` discordant pairs, that a test of a fair coin says otherwise."""
    return sum(math.comb(n, k) / 2**n for k in range(n + 1) if test(k, n - k) < 0.05)


def test_mcnemar_holds_its_level_averaged_over_tables():
    sizes = range(10, 120)
    exact = [level(lambda a, b: stats.mcnemar(a, b).exact, n) for n in sizes]
    mid = [level(lambda a, b: stats.mcnemar(a, b).mid, n) for n in sizes]
    assert max(exact) <= 0.05
    assert np.mean(mid) == pytest.approx(0.05, abs=0.01)
    assert np.mean(exact) < np.mean(mid)


def test_holm_holds_the_family_error_of_slices_that_share_their_items():
    rng = np.random.default_rng(0)
    shared = rng.standard_normal((20_000, 1))
    scores = math.sqrt(0.3) * shared + math.sqrt(0.7) * rng.standard_normal((20_000, 8))
    p = 2 * ndtr(-np.abs(scores))
    assert np.mean([min(stats.holm(row)) < 0.05 for row in p.tolist()]) <= 0.055
    assert np.mean(p.min(axis=1) < 0.05) > 0.2  # negative control


def test_as_many_items_as_are_said_to_be_needed_show_an_equal_student_four_times_in_five():
    needed = stats.items_needed(0.05, 0.2)
    assert passing(needed, 0.2, 0.0) == pytest.approx(0.8, abs=0.02)
    assert passing(stats.items_needed(0.05, 0.3, -0.01), 0.3, -0.01) == pytest.approx(0.8, abs=0.02)
    assert passing(needed // 2, 0.2, 0.0) < 0.6  # negative control


def test_the_difference_said_before_the_run_is_found_four_times_in_five():
    for n, discordant in ((208, 0.2), (1000, 0.1)):
        size = stats.detectable_before(n, discordant)
        found = [d.high < 0 for d in differences(n, discordant, -size)]
        assert np.mean(found) == pytest.approx(0.8, abs=0.025)


def differences(n, discordant, difference, trials=4000):
    """Paired differences of ``n`` items of which a share ``discordant`` is answered right by one system alone."""
    rng = np.random.default_rng(n)
    lost = (discordant - difference) / 2
    for _ in range(trials):
        drawn = rng.choice([-1.0, 0.0, 1.0], size=n, p=[lost, 1 - discordant, discordant - lost])
        yield stats.paired_difference(drawn, np.zeros(n), range(n))


def passing(n, discordant, difference):
    """Share of trials that show non-inferiority by a margin of 5 points."""
    found = [stats.non_inferiority(d, 0.05) == "pass" for d in differences(n, discordant, difference)]
    return float(np.mean(found))
