"""The page: every number is report.json's in both languages, nothing is fetched, answers cannot inject."""

import copy
import itertools
import json
import re
import shutil
import subprocess
from importlib import resources

import jsonschema
import pytest

from evals.report.language import LANGUAGES
from evals.report.render import SECTIONS, html
from tests.unit.evals.everything import everything
from tests.unit.evals.page import Page, assert_numbers
from tests.unit.evals.synthetic import made

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --dump-dom"
)
SCHEMA = json.loads((resources.files("evals.report") / "schema.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def report():
    return everything()


@pytest.fixture(scope="module")
def pages(report):
    return {code: html(report, code) for code in LANGUAGES}


@pytest.fixture(scope="module", params=LANGUAGES)
def code(request):
    return request.param


def test_every_number_on_the_page_is_the_one_of_report_json(report, pages, code):
    assert_numbers(report, Page(pages[code]).found, code, least=700)


def test_a_number_that_was_tampered_with_is_found(report, pages, code):
    broken = re.sub(r'(data-path="method.items" data-value=")\d+', r"\g<1>241", pages[code])
    with pytest.raises(AssertionError, match=r"method\.items"):
        assert_numbers(report, Page(broken).found, code)
    with pytest.raises(AssertionError):
        assert_numbers(report, Page(pages[code].replace(">240<", ">241<")).found, code)


def test_a_number_written_the_other_language_s_way_is_found(report, pages):
    with pytest.raises(AssertionError):
        assert_numbers(report, Page(pages["en"]).found, "fr")


def test_no_measured_number_stands_outside_of_a_checked_element(report, pages, code):
    parts = ("items", "verdict", "sets", "economics", "cascade", "energy", "judges", "went")
    allowed = " ".join(json.dumps(report[k], ensure_ascii=False) for k in parts)
    allowed += " ".join(a["cost"]["source"] + a["cost"]["per_mtok"]["split"] for a in report["arms"])
    if code == "fr":
        allowed += re.sub(r"(?<=\d)\.(?=\d)", ",", allowed)
    shown = [n for text in Page(pages[code]).outside for n in re.findall(r"\d+[.,]\d+", text)]
    assert {n for n in shown if n not in allowed} <= {"2.5", "2,5"}  # the level of the one-sided test


@pytest.mark.parametrize("changes", [{}, {"priced": False}, {"accuracies": {"teacher": 0.5, "student": 0.97}}])
@pytest.mark.parametrize("make", [made, everything])
def test_the_report_follows_its_published_schema(changes, make):
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    report = make(**changes)
    jsonschema.validate(report, SCHEMA)
    json.dumps(report, allow_nan=False)
    for language in LANGUAGES:
        assert html(report, language).startswith("<!doctype html>")


def test_the_schema_refuses_a_report_with_something_missing_or_unknown(report):
    for broken in ({**report, "new": 1}, {k: v for k, v in report.items() if k != "verdict"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, SCHEMA)


def test_nothing_is_fetched_and_answers_cannot_inject(pages, code):
    page = pages[code]
    parsed = Page(page)
    assert [tag for tag, _ in parsed.tags].count("script") == 1  # our own; the items hold <script>alert(1)</script>
    assert "alert(1)" in page
    for tag, attrs in parsed.tags:
        assert not {"src", "srcset", "onload", "onclick"} & set(attrs), (tag, attrs)
        assert attrs.get("href", "#").startswith("#"), (tag, attrs)
    assert "url(" not in page
    assert "@import" not in page
    assert "default-src 'none'" in page
    assert len(parsed.ids) == len(set(parsed.ids))


def test_names_that_look_like_markup_or_like_placeholders_stay_text(report):
    odd = copy.deepcopy(report)
    odd["name"] = "<b>{items}</b>"
    odd["arms"][0]["label"] = odd["arms"][0]["model"] = "<img onerror=x>{0}"
    odd["arms"][0]["cost"]["source"] = odd["energy"]["arms"][0]["note"] = "<i>{a}</i> 5 % {nope}"
    odd["judges"][0]["judge"] = odd["sets"][0]["licence"] = "{verdicts}<u>"
    for language in LANGUAGES:
        page = html(odd, language)
        assert not {"b", "img", "i", "u"} & {tag for tag, _ in Page(page).tags}
        assert "&lt;img onerror=x&gt;{0}" in page


def test_every_section_with_data_is_there_in_order_and_one_without_is_not(pages):
    full = [i.removeprefix("h-") for i in Page(pages["en"]).ids if i.startswith("h-")]
    assert full == [name for name in SECTIONS if name != "tasks"]  # one task is no slice
    bare = made()
    bare |= {"cascade": None, "economics": None}
    found = {i.removeprefix("h-") for i in Page(html(bare)).ids if i.startswith("h-")}
    assert found == {"cost", "systems", "retention", "languages", "speed", "kept", "prices", "method"}


def test_the_page_says_its_language_names_its_figures_and_heads_its_tables(pages, code):
    parsed = Page(pages[code])
    attributes = [attrs for tag, attrs in parsed.tags if tag == "svg" and attrs.get("role") == "img"]
    assert len(attributes) >= 11
    for attrs in attributes:
        assert set(attrs["aria-labelledby"].split()) <= set(parsed.ids)
    assert all("scope" in attrs for tag, attrs in parsed.tags if tag == "th")
    assert dict(parsed.tags)["html"]["lang"] == code
    levels = [int(tag[1]) for tag, _ in parsed.tags if re.fullmatch(r"h\d", tag)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    for tag, attrs in parsed.tags:
        if attrs.get("href"):
            assert attrs["href"].removeprefix("#") in parsed.ids
        if "scroll" in attrs.get("class", "").split():
            assert attrs["tabindex"] == "0", tag
            assert attrs["aria-label"], tag


def test_every_figure_is_described_with_numbers_in_words(pages, code):
    for words in re.findall(r"<desc[^>]*>([^<]*)</desc>", pages[code]):
        assert re.search(r"\d", words) or "fig-curve" in words, words
        assert len(words) > 60


def test_an_unknown_cost_is_never_shown_as_nothing(code):
    report = made(priced=False)
    found = [(path, text) for path, _, text in Page(html(report, code)).found if ".cost." in path]
    assert found
    assert {text for _, text in found} == {{"en": "unknown", "fr": "inconnu"}[code]}
    assert "No saving is claimed" in report["verdict"]["sentence"]
    assert "Aucune économie n'est annoncée" in report["verdict"]["fr"]["sentence"]


def test_a_comparison_without_base_money_or_confidence_has_its_page(code):
    report = made(base=None, humble=(), money=None)
    page = html(report, code)
    assert "h-money" not in page
    assert_numbers(report, Page(page).found, code, least=100)


def test_the_same_report_gives_the_same_page(report, pages, code):
    assert html(json.loads(json.dumps(report)), code) == pages[code]


def test_an_end_that_never_pays_is_an_arrow_and_a_missing_break_even_no_curve(report, code):
    changed = copy.deepcopy(report)
    bar = changed["economics"]["tornado"]["bars"][0]
    bar |= {"high": None, "high_ending": "never"}
    first = changed["economics"]["break_evens"][0]
    first |= {"requests": None, "requests_low": None, "requests_high": None, "ending": "never", "per_month": None}
    page = html(changed, code)
    assert {"en": ">never</text>", "fr": ">jamais</text>"}[code] in page
    assert page.count("fig-curve-0") == html(report, code).count("fig-curve-0")
    assert 'class="crossing"' not in page
    assert 'class="crossing"' in html(report, code)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
@pytest.mark.parametrize("width", [1000, 390])
def test_a_browser_shows_the_same_numbers_and_can_filter(report, pages, code, width, tmp_path):
    probe = """<script>document.querySelector('button[data-value=lost]').click();
    document.body.dataset.lost = [...document.querySelectorAll('.items details')].filter(d => !d.hidden).length;
    const root = document.documentElement;
    document.body.dataset.wide = root.scrollWidth - root.clientWidth;
    document.body.dataset.reached = [...document.querySelectorAll('figure')].filter(
      f => f.scrollWidth > f.clientWidth && f.tabIndex !== 0).length;</script>"""
    (tmp_path / "report.html").write_text(pages[code].replace("</body>", probe + "</body>"))
    flags = [*FLAGS.split(), f"--window-size={width},2000", f"--user-data-dir={tmp_path / 'profile'}"]
    command = [CHROMIUM, *flags, f"file://{tmp_path / 'report.html'}"]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    parsed = Page(dom)
    assert_numbers(report, parsed.found, code, least=700)
    tags = dict(parsed.tags)
    assert "no-js" not in tags["html"].get("class", "")
    assert int(tags["body"]["data-lost"]) == len(report["items"]["lost"]) > 0
    assert tags["body"]["data-wide"] == "0"
    assert tags["body"]["data-reached"] == "0"
