"""What counts as right, and which items are drawn."""

import pytest

from distill.errors import DataError
from evals.tasks import _base, classification, exact


def item(gold, **fields):
    return _base.Item("1", "1", "", gold, fields)


LABELS = classification.Config(path="x", choices=("mail", "games", "e-mail list", "no"))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("games", "games"),
        (" **Games**.", "games"),
        ("GAMES - it is a chess program", "games"),
        ("games\nbecause", "games"),
        ("e-mail list", "e-mail list"),
        ("mailing", ""),
        ("gamesroom", ""),
        ("it is games", ""),
        ("not games", ""),
        ("", ""),
        ("none", ""),
    ],
)
def test_an_answer_names_a_label_only_as_its_first_words(text, named):
    assert classification.normal(text, LABELS) == named


def test_an_illegal_gold_of_nothing_is_never_right():
    assert classification.score(item("games"), "", LABELS) == 0.0
    assert classification.score(item("games"), "mail", LABELS) == 0.0
    assert classification.score(item("GAMES"), "games", LABELS) == 1.0


def test_macro_f1_equals_the_hand_worked_table():
    # a: 2 hits, 1 missed, 0 false -> 0.8; b: 1 hit, 0 missed, 0 false -> 1; illegal answers harm only their gold.
    assert classification.macro_f1(["a", "a", "a", "b"], ["a", "a", "", "b"]) == pytest.approx(0.9)
    assert classification.macro_f1(["a", "b"], ["b", "a"]) == 0.0
    assert classification.confusion(["a", "a", "b"], ["a", "", "a"]) == {"a": {"a": 1, "": 1}, "b": {"a": 1}}


def test_macro_f1_equals_scikit_learn_on_legal_answers():
    import random

    from sklearn.metrics import f1_score

    rng = random.Random(0)
    gold, named = rng.choices("abcd", k=200), rng.choices("abcd", k=200)
    assert classification.macro_f1(gold, named) == pytest.approx(f1_score(gold, named, average="macro"))


def test_exact_takes_any_of_several_golds():
    config = exact.Config(path="x")
    assert exact.score(item(["Oslo", "Kristiania"]), "  KRISTIANIA. ", config) == 1.0
    assert exact.score(item("Oslo"), "Oslo in Norway", config) == 0.0


def parallel(clusters=40, languages=("en", "fr", "de")):
    return [
        _base.Item(f"{c}:{lang}", str(c), lang, "x", {})
        for c in range(clusters)
        for lang in languages
        if not (lang == "de" and c % 4 == 0)
    ]


def test_languages_stay_parallel():
    config = exact.Config(path="x", languages=("en", "de"))
    kept = _base.select(parallel(), config, 0)
    assert {i.lang for i in kept} == {"en", "de"}
    assert {i.cluster for i in kept if i.lang == "en"} == {i.cluster for i in kept if i.lang == "de"}
    with pytest.raises(DataError, match="pt"):
        _base.select(parallel(), exact.Config(path="x", languages=("en", "pt")), 0)


def test_a_limit_draws_whole_clusters_with_the_seed():
    config = exact.Config(path="x", languages=("en", "fr"), limit=21)
    kept = _base.select(parallel(), config, 7)
    assert len(kept) == 20
    assert len({i.cluster for i in kept}) == 10
    assert kept == _base.select(parallel(), config, 7)
    assert kept != _base.select(parallel(), config, 8)
    with pytest.raises(DataError, match="smaller than every cluster"):
        _base.select(parallel(), exact.Config(path="x", languages=("en", "fr"), limit=1), 0)
