"""English and French say the same, each in its own words and its own way of writing numbers."""

import itertools
import re
import string
from importlib import resources

import pytest

from evals import arms, energy, planned, split, tornado
from evals.asking import machine_price
from evals.report.language import FIXED, LANGUAGES, NARROW, language
from evals.report.render import html
from evals.verdict import cascade_sentence, said
from tests.unit.evals.everything import everything
from tests.unit.evals.page import Page
from tests.unit.evals.synthetic import Machine, made

EN, FR = language("en"), language("fr")
# Proper names, units and abbreviations that every language writes alike.
NEUTRAL = {"BLEU", "chrF2", "utf-8", "n"}


def fields(sentence):
    return {name for _, name, _, _ in string.Formatter().parse(sentence) if name is not None}


def test_both_languages_have_the_same_sentences_with_the_same_placeholders():
    assert set(EN.sentences) == set(FR.sentences)
    for key, sentence in EN.sentences.items():
        assert fields(sentence) == fields(FR.sentences[key]), key


def test_no_sentence_is_left_in_english():
    same = {key for key, sentence in EN.sentences.items() if sentence == FR.sentences[key]}
    alike = {"common.interval", "head.p", "head.p_holm", "head.source", "slices.rows", "systems.f1", "went.place"}
    assert same <= alike | {"metric.score", "verdict.margin", "head.task", "money.shock_case"}


def test_the_templates_hold_no_words_of_their_own():
    folder = resources.files("evals.report")
    files = [folder / "report.html.j2", *(folder / "sections").iterdir()]
    assert len(files) > 15
    for file in files:
        text = re.sub(r"\{%.*?%\}|\{\{.*?\}\}", " ", file.read_text("utf-8"))
        shown = re.sub(r"<[^>]*>", " ", text)
        named = re.findall(r'(?:aria-label|title|alt)="([^"]*)"', text)
        words = set(re.findall(r"[^\W\d_][\w-]*", " ".join([shown, *named])))
        assert words <= NEUTRAL, file.name


def test_no_english_of_the_catalogue_is_seen_on_the_french_page():
    report = everything()
    french = shingles(" ".join(Page(html(report, "fr")).seen))
    catalogue = set().union(*(shingles(re.sub(r"\{\w+\}", "#", sentence)) for sentence in EN.sentences.values()))
    assert not catalogue & french
    # The same look at the English page finds plenty.
    assert len(catalogue & shingles(" ".join(Page(html(report, "en")).seen))) > 200


def shingles(text):
    """Every two words that stand beside each other, without one-letter words."""
    words = [word.lower() for word in re.findall(r"[^\W\d_]{2,}|[^\w\s]|\d+", text)]
    return {pair for pair in itertools.pairwise(words) if all(word.isalpha() for word in pair)}


@pytest.mark.parametrize(
    ("write", "value", "english", "french"),
    [
        ("percent", 0.8125, "81.2 %", "81,2 %"),
        ("points", -0.0417, "−4.2", "−4,2"),
        ("points", 0.013, "+1.3", "+1,3"),
        ("points", None, "unbounded", "sans borne"),
        ("euros", 1234.5, "1,234.50 EUR", "1 234,50 EUR"),
        ("euros", 0.001734, "0.00173 EUR", "0,00173 EUR"),
        ("euros", 0, "0 EUR", "0 EUR"),
        ("number", 4844679, "4,844,679", "4 844 679"),
        ("plain", 0.00001, "0.00001", "0,00001"),
        ("plain", 1000, "1,000", "1 000"),
        ("seconds", 0.0613, "61.3 ms", "61,3 ms"),
        ("seconds", 4500, "75 min", "75 min"),
        ("limit", 0.8, "0.8 s", "0,8 s"),
        ("times", 4.36, "4.4×", "4,4 ×"),
        ("p_value", 0.00001, "< 0.0001", "< 0,0001"),
        ("grams", 1234.5, "1.23 kg", "1,23 kg"),
        ("tick", 0.075, "7.5 %", "7,5 %"),
    ],
)
def test_numbers_are_written_the_way_of_the_language(write, value, english, french):
    plain = lambda text: text.replace(FIXED, " ").replace(NARROW, " ")  # noqa: E731
    assert plain(getattr(EN, write)(value)) == english
    assert plain(getattr(FR, write)(value)) == french


