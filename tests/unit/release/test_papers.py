"""The papers in both languages and three forms: the same figures, no phrase left untranslated, nothing loaded."""

import inspect
import re

import pytest

from distill import pdf as pdf_page
from distill.release import card, pages, papers, record, words
from tests.unit.release.made import base_folder, build, run_folder

PAPERS = {"card": "README.md", "distillation": "papers/distillation.md", "data": "papers/data.md"}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A bundle with PDFs where they can be made."""
    base = base_folder(tmp_path_factory.mktemp("base") / "tiny-base")
    pdf = pdf_page.available()
    path = tmp_path_factory.mktemp("run") / "runs" / "sorter"
    return build(*run_folder(path, base, targets=["merged", "adapter"], pdf=pdf))


def figures(text):
    """Every number of a paper, in order."""
    return re.findall(r"\d+(?:\.\d+)?", pages.FRONT_MATTER.sub("", text).replace(".fr.", "."))


@pytest.mark.parametrize("name", PAPERS)
def test_both_languages_hold_the_same_figures_and_no_english_phrase_is_left(built, name):
    english = (built / PAPERS[name]).read_text()
    french = (built / f"papers/{name}.fr.md").read_text()
    assert figures(french) == figures(english)
    assert french.count("\n|") == english.count("\n|")
    phrases = {phrase for phrase, said in words._phrases("fr").items() if said != phrase and len(phrase) > 12}
    left = [phrase for phrase in phrases if phrase in french]
    assert left == []
    assert any(phrase in english for phrase in phrases)  # the negative control


def test_every_translation_is_of_a_phrase_that_a_paper_says():
    source = re.sub(r'"\s+"', "", "".join(inspect.getsource(module) for module in (card, papers, record)))
    assert [phrase for phrase in words._phrases("fr") if phrase not in source] == []


@pytest.mark.parametrize("language", ["", ".fr"])
@pytest.mark.parametrize("name", [*PAPERS, "dossier"])
def test_each_paper_is_a_page_that_loads_nothing_and_a_pdf(built, name, language):
    end = language if name != "dossier" else language or ".en"
    page = (built / f"papers/{name}{end}.html").read_text()
    assert f'<html lang="{end.lstrip(".") or "en"}">' in page
    assert "<table" in page
    assert not re.search(r"<script|<link|<img|src=|url\(|@import", page)
    if pdf_page.available():
        assert (built / f"papers/{name}{end}.pdf").read_bytes().startswith(b"%PDF-")


def test_what_a_person_wrote_stays_text_in_a_page():
    page = pages.page(
        "---\ntags: [x]\n---\n# A <b>title</b> & more\n\n<script>alert(1)</script> [x](javascript:alert(1))\n", "en"
    )
    assert "<script" not in page
    assert "tags:" not in page
    assert 'href="javascript' not in page
    assert "<title>A &lt;b&gt;title&lt;/b&gt; &amp; more</title>" in page
