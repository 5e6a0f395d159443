"""BLEU and chrF2 of a set equal sacrebleu's, and their intervals cover what a larger set gives."""

import random

import numpy as np
import pytest

from evals import corpus
from evals.analysis import Arm, Question, analyse
from evals.samples import Sample

WORDS = "le chat noir dort sur la vieille table, près du mur blanc et mange un grand poisson (frais)".split()  # noqa: SIM905


def sentence(rng):
    return " ".join(rng.choices(WORDS, k=rng.randint(3, 14)))


def broken(rng, text, wrong):
    return " ".join(rng.choice(WORDS) if rng.random() < wrong else word for word in text.split())


def rows(count, wrong, seed=0, cluster=2):
    rng = random.Random(seed)
    found = []
    for n in range(count):
        gold = sentence(rng)
        found.append(Sample(str(n), "t", f"d{n // cluster}", "fr", gold, "", broken(rng, gold, wrong), "", 0.0))
    return found


@pytest.mark.parametrize("wrong", [0.0, 0.2, 0.6, 1.0])
def test_scores_of_a_set_equal_sacrebleu_s(wrong):
    metrics = pytest.importorskip("sacrebleu.metrics")
    mine = [*rows(40, wrong), Sample("x", "t", "x", "fr", "un chat", "", "", "", 0.0)]
    texts, golds = [s.text for s in mine], [[s.gold for s in mine]]
    found = corpus.scores({"a": mine, "b": mine}, ["t"], "a", "b", 1000, 0)[0]
    bleu, chrf = metrics.BLEU().corpus_score(texts, golds).score, metrics.CHRF().corpus_score(texts, golds).score
    assert found["arms"]["a"]["bleu"]["value"] == pytest.approx(bleu, abs=1e-6)
    assert found["arms"]["a"]["chrf"]["value"] == pytest.approx(chrf, abs=1e-6)
    assert found["difference"]["bleu"] == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_a_set_without_a_right_word_scores_nothing():
    mine = [Sample(str(n), "t", str(n), "fr", "un chat", "", text, "", 0.0) for n, text in enumerate(("xyz", "", "q"))]
    found = corpus.scores({"a": mine, "b": mine}, ["t"], "a", "b", 1000, 0)[0]
    assert found["arms"]["a"]["bleu"]["value"] == 0.0


def test_the_intervals_of_both_cover():
    truth = rows(6000, 0.3, seed=99)
    whole = {
        "bleu": corpus.bleu(np.sum([corpus.bleu_counts(s.text.split(), s.gold.split()) for s in truth], 0)[None])[0],
        "chrf": corpus.chrf(np.sum([corpus.chrf_counts(s.text, s.gold) for s in truth], 0)[None])[0],
    }
    counts = {
        "bleu": np.array([corpus.bleu_counts(s.text.split(), s.gold.split()) for s in truth], float),
        "chrf": np.array([corpus.chrf_counts(s.text, s.gold) for s in truth], float),
    }
    rng, inside = np.random.default_rng(0), {"bleu": 0, "chrf": 0}
    trials, size = 1000, 80
    weights = rng.multinomial(size, np.full(size, 1 / size), size=400)
    for _ in range(trials):
        drawn = rng.integers(0, len(truth), size)
        for name, score in (("bleu", corpus.bleu), ("chrf", corpus.chrf)):
            part = counts[name][drawn]
            interval = corpus.percentile(score(part.sum(0)[None])[0], score(weights @ part), size)
            inside[name] += interval.low <= whole[name] <= interval.high
    assert inside["chrf"] / trials == pytest.approx(0.95, abs=0.02)
    assert inside["bleu"] / trials == pytest.approx(0.95, abs=0.02)


def test_the_report_has_them_for_translations_alone():
    arms = [Arm("t", "t", rows(30, 0.1)), Arm("s", "s", rows(30, 0.1))]
    assert analyse(arms, Question("s", "t", draws=1000))["corpus"] == []
    report = analyse(arms, Question("s", "t", draws=1000, translations=("t",)))
    assert report["corpus"][0]["arms"]["s"]["chrf"]["value"] > 50
