"""The report's files: report.json for machines, one page and on request one PDF per language for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distill.artifacts import write_bytes, write_json, write_text
from evals.report.language import LANGUAGES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def publish(
    report: Mapping[str, Any],
    json_path: Path,
    folder: Path,
    languages: Sequence[str] = LANGUAGES,
    as_pdf: bool = False,
) -> list[Path]:
    """Write the report; the pages' paths, the first language's first. Pages of an earlier report do not stay.

    ``languages``: codes of LANGUAGES. Raises MissingDependency or EnvironmentProblem for a PDF that cannot be drawn.
    """
    from distill import pdf
    from evals.report.render import html, printed

    write_json(json_path, dict(report))
    pages, sheets = [], []
    for code in dict.fromkeys(languages):
        pages.append(folder / page_name(code))
        write_text(pages[-1], html(report, code))
        if as_pdf:
            sheets.append(pages[-1].with_suffix(".pdf"))
            write_bytes(sheets[-1], pdf.from_html(printed(report, code)))
    for code in LANGUAGES:
        for old in (folder / page_name(code), (folder / page_name(code)).with_suffix(".pdf")):
            if old not in (*pages, *sheets):
                old.unlink(missing_ok=True)
    return [*pages, *sheets]


def page_name(code: str) -> str:
    """report.html in English, report.fr.html in French."""
    return "report.html" if code == LANGUAGES[0] else f"report.{code}.html"
