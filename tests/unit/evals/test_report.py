"""The page: every number is report.json's, nothing is fetched, answers cannot inject, and a browser shows it."""

import itertools
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from importlib import resources

import jsonschema
import pytest

from evals.report import numbers
from evals.report.render import html
from tests.unit.evals.synthetic import made

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --window-size=1000,2000 --dump-dom"
)
SCHEMA = json.loads((resources.files("evals.report") / "schema.json").read_text("utf-8"))


class Page(HTMLParser):
    """Collects (data-path, data-value, text) and the text outside of such elements."""

    def __init__(self, text):
        super().__init__()
        self.found, self.tags, self.outside, self.ids = [], [], [], []
        self.open, self.quiet = None, 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        self.quiet += tag in ("style", "script", "title", "desc", "svg")
        if "id" in attrs:
            self.ids.append(attrs["id"])
        if "data-path" in attrs:
            self.open = [tag, attrs["data-path"], attrs["data-value"], ""]

    def handle_endtag(self, tag):
        self.quiet -= tag in ("style", "script", "title", "desc", "svg")
        if self.open and self.open[0] == tag:
            self.found.append(tuple(self.open[1:]))
            self.open = None

    def handle_data(self, data):
        if self.open:
            self.open[3] += data
        elif not self.quiet:
            self.outside.append(data)


@pytest.fixture(scope="module")
def report():
    return made()


@pytest.fixture(scope="module")
def page(report):
    return html(report)


def assert_numbers(report, found):
    assert len(found) > 200
    for path, value, text in found:
        assert json.loads(value) == numbers.at(report, path), path
        assert text in {"unknown"} if json.loads(value) is None else text in shown_as(json.loads(value)), (path, text)


def shown_as(value):
    """Every way a value may be written."""
    return {write(value) for write in numbers.FORMATS.values()}


def test_every_number_on_the_page_is_the_one_of_report_json(report, page):
    assert_numbers(report, Page(page).found)


def test_a_number_that_was_tampered_with_is_found(report, page):
    broken = re.sub(r'(data-path="method.items" data-value=")\d+', r"\g<1>241", page)
    with pytest.raises(AssertionError, match=r"method\.items"):
        assert_numbers(report, Page(broken).found)
    shown = page.replace(">240<", ">241<")
    with pytest.raises(AssertionError):
        assert_numbers(report, Page(shown).found)


def test_no_measured_number_stands_outside_of_a_checked_element(report, page):
    allowed = " ".join(
        json.dumps(report[k], ensure_ascii=False) for k in ("items", "verdict", "sets", "economics", "cascade")
    )
    allowed += " ".join(a["cost"]["source"] for a in report["arms"])
    loose = [n for text in Page(page).outside for n in re.findall(r"\d+\.\d+", text) if n not in allowed]
    assert set(loose) <= {"2.5"}  # the level of the one-sided test, in the method notes


@pytest.mark.parametrize("changes", [{}, {"priced": False}, {"accuracies": {"teacher": 0.5, "student": 0.97}}])
def test_the_report_follows_its_published_schema(changes):
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    report = made(**changes)
    jsonschema.validate(report, SCHEMA)
    json.dumps(report, allow_nan=False)
    assert html(report).startswith("<!doctype html>")


def test_the_schema_refuses_a_report_with_something_missing_or_unknown(report):
    for broken in ({**report, "new": 1}, {k: v for k, v in report.items() if k != "verdict"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, SCHEMA)


def test_nothing_is_fetched_and_answers_cannot_inject(page):
    parsed = Page(page)
    assert [tag for tag, _ in parsed.tags].count("script") == 1  # our own; the items hold <script>alert(1)</script>
    assert "alert(1)" in page
    for tag, attrs in parsed.tags:
        assert not {"src", "href", "srcset", "onload", "onclick"} & set(attrs), (tag, attrs)
    assert "url(" not in page
    assert "@import" not in page
    assert "default-src 'none'" in page
    assert len(parsed.ids) == len(set(parsed.ids))


def test_the_page_says_its_language_names_its_figures_and_heads_its_tables(page):
    parsed = Page(page)
    attributes = [attrs for tag, attrs in parsed.tags if tag == "svg" and attrs.get("role") == "img"]
    assert len(attributes) >= 4
    for attrs in attributes:
        assert set(attrs["aria-labelledby"].split()) <= set(parsed.ids)
    assert all("scope" in attrs for tag, attrs in parsed.tags if tag == "th")
    assert dict(parsed.tags)["html"]["lang"] == "en"
    levels = [int(tag[1]) for tag, _ in parsed.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_an_unknown_cost_is_never_shown_as_nothing():
    report = made(priced=False)
    found = [(path, text) for path, _, text in Page(html(report)).found if ".cost." in path]
    assert found
    assert {text for _, text in found} == {"unknown"}
    assert "No saving is claimed" in report["verdict"]["sentence"]


def test_the_same_report_gives_the_same_page(report, page):
    assert html(json.loads(json.dumps(report))) == page


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
def test_a_browser_shows_the_same_numbers_and_can_filter(report, page, tmp_path):
    probe = """<script>document.querySelector('button[data-value=lost]').click();
    document.body.dataset.lost = [...document.querySelectorAll('.items details')].filter(d => !d.hidden).length;
    const root = document.documentElement;
    document.body.dataset.wide = root.scrollWidth - root.clientWidth;</script>"""
    (tmp_path / "report.html").write_text(page.replace("</body>", probe + "</body>"))
    flags = FLAGS.split()
    command = [CHROMIUM, *flags, f"--user-data-dir={tmp_path / 'profile'}", f"file://{tmp_path / 'report.html'}"]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    parsed = Page(dom)
    assert_numbers(report, parsed.found)
    tags = dict(parsed.tags)
    assert "no-js" not in tags["html"].get("class", "")
    assert int(tags["body"]["data-lost"]) == len(report["items"]["lost"]) > 0
    assert tags["body"]["data-wide"] == "0"
