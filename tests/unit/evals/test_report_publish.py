"""The report's files: pages per language, PDFs that are the same each time, and one line where none can be drawn."""

import json
import re
import sys

import pytest

from distill import cli, pdf
from distill.errors import MissingDependency
from evals.report.publish import publish
from evals.report.render import printed
from tests.unit.evals.everything import everything
from tests.unit.evals.page import Page, assert_numbers
from tests.unit.evals.synthetic import made

DRAWS = pytest.mark.skipif(not pdf.available(), reason="no PDF can be drawn here")


def test_pages_are_written_per_language_and_those_of_an_earlier_report_go(tmp_path):
    report = made()
    assert names(publish(report, tmp_path / "report.json", tmp_path)) == ["report.html", "report.fr.html"]
    (tmp_path / "report.pdf").write_bytes(b"old")
    assert names(publish(report, tmp_path / "report.json", tmp_path, ["fr"])) == ["report.fr.html"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.fr.html", "report.json"]
    assert json.loads((tmp_path / "report.json").read_text()) == json.loads(json.dumps(report))
    assert '<html lang="fr"' in (tmp_path / "report.fr.html").read_text()


def names(paths):
    return [path.name for path in paths]


@pytest.mark.parametrize("code", ["en", "fr"])
def test_the_page_for_paper_needs_no_variables_no_script_and_hides_nothing(code):
    report = everything()
    page = printed(report, code)
    assert "var(" not in page
    assert "<script" not in page
    assert "@media" not in page
    assert_numbers(report, Page(page).found, code, least=700)
    assert page.count("<details open") == page.count("<details")
    assert re.search(r'<svg class="figure"[^>]*><style>\.figure\{', page)


@DRAWS
def test_the_same_report_gives_the_same_pdf_and_it_holds_the_figures_colours(tmp_path):
    report = made(examples=1)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        found = publish(report, tmp_path / folder / "report.json", tmp_path / folder, ["fr"], as_pdf=True)
    assert names(found) == ["report.fr.html", "report.fr.pdf"]
    first, second = ((tmp_path / folder / "report.fr.pdf").read_bytes() for folder in ("a", "b"))
    assert first == second
    assert first.startswith(b"%PDF-")
    other = pdf.from_html(printed(report | {"name": "another"}, "fr"))
    assert other != first


def test_a_missing_library_is_one_line_before_anything_is_compared(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "weasyprint", None)
    with pytest.raises(MissingDependency):
        pdf.require()
    rows = [json.dumps({"id": str(n), "gold": "a", "text": "a"}) for n in range(5)]
    for name in ("one.jsonl", "two.jsonl"):
        (tmp_path / name).write_text("\n".join(rows))
    files = [str(tmp_path / name) for name in ("one.jsonl", "two.jsonl")]
    code = cli.main(["compare", *files, "--pdf", "--out", str(tmp_path / "out")])
    said = capsys.readouterr().err.strip()
    assert code == 3
    assert "alambic[pdf]" in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "out").exists()
