"""Each filter rejects what it names, and leaves alone what only looks like it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from distill import languages, refusals
from distill.generate.filters import (
    contamination,
    duplicates,
    hidden_unicode,
    language,
    length,
    pii,
    refusal,
    repetition,
    truncated,
)
from tests.unit.generate.rows import row

EU = [
    *("bg", "cs", "da", "de", "el", "en", "es", "et", "fi", "fr", "ga", "hr"),
    *("hu", "it", "lt", "lv", "mt", "nl", "pl", "pt", "ro", "sk", "sl", "sv"),
]

REFUSALS = {
    "bg": "Съжалявам, но не мога да помогна с това искане.",
    "cs": "Omlouvám se, ale nemohu vám s tímto požadavkem pomoci.",
    "da": "Beklager, men jeg kan ikke hjælpe dig med det.",
    "de": "Es tut mir leid, aber ich kann Ihnen bei dieser Anfrage nicht helfen.",
    "el": "Λυπάμαι, αλλά δεν μπορώ να σας βοηθήσω με αυτό.",
    "en": "I’m sorry, but I can’t assist with that request.",
    "es": "Lo siento, pero no puedo ayudarte con eso.",
    "et": "Vabandust, aga ma ei saa sind selle palvega aidata.",
    "fi": "Olen pahoillani, mutta en voi auttaa tässä asiassa.",
    "fr": "Je suis désolé, mais je ne peux pas répondre à cette demande.",
    "ga": "Tá brón orm, ach ní féidir liom cabhrú leis an iarratas seo.",
    "hr": "Žao mi je, ali ne mogu pomoći s tim zahtjevom.",
    "hu": "Sajnálom, de nem tudok segíteni ebben a kérésben.",
    "it": "Mi dispiace, ma non posso aiutarti con questa richiesta.",
    "lt": "Atsiprašau, bet negaliu jums padėti šiuo klausimu.",
    "lv": "Atvainojiet, bet es nevaru palīdzēt ar šo pieprasījumu.",
    "mt": "Jiddispjaċini, imma ma nistax ngħinek b'din it-talba.",
    "nl": "Het spijt me, maar ik kan je niet helpen met dit verzoek.",
    "pl": "Przepraszam, ale nie mogę pomóc w tej sprawie.",
    "pt": "Lamento, mas não posso ajudar com esse pedido.",
    "ro": "Îmi pare rău, dar nu pot să te ajut cu această cerere.",
    "sk": "Ospravedlňujem sa, ale nemôžem vám pomôcť s touto požiadavkou.",
    "sl": "Žal mi je, vendar ne morem pomagati pri tej zahtevi.",
    "sv": "Jag är ledsen, men jag kan inte hjälpa till med det.",
}
ANSWERS = [
    "The customer cannot help with moving the goods before Monday; the carrier can.",
    "I can't wait to see the results: accuracy rose from 0.61 to 0.74.",
    "Le serveur ne peut pas répondre aux requêtes tant que la base est fermée.",
    "Der Motor kann nicht starten, weil die Batterie leer ist. Tauschen Sie sie aus.",
    "El cliente no puede pagar la factura antes del viernes.",
    "Il cliente non può rispondere prima di lunedì, ma la consegna è confermata.",
    "Jazykový model převádí text na čísla a předpovídá další slovo.",
    "Nie mogę się doczekać wakacji - napisał autor listu.",
    "mail",
    "",
    # A story in which somebody declines late is not a refusal: it does not open with one.
    "Anna read the letter twice. " * 8 + "In the end she wrote: I'm sorry, but I can't help with that.",
]


def reason(filters, answer: str, **settings) -> str:
    return filters.keep([row(answer)], filters.Config(**settings))[0]


@pytest.mark.parametrize("lang", EU)
def test_a_refusal_is_recognised_in_every_official_language(lang):
    assert refusal.keep([row(REFUSALS[lang])], refusal.Config()) == [lang]


def test_every_official_language_has_phrases():
    assert sorted(refusals.PHRASES) == EU == sorted(REFUSALS)


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_is_not_a_refusal(answer):
    assert reason(refusal, answer) == ""


def test_own_phrases_count():
    assert reason(refusal, "Computer says no.", phrases=("Computer says NO",)) == "own"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("", "too_short"),
        ("   \n", "too_short"),
        ("fine", ""),
        ("x" * 11, "too_long"),
    ],
)
def test_length_is_counted_on_the_stripped_answer(answer, expected):
    assert reason(length, answer, max_characters=10) == expected


def test_bounds_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match="below min_characters"):
        length.Config(min_characters=5, max_characters=4)


LONG = "The report shows that the cost of a thousand answers fell by half within a single year of steady work, "


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("mail", ""),
        ("Rue de la Paix 12", ""),
        (LONG + "and it may fall further.", ""),
        (LONG + "and it may fall furth", "mid_sentence"),
        (LONG + "and,", "mid_sentence"),
        ("Three things:", "mid_sentence"),
        ("- one\n- two\n- three things that matter more than all of the others together here now ok so be it yes", ""),
        ("```python\nprint(1)\n", "open_code_block"),
        ("```python\nprint(1)\n```", ""),
        ('{"a": [1, 2', "open_json"),
        ('{"a": [1, 2]}', ""),
        (LONG + "and so on.\n\nKind regards\nAnna Kowalska", ""),
        ("Σύμφωνα με την αναφορά " * 6 + "το κόστος θα μειωθεί;", ""),
    ],
)
def test_what_is_left_open_at_the_end_is_cut_off(answer, expected):
    assert reason(truncated, answer) == expected


def test_an_answer_that_met_the_token_limit_is_cut_off():
    assert truncated.keep([row("All good.", finish="length")], truncated.Config()) == ["token_limit"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("The cat sat. " * 12, "loop"),
        ("Fine so far. " + "no no " * 20, "loop"),
        ("a" * 60, "loop"),
        ("Step 1: open. Step 2: read. Step 3: close. Step 4: write down what you saw and go home.", ""),
        ("ha ha ha!", ""),
        ("----", ""),
        ("| a | b |\n| 1 | 2 |\n| 3 | 4 |\n| 5 | 6 |", ""),
        (" ".join(f"the same old words again {n % 3}" for n in range(40)) + " end", "repeated_words"),
        (" ".join(f"word{n} and word{n * 7 % 41}" for n in range(40)), ""),
    ],
)
def test_a_loop_is_not_an_answer(answer, expected):
    assert reason(repetition, answer) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("plain text, tabs\t and lines\n are seen", ""),
        ("Größe, naïveté, Ελληνικά, български, ċavetta — “quotes” … € 5\u00a0000", ""),
        ("family \U0001f468\u200d\U0001f469\u200d\U0001f467 and \u2764\ufe0f", ""),
        ("flag \U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f of Scotland", ""),
        ("soft\u00adhyphen is common in German text", ""),
        ("zero\u200bwidth", "blank"),
        ("\ufeffmark at the start", "blank"),
        ("right\u202eto left", "bidi"),
        ("a\u200db", "joiner"),
        ("hidden \U000e0069\U000e0067\U000e006e", "tag"),
        ("selector\U000e0101", "selector"),
        ("bell\x07", "control"),
        ("broken \ufffd decoding", "replacement"),
        ("private \ue000", "private_use"),
    ],
)
def test_characters_nobody_sees_are_found(answer, expected):
    assert reason(hidden_unicode, answer) == expected


def test_the_prompt_is_searched_only_when_asked():
    rows = [row("fine", prompt="a\u200bb, write to ana@firma.pl")]
    assert hidden_unicode.keep(rows, hidden_unicode.Config()) == [""]
    assert hidden_unicode.keep(rows, hidden_unicode.Config(prompts=True)) == ["blank"]
    assert pii.keep(rows, pii.Config()) == [""]
    assert pii.keep(rows, pii.Config(prompts=True)) == ["email"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Write to ana.kowalska+x@firma.com.pl today.", "email"),
        ("Write to info@example.com or a@mail.example.org.", ""),
        ("Price @ 5 EUR, user@localhost", ""),
        ("IBAN: DE89 3704 0044 0532 0130 00", "iban"),
        ("NL91ABNA0417164300 please", "iban"),
        ("FR14 2004 1010 0505 0001 3M02 606 ist das Konto", "iban"),
        ("DE89 3704 0044 0532 0130 02", ""),
        ("DE89 3704 0044 0532 01", ""),
        ("card 4111 1111 1111 1111, exp 12/30", "card"),
        ("card 4111 1111 1111 1112", ""),
        ("5555555555554444", "card"),
        ("the constant 3.141592653589793 and 0000000000000000", ""),
        ("Call +49 30 901820 or", "phone"),
        ("+33 6 12 34 56 78", "phone"),
        ("06 12 34 56 78", "phone"),
        ("0049 (0)30 1234567", "phone"),
        ("030/12345678", "phone"),
        ("on 01.02.2024 at 10:30", ""),
        ("2024-01-02 and 01/02/2024", ""),
        ("0.123456789 or 1,000,000,000 or 12345678901", ""),
        ("ISBN 978-3-16-148410-0, version 10.0.19045.3803", ""),
        ("10.05.2023 - 12.05.2023", ""),
    ],
)
def test_personal_data_is_found_and_other_numbers_are_not(answer, expected):
    assert reason(pii, answer) == expected


@pytest.mark.parametrize("kind", ["email", "iban", "card", "phone"])
def test_only_the_kinds_asked_for_are_looked_for(kind):
    text = "ana@firma.pl, NL91ABNA0417164300, 4111 1111 1111 1111, +33 6 12 34 56 78"
    assert reason(pii, text, find=(kind,)) == kind


TEXT = (
    "The committee met on Tuesday to discuss the new rules for small energy producers in the northern regions, "
    "and agreed that grants should be paid within thirty days of an approved application."
)


def test_the_first_of_equal_rows_stays_and_case_and_punctuation_do_not_matter():
    rows = [row(TEXT), row(TEXT.upper().replace(",", " ,")), row("Something else.")]
    assert duplicates.keep(rows, duplicates.Config()) == ["", "exact", ""]


def test_near_copies_are_found_and_different_texts_are_not():
    near = TEXT.replace("Tuesday", "Monday")
    other = (
        "A recipe for soup: chop onions, add water, and let it simmer for an hour before you serve it hot to guests."
    )
    rows = [row(TEXT), row(near), row(other)]
    assert duplicates.keep(rows, duplicates.Config(similarity=0.8)) == ["", "near", ""]
    assert duplicates.keep(rows, duplicates.Config(similarity=1)) == ["", "", ""]


def test_the_same_label_for_different_questions_is_no_duplicate():
    rows = [row("mail", prompt="An IMAP server"), row("mail", prompt="A newsreader")]
    assert duplicates.keep(rows, duplicates.Config()) == ["", ""]
    assert duplicates.keep(rows, duplicates.Config(of="answer")) == ["", "exact"]


def test_minhash_finds_what_comparing_every_pair_finds():
    random = np.random.default_rng(0)
    words = [f"w{n}" for n in range(400)]
    base = [" ".join(random.choice(words, 60)) for _ in range(30)]
    texts = []
    for text in base:
        parts = text.split()
        copy = list(parts)
        copy[int(random.integers(60))] = "changed"
        texts += [text, " ".join(copy)]
    pieces = [duplicates._pieces(f"A question?\n{text}") for text in texts]
    found = duplicates.keep([row(text) for text in texts], duplicates.Config(similarity=0.8))
    brute = [
        "near" if any(duplicates._jaccard(pieces[n], pieces[m]) >= 0.8 for m in range(n)) else ""
        for n in range(len(texts))
    ]
    assert found == brute
    assert brute.count("near") == 30


@pytest.fixture
def eval_file(tmp_path):
    path = tmp_path / "test.jsonl"
    items = [
        {"id": "i1", "text": TEXT, "label": "energy"},
        {"id": "i2", "text": "Which large river flows through Vienna?"},
    ]
    path.write_text("".join(json.dumps(item) + "\n" for item in items), "utf-8")
    return path


@pytest.mark.parametrize(
    ("prompt", "answer", "expected"),
    [
        ("Classify: " + TEXT.upper() + " Answer:", "energy", "eval_item"),
        ("Question", "He said: " + TEXT[20:130], "eval_item"),
        ("Q: which large river flows -- through Vienna", "Danube", "eval_item"),
        ("Which river flows through Budapest?", "Danube", ""),
        ("Write about energy", "energy", ""),
        ("The committee met on Tuesday.", "They agreed.", ""),
    ],
)
def test_an_eval_item_is_found_whole_changed_in_case_or_embedded(eval_file, prompt, answer, expected):
    config = contamination.Config(paths=(str(eval_file),))
    assert contamination.keep([row(answer, prompt=prompt)], config) == [expected]


def test_only_the_named_fields_are_compared(eval_file):
    config = contamination.Config(paths=(str(eval_file),), fields=("label",))
    assert contamination.keep([row("x", prompt=TEXT)], config) == [""]


@pytest.fixture(scope="module")
def descriptions():
    """Real package descriptions of 8 words or more, with their language."""
    path = Path(__file__).parents[3] / "configs/data/debian-sections/test.jsonl"
    items = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    rows = [row(f"{item['title']}. {item['text']}", lang=item["lang"]) for item in items]
    return [r for r in rows if len(languages.words_of(r["answer"])) >= 8]


def test_real_texts_keep_their_language_and_are_found_under_another(descriptions):
    assert len(descriptions) > 800
    wrongly = sum(bool(reason) for reason in language.keep(descriptions, language.Config()))
    assert wrongly / len(descriptions) < 0.01
    for claimed in ("en", "fr", "fi", "bg"):
        others = [{**r, "lang": claimed} for r in descriptions if r["lang"] != claimed]
        found = sum(bool(reason) for reason in language.keep(others, language.Config()))
        assert found / len(others) > 0.85


@pytest.mark.parametrize(
    ("answer", "lang", "expected"),
    [
        ("Il-kunsill iddeċieda li l-flus għandhom jitħallsu fi żmien tletin jum minn din id-data", "mt", ""),
        ("Il-kunsill iddeċieda li l-flus għandhom jitħallsu fi żmien tletin jum minn din id-data", "it", "is_mt"),
        ("Η επιτροπή αποφάσισε ότι τα χρήματα θα καταβληθούν μέσα σε τριάντα ημέρες", "en", "is_el"),
        ("Комисията реши парите да бъдат изплатени в срок от тридесет дни след решението", "ro", "is_bg"),
        ("Der Befehl lautet `the of and to in is that it for was on are` und er ist in der Datei", "de", ""),
        ("mail", "fr", ""),
        ("The committee has decided that it will pay for all of this", "", ""),
        ("The committee has decided that it will pay for all of this", "tlh", ""),
        ("The committee has decided that it will pay for all of this", "pt_BR", "is_en"),
    ],
)
def test_language_speaks_up_only_when_it_is_clear(answer, lang, expected):
    assert language.keep([row(answer, lang=lang)], language.Config()) == [expected]


def test_every_official_language_is_known_to_the_language_filter():
    assert sorted([*languages.SETS, *languages.SCRIPTS]) == EU
