"""Words counted by a plain rule, tokens per word by the tokenizer or by the records, and what a thousand words cost."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from evals import fertility
from evals.analysis import Arm, Question, analyse
from tests.unit.evals.synthetic import systems

PRICE = {"input": 2.0, "output": 10.0, "blended": 5.0}


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("  ... -- !", 0),
        ("one two", 2),
        ("l\u2019homme n'est pas", 3),
        ("'quoted' rock'n'roll", 2),
        ("week-end 3.5 a_b", 6),
        ("\u0939\u093f\u0928\u094d\u0926\u0940 \u092d\u093e\u0937\u093e", 2),  # vowel signs are a part of the word
        ("e\u0301te\u0301 fini", 2),
        ("\u03ba\u03b1\u03bb\u03b7\u03bc\u03ad\u03c1\u03b1 \u03ba\u03cc\u03c3\u03bc\u03b5", 2),
        ("\ud55c\uad6d\uc5b4 \ub744\uc5b4\uc4f0\uae30", 2),  # Korean has spaces
        ("\u8fd9\u662f\u4e00\u4e2a\u53e5\u5b50", None),
        ("\u3053\u308c\u306f\u6587\u3067\u3059", None),
        ("\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01", None),
        ("Alambic \u84b8\u998f is mostly English", 5),
    ],
)
def test_a_word_is_a_run_of_letters_marks_and_digits(text, count):
    assert fertility.words(text) == count


def test_what_all_items_begin_or_end_with_is_no_user_s_text():
    texts = [
        f"Name the section of this package: {name}\nAnswer with one word." for name in ("red cat", "red dog", "red")
    ]
    assert fertility.bare(texts) == ["red cat", "red dog", "red"]
    assert fertility.bare(["preface one", "prefix two"]) == ["preface one", "prefix two"]  # no word is cut in two
    assert fertility.bare(["alone"]) == ["alone"]
    assert fertility.bare(["same", "same"]) == ["same", "same"]


def test_the_slope_of_tokens_on_words_leaves_the_instruction_out():
    rng = random.Random(0)
    # Two tasks with instructions of 200 and 30 tokens; 1.7 tokens a word, give or take one.
    groups = [[(n, 1.7 * n + constant + rng.choice((-1, 0, 1))) for n in range(5, 45)] for constant in (200, 30)]
    assert fertility.slope(groups) == pytest.approx(1.7, abs=0.02)
    mixed = [[point for group in groups for point in group]]
    assert fertility.slope(mixed) is None  # one constant for both would be wrong, and is seen to be


@pytest.mark.parametrize(
    "group",
    [
        [(n, 2.0 * n) for n in range(5)],  # too few
        [(10, 20 + n) for n in range(20)],  # one length
        [(n, 100 - n) for n in range(20)],  # fewer tokens for more words
        [(n % 4, 100 + 37 * n % 50) for n in range(40)],  # no relation
        [],
    ],
)
def test_records_that_do_not_tell_give_no_tokens_per_word(group):
    assert fertility.slope([group]) is None


def items(lang, count, per_word, constant=50, task="t"):
    rng, found = random.Random(lang), []
    base = systems(clusters=1)["student"][0]
    for number in range(count):
        length = rng.randint(3, 40)
        text = " ".join(f"{lang}word{rng.randint(0, 99)}" for _ in range(length))
        tokens = round(per_word * length) + constant
        found.append(replace(base, id=f"{lang}{number}", task=task, lang=lang, prompt=text, prompt_tokens=tokens))
    return found


def test_a_language_that_takes_more_tokens_costs_more_a_word():
    rows = items("en", 40, 1.3) + items("el", 40, 2.6)
    arm = Arm("api", "api", rows)
    english = {row["lang"]: row for row in fertility.report([arm], {"api": rows}, {"api": PRICE}, "api")}["en"]
    greek = {row["lang"]: row for row in fertility.report([arm], {"api": rows}, {"api": PRICE}, "api")}["el"]
    assert english["words"] == sum(len(row.prompt.split()) for row in rows[:40])
    assert english["arms"]["api"]["tokens_per_word"] == pytest.approx(1.3, rel=0.03)
    assert greek["arms"]["api"]["tokens_per_word"] == pytest.approx(2.6, rel=0.03)
    for row in (english, greek):
        found = row["arms"]["api"]
        assert found["eur_per_1000_words"] == pytest.approx(1000 * found["tokens_per_word"] * 2.0 / 1e6)


def test_a_tokenizer_that_is_here_counts_exactly_and_without_the_instruction():
    rows = [replace(row, prompt=f"Translate: {row.prompt} .") for row in items("en", 5, 1.3)]
    arm = Arm("own", "own", rows, count=lambda text: 3 * len(text.split()))
    (row,) = fertility.report([arm], {"own": rows}, {"own": {**PRICE, "input": None}}, "own")
    assert row["arms"]["own"]["tokens_per_word"] == 3.0
    assert row["words"] == sum(len(r.prompt.split()) - 2 for r in rows)
    assert row["arms"]["own"]["eur_per_1000_words"] == pytest.approx(1000 * 3 * 5.0 / 1e6)  # only blended is known


def test_scripts_without_spaces_and_unknown_tokens_or_prices_stay_unknown():
    chinese = [replace(row, prompt="\u8fd9\u662f" * n) for n, row in enumerate(items("zh", 20, 1.0), start=1)]
    blind = [replace(row, prompt_tokens=None) for row in items("fr", 20, 1.5)]
    priced = items("it", 20, 1.5)
    rows = chinese + blind + priced
    nothing = {"input": None, "output": None, "blended": None}
    found = fertility.report([Arm("a", "a", rows)], {"a": rows}, {"a": nothing}, "a")
    by = {row["lang"]: row for row in found}
    assert (by["zh"]["words"], by["zh"]["characters"]) == (None, sum(2 * n for n in range(1, 21)))
    assert by["zh"]["arms"]["a"] == by["fr"]["arms"]["a"] == {"tokens_per_word": None, "eur_per_1000_words": None}
    assert by["it"]["arms"]["a"]["tokens_per_word"] == pytest.approx(1.5, rel=0.05)
    assert by["it"]["arms"]["a"]["eur_per_1000_words"] is None


def test_the_report_has_a_row_for_each_language():
    arms = systems()
    made = [Arm(n, n, arms[n], costs=(1.0,) * 240) for n in ("teacher", "student")]
    found = analyse(made, Question("student", "teacher", draws=1000))["words"]
    assert [row["lang"] for row in found] == ["de", "en", "fr", "it"]
    assert all(set(row["arms"]) == {"teacher", "student"} and row["words"] > 0 for row in found)