def test_no_french_number_can_be_broken_over_a_line():
    for text in (FR.percent(0.5), FR.euros(1234.5), FR.number(12345), FR.seconds(3.0), FR.times(2.0)):
        assert " " not in text
    assert FR.percent(0.5).endswith(NARROW + "%")
    assert FR.euros(2.0).endswith(FIXED + "EUR")


def test_french_punctuation_stands_off_and_articles_are_drawn_together():
    for key, sentence in FR.sentences.items():
        assert not re.search(r" [:;!?%»]|« ", sentence), key
    assert FR.say("headline.pass", C="L'élève", c="", r="le professeur") == "L'élève peut remplacer le professeur."
    assert FR.say("money.against", label="le professeur") == "Par rapport au professeur"
    assert FR.say("money.against", label="mistral-small") == "Par rapport à mistral-small"


def test_the_verdict_is_said_in_both_languages_with_the_same_numbers():
    for changes in ({}, {"priced": False}, {"accuracies": {"teacher": 0.5, "student": 0.97}},
                    {"accuracies": {"student": 0.2}}, {"accuracies": {"baseline": 0.82}}):  # fmt: skip
        verdict = made(**changes)["verdict"]
        french = verdict["fr"]
        assert len(french["parts"]) == len(verdict["parts"])
        assert french["sentence"] == " ".join(french["parts"])
        assert digits(french["sentence"]) == digits(verdict["sentence"])
        assert french["labels"]["teacher"] == "le professeur"


def digits(text):
    """The digits of each number, whatever separates them."""
    joined = re.sub(r"(?<=\d)[.,\u202f](?=\d)", "", text)
    return re.findall(r"\d+", joined)


def test_what_is_said_is_a_pure_function_of_report_and_language():
    report = made()
    for code in LANGUAGES:
        again = said(report, report["verdict"], code)
        stored = report["verdict"] if code == "en" else report["verdict"][code]
        assert again == {key: stored[key] for key in again}


def test_the_cascade_s_sentence_is_the_report_s_own_in_english():
    report = made()
    best, margin = report["cascade"]["best"], report["margin"]
    assert cascade_sentence(best, margin) == report["cascade"]["sentence"]
    assert cascade_sentence(None, margin, "fr") == "Avec ces questions, aucun seuil ne garde la perte sous 5 points."
    assert digits(cascade_sentence(best, margin, "fr")) == digits(cascade_sentence(best, margin))


def test_what_the_producers_write_is_known_in_french():
    report = made()
    written = [row["case"] for row in report["economics"]["shocks"]]
    written += [bar["case"] for bar in report["economics"]["tornado"]["bars"]]
    written += ["utilisation +50 %, at most 100 %", machine_price(Machine())[: -len(f"; {Machine.source}")]]
    written += [machine_price(type("Unpriced", (Machine,), {"eur_per_hour": None})())]
    written += [report["economics"]["machine"], split.fitted(split.NOTHING)]
    written += re.findall(r'\("([a-z\' ,A-Z]+)", (?:plan|teacher|work)', source(planned))
    written += re.findall(r'Figures\("unknown", "", "([^"]+)"', source(energy))
    written += re.findall(r'return "(it [^"]+)"', source(energy))
    assert len(written) > 25
    assert [text for text in written if FR.phrase(text) is None] == []
    assert FR.phrase("nobody has translated this") is None
    assert tornado.MOVES


def source(module):
    import inspect

    return inspect.getsource(module)


def test_the_systems_of_a_run_are_called_as_the_arms_are():
    for name, label in arms.LABELS.items():
        assert EN.sentences[f"arm.{name}"] == label
        assert FR.label({"name": name, "label": label}) == FR.sentences[f"arm.{name}"]
    assert FR.label({"name": "teacher", "label": "mistral-large"}) == "mistral-large"


def test_english_that_nobody_translated_is_marked_as_english():
    report = everything()
    report["energy"]["arms"][0]["note"] = "PUE 1.2; measured by a friend"
    page = html(report, "fr")
    assert '<span lang="en">measured by a friend</span>' in page
    assert '<span lang="en">' not in html(report, "en")
