"""What counts as right, and which items are drawn."""

import pytest

from distill.errors import DataError
from evals.tasks import _base, classification, exact, extraction, multiple_choice, numeric, summarisation, translation


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


MC = multiple_choice.Config(path="x")


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"), (" (b)", ""), ("B.", "B"), ("**C**", "C"), ("D) because", "D"), ("B: Oslo", "B"),
        ("A dog has four legs", ""), ("I think so", ""), ("The answer is: C", "C"), ("Réponse : (B).", "B"),
        ("K", ""), ("", ""),
    ],
)  # fmt: skip
def test_a_letter_is_read_only_where_it_is_an_answer(text, letter):
    assert multiple_choice.normal(text, MC) == letter


def test_the_right_option_may_be_given_as_letter_number_or_text(tmp_path):
    import json

    rows = [
        {"id": str(n), "prompt": "?", "options": ["Bergen", "Oslo"], "answer": a}
        for n, a in enumerate(["B", 1, "Oslo", "b"])
    ]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    items = multiple_choice.examples(MC, tmp_path / "x.jsonl")
    assert [i.gold for i in items] == ["B"] * 4
    request = multiple_choice.prompt(items[0], MC)
    assert "A. Bergen\nB. Oslo" in request.messages[-1].content
    assert request.choices == ("A", "B")
    assert multiple_choice.score(items[0], " oslo.", MC) == 1.0
    assert multiple_choice.score(items[0], "Bergen", MC) == 0.0
    rows[0]["answer"] = "Paris"
    (tmp_path / "x.jsonl").write_text(json.dumps(rows[0]) + "\n")
    with pytest.raises(DataError, match="Paris"):
        multiple_choice.examples(MC, tmp_path / "x.jsonl")


@pytest.mark.parametrize(
    ("text", "decimal", "value"),
    [
        ("= 1,234.5 EUR", "point", 1234.5), ("1.234,5", "point", 1234.5), ("1,234", "point", 1234.0),
        ("1,234", "comma", 1.234),
        ("1.234", "comma", 1234.0), ("1.234", "point", 1.234), ("1,5", "point", 1.5), ("0,125", "point", 0.125),
        ("1.234.567", "point", 1234567.0), ("1,234,567.89", "comma", 1234567.89), ("12 345", "point", 345.0),
        ("12\u202f345", "point", 12345.0), ("-7.", "point", -7.0), ("\u22123", "point", -3.0), ("2e3", "point", 2000.0),
        ("from 3 to 4", "point", 4.0), ("none", "point", None), ("1.2.3", "point", None), ("1e999", "point", None),
        (",", "point", None), ("9" * 500, "point", None),
    ],
)  # fmt: skip
def test_numbers_are_read_as_europeans_and_others_write_them(text, decimal, value):
    assert numeric.last_number(text, numeric.Config(path="x", decimal=decimal)) == value


def test_extraction_pays_for_invented_fields_and_ignores_order_and_fences():
    config = extraction.Config(path="x")
    gold = item({"number": 7, "items": ["a", "b"], "total": {"currency": "EUR"}})
    assert (
        extraction.score(
            gold, 'Here: ```json\n{"items": ["B", "a"], "total": {"currency": "eur"}, "number": "7"}\n```', config
        )
        == 1.0
    )
    assert extraction.score(gold, '{"number": 7}', config) == pytest.approx(2 * 1 / (4 + 1))
    assert extraction.score(gold, '{"number": 7, "x": 1, "y": 2, "z": 3}', config) == pytest.approx(2 * 1 / (4 + 4))
    assert extraction.score(gold, "[7]", config) == 0.0
    assert extraction.score(gold, '{"a":' * 5000, config) == 0.0
    assert extraction.normal('{"b": 1, "a": 2}', config) == extraction.normal('{"a": 2.0, "b": "1"}', config)


TEXTS = [
    "Der Hund läuft schnell.",
    "The dog runs fast.",
    "Les chiens courent vite, très vite !",
    "a",
    "",
    "Ça va ?",
    "ab ab ab ab",
    "日本語 の 文",
]


def test_chrf_equals_sacrebleu():
    chrf = pytest.importorskip("sacrebleu.metrics").CHRF()
    for text in TEXTS:
        for reference in TEXTS:
            if reference:
                expected = chrf.sentence_score(text, [reference]).score / 100
                assert translation.chrf(text, reference) == pytest.approx(expected, abs=1e-9), (text, reference)


def test_rouge_equals_the_reference_implementation_on_plain_english():
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"])
    english = ["the cat sat on the mat", "a cat is on the mat today", "dogs", "the the the cat"]
    for text in english:
        for reference in english:
            expected = scorer.score(reference, text)["rougeL"].fmeasure
            config = summarisation.Config(path="x")
            assert summarisation.score(item(reference), text, config) == pytest.approx(expected)
    assert summarisation.score(item("Öl läuft über"), "öl läuft ÜBER!", summarisation.Config(path="x")) == 1.0
