"""`distill quote`: the worked examples, the same numbers in JSON, HTML and PDF, both languages, and `do not distil`."""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import string

import pytest

from distill import catalog, cli, costs
from distill.commands import _deal, _quote_page
from distill.commands._deal import Deal

QUOTE = ["--client", "ACME", "--days", "20", "--day-rate", "600"]
BIG = ["--volume", "20000000", "--replaces", "claude-sonnet-5-5@anthropic", "--maintenance-eur", "800"]


@pytest.fixture(autouse=True)
def _one_day(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("ALAMBIC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(catalog, "today", lambda: datetime.date(2026, 11, 23))
    assert cli.main(["init", "run.yaml", "--teacher", "api"]) == 0


def quoted(tmp_path, *arguments, lang="en"):
    """(exit code, the numbers, the page)."""
    code = cli.main(["quote", "run.yaml", *QUOTE, *arguments, "--lang", lang])
    stem = tmp_path / "quotes" / f"run-2026-11-23-{lang}"
    if code:
        return code, None, None
    return code, json.loads(stem.with_suffix(".json").read_text()), stem.with_suffix(".html").read_text("utf-8")


def deal(api, hosting, **changed):
    """A deal at a price of 35 000 EUR, upkeep 800 per month, no share of the saving."""
    values = {"maintenance_month": 800, "coverage": 1, "one_off": 24_500, "margin": 0.3, "share": 0} | changed
    return Deal(api_month=api, hosting_month=hosting, **values)


@pytest.mark.parametrize(
    ("api", "cards", "hourly", "month"),
    [(400, 1, 0.79, None), (8000, 2, 0.79, 6), (400, 2, 0.79, None), (30000, 2, 1.47, 2), (11200, 2, 1.47, 5)],
)
def test_the_worked_examples(api, cards, hourly, month):
    found = deal(api, cards * hourly * costs.HOURS_PER_MONTH)
    assert found.price == pytest.approx(35_000)
    assert found.pays_back == month
    assert _deal.finding(found) == ("never" if month is None else "distil")


def test_the_price_is_the_larger_of_cost_with_margin_and_share_of_the_saving():
    assert deal(10_000, 200, share=0.25).price == pytest.approx(35_000)
    assert deal(100_000, 200, share=0.25).price == pytest.approx(0.25 * 12 * 99_000)
    assert deal(100, 200, share=0.25).value_price == 0


def test_a_late_pay_back_is_not_a_recommendation():
    found = deal(2800, 577)  # about 25 months
    assert found.pays_back > _deal.HORIZON_MONTHS
    assert _deal.finding(found) == "slow"


def test_what_the_student_does_not_answer_still_costs_the_api():
    assert deal(1000, 0, coverage=0.9).student_month == pytest.approx(900)


def test_the_shocks_are_what_they_say_at_the_quoted_price():
    base = deal(8000, 1153.4)
    found = {row.name: row for row in _deal.scenarios(base)}
    assert found["base"].pays_back == base.pays_back
    assert found["api_half"].saving_month == pytest.approx(4000 - 1953.4)
    assert found["tariff"].saving_month == pytest.approx(10_000 - 1953.4)
    assert found["volume_double"].saving_month == pytest.approx(16_000 - 1953.4)
    assert found["fallback"].saving_month == pytest.approx(8000 - 1953.4 - 1600)


# -- the documents ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lang", ["en", "fr"])
def test_the_page_holds_the_numbers_of_the_json(tmp_path, lang):
    code, numbers, page = quoted(tmp_path, *BIG, lang=lang)
    assert code == 0
    assert numbers["finding"] == "distil"
    for value in (numbers["price_eur"], numbers["saving_eur_per_month"], numbers["deal"]["api_month"]):
        assert f">{_quote_page.money(value, lang)}<" in page
    assert numbers["price_snapshot_sha256"][:16] in page
    assert f'<html lang="{lang}">' in page


@pytest.mark.parametrize("lang", ["en", "fr"])
def test_the_page_says_do_not_distil_when_that_is_the_finding(tmp_path, capsys, lang):
    _, numbers, page = quoted(tmp_path, "--volume", "1000", lang=lang)
    assert numbers["finding"] == "never"
    assert numbers["pays_back_in_month"] is None
    sentence = {"en": "do not distil", "fr": "ne pas distiller"}[lang]
    assert sentence in page
    assert sentence in capsys.readouterr().out


def test_the_page_loads_nothing_and_runs_nothing(tmp_path):
    _, _, page = quoted(tmp_path, *BIG)
    assert "<script" not in page
    assert not re.search(r"(src|href|url)\s*[=(]\s*[\"']?(https?:)?//", page.replace("xmlns:xlink", ""))


def test_a_hostile_client_name_stays_text(tmp_path):
    arguments = ["quote", "run.yaml", *QUOTE, *BIG, "--client", "<script>alert(1)</script> $x^2$ {{ 7 * 7 }}"]
    assert cli.main(arguments) == 0
    page = (tmp_path / "quotes" / "run-2026-11-23-en.html").read_text()
    assert "<script" not in page
    assert "{{ 7 * 7 }}" in page


def test_the_pdf_is_a_pdf_and_the_same_quote_gives_the_same_bytes(tmp_path):
    digests = []
    for folder in ("a", "b"):
        assert cli.main(["quote", "run.yaml", *QUOTE, *BIG, "--out", folder]) == 0
        files = sorted((tmp_path / folder).iterdir())
        assert {file.suffix for file in files} == {".html", ".json", ".pdf"}
        assert next(file for file in files if file.suffix == ".pdf").read_bytes().startswith(b"%PDF-")
        digests.append([hashlib.sha256(file.read_bytes()).hexdigest() for file in files])
    assert digests[0] == digests[1]


def test_the_studios_margin_is_shown_only_in_an_open_book(tmp_path):
    _, _, closed = quoted(tmp_path, *BIG)
    _, _, opened = quoted(tmp_path, *BIG, "--open-book")
    assert "20 days" not in closed
    assert "20 days at 600.00" in opened


def test_too_few_items_are_admitted(tmp_path):
    _, _, page = quoted(tmp_path, *BIG)
    assert "8 items are too few to show it: about 495 are needed" in page


# -- what stops a quote -------------------------------------------------------------------------------------------

STOPS = [
    ("an unknown price", ["--volume", "10", "--replaces", "gpt-9@openai"], 2, "no price of 'gpt-9@openai'"),
    ("no machine price", ["--volume", "10", "eval.serving.eur_per_hour=null"], 2, "eval.serving"),
    (
        "a forbidden teacher",
        ["--volume", "10", "teacher.provider=anthropic", "teacher.model=claude-opus-5-5"],
        5,
        "prohibited",
    ),
    ("no volume", ["--volume", "0"], 2, "--volume"),
    ("a coverage above one", ["--volume", "10", "--coverage", "1.5"], 2, "--coverage"),
    ("a margin of everything", ["--volume", "10", "--margin", "1"], 2, "--margin"),
    ("a rate that is no number", ["--volume", "10", "--day-rate", "nan"], 2, "--day-rate"),
    ("a client without a name", ["--volume", "10", "--client", " "], 2, "--client"),
]


@pytest.mark.parametrize(("what", "arguments", "code", "said"), STOPS, ids=[row[0] for row in STOPS])
def test_what_stops_a_quote_is_one_line(tmp_path, capsys, what, arguments, code, said):
    overrides = [argument for argument in arguments if re.match(r"^[a-z_.]+=", argument)]
    options = [argument for argument in arguments if argument not in overrides]
    assert cli.main(["quote", "run.yaml", *overrides, *QUOTE, *options]) == code
    err = capsys.readouterr().err.strip()
    assert said in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "quotes").exists()


def test_an_expired_price_blocks_a_quote_and_a_stale_one_does_not(tmp_path, monkeypatch, capsys):
    read = costs.find_price("anthropic", "claude-sonnet-5-5").as_of
    for days, code in ((70, 0), (121, 2)):
        monkeypatch.setattr(catalog, "today", lambda days=days: read + datetime.timedelta(days=days))
        assert cli.main(["quote", "run.yaml", *QUOTE, *BIG]) == code
    assert "more than 120 days" in capsys.readouterr().err


# -- the words ----------------------------------------------------------------------------------------------------


def test_both_languages_say_the_same_things():
    english, french = _quote_page.words("en"), _quote_page.words("fr")
    assert english.keys() == french.keys()
    for key, text in english.items():
        if isinstance(text, str):
            assert fields(text) == fields(french[key]), key
    assert set(french["obligations"]) == set(catalog.OBLIGATIONS)


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize(
    ("value", "english", "french"),
    [
        (1234.5, "1,234.50", "1\u202f234,50"),
        (0, "0.00", "0,00"),
        (-572.56, "\u2212572.56", "\u2212572,56"),
        (0.001, "< 0.01", "< 0,01"),
    ],
)
def test_money_is_written_as_the_language_writes_it(value, english, french):
    assert (_quote_page.money(value, "en"), _quote_page.money(value, "fr")) == (english, french)


def test_an_exchange_rate_or_a_card_price_that_is_too_old_blocks_and_an_old_one_is_said(tmp_path, monkeypatch, capsys):
    _, numbers, page = quoted(tmp_path, *BIG)
    assert numbers["stale"] == {"price_gpu": numbers["stale"]["price_gpu"]}  # read in September
    assert "more than 45 days ago" in page
    day = datetime.date(2026, 11, 20)  # everything in these rows is fresh, but the exchange rate
    (tmp_path / catalog.USER_FILE).write_text(
        "fx: {per_eur: {USD: 1.1}, as_of: 2026-07-01, source: s}\n"
        f"prices:\n  - {{provider: anthropic, currency: USD, as_of: {day}, source: s, "
        "models: {claude-sonnet-5-5: {input: 2, output: 10}}}\n"
    )
    assert quoted(tmp_path, *BIG)[0] == 2
    assert "one euro in USD is of 2026-07-01" in capsys.readouterr().err
    monkeypatch.setattr(catalog, "today", lambda: datetime.date(2027, 2, 20))
    fresh = day.replace(year=2027, month=2)
    (tmp_path / catalog.USER_FILE).write_text(
        f"fx: {{per_eur: {{USD: 1.1}}, as_of: {fresh}, source: s}}\n"
        f"prices:\n  - {{provider: anthropic, currency: USD, as_of: {fresh}, source: s, "
        f"models: {{claude-sonnet-5-5: {{input: 2, output: 10}}}}}}\n"
        f"  - {{provider: mistral, currency: USD, as_of: {fresh}, source: s, "
        "models: {mistral-large-4: {input: 0.7, output: 2.1}}}\n"
    )
    assert cli.main(["quote", "run.yaml", *QUOTE, *BIG]) == 2
    assert "every card that fits this training" in capsys.readouterr().err


def test_the_page_has_a_dark_side_and_the_chart_follows_it(tmp_path):
    _, _, page = quoted(tmp_path, *BIG)
    assert "prefers-color-scheme: dark" in page
    svg = page[page.index("<svg") : page.index("</svg>")]
    assert "var(--mark)" in svg
    assert _quote_page.MARK not in svg
    assert "#ffffff" not in svg


@pytest.mark.parametrize(
    ("day", "english", "french"), [(1, "1 May 2026", "1er mai 2026"), (23, "23 May 2026", "23 mai 2026")]
)
def test_a_date_is_written_as_the_language_writes_it(day, english, french):
    date = datetime.date(2026, 5, day)
    assert (_quote_page.day(date, "en"), _quote_page.day(date, "fr")) == (english, french)
