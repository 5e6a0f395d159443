"""A page becomes the same PDF bytes each time, and can load nothing while it does."""

import os
import subprocess
import sys

import pytest

from distill import pdf
from distill.errors import MissingDependency

PAGE = (
    "<!doctype html><html lang='fr'><meta charset='utf-8'><title>Dossier</title>"
    "<style>body { font: 16px system-ui; color: #123 }</style><h1>Élève déjà vu : 3 € œuvre ’</h1>"
    "<table><tr><th>a</th><td><code>x = 1</code></td></tr></table>"
)
MAKE = "import sys; from distill import pdf; sys.stdout.buffer.write(pdf.from_html(sys.stdin.read()))"


drawn = pytest.mark.skipif(not pdf.available(), reason="weasyprint and Pango are not both here")


@drawn
def test_the_same_page_gives_the_same_bytes_in_another_process_locale_zone_and_hash_seed(tmp_path):
    first = pdf.from_html(PAGE)
    assert first.startswith(b"%PDF-")
    environment = os.environ | {"LC_ALL": "C", "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "5", "PYTHONPATH": os.getcwd()}
    run = subprocess.run(
        [sys.executable, "-c", MAKE],
        input=PAGE.encode(),
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        check=True,
    )
    assert run.stdout == first
    assert pdf.from_html(PAGE.replace("vu", "lu")) != first  # the negative control
    assert b"/CreationDate" not in first


@drawn
def test_a_page_cannot_read_a_file_or_an_address(tmp_path):
    (tmp_path / "secret.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'><rect width='9' height='9'/></svg>")
    plain = pdf.from_html(PAGE)
    for address in (f"file://{tmp_path}/secret.svg", "http://127.0.0.1:9/x.svg", "ftp://127.0.0.1:9/x"):
        assert pdf.from_html(f"{PAGE}<img src='{address}'>") == plain
    inside = "data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg'><rect width='9' height='9'/></svg>"
    assert pdf.from_html(f'{PAGE}<img width="9" src="{inside}">') != plain  # the negative control: data: is drawn


def test_without_the_library_the_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "weasyprint", None)
    with pytest.raises(MissingDependency, match="weasyprint") as caught:
        pdf.from_html(PAGE)
    assert "alambic[pdf]" in str(caught.value)


def test_without_pango_the_line_says_what_to_install(tmp_path):
    (tmp_path / "weasyprint.py").write_text("raise OSError('cannot load library')")
    code = "from distill import pdf; print(pdf.available()); pdf.from_html(str())"
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert run.stdout.strip() == "False"
    assert "EnvironmentProblem: weasyprint finds no Pango" in run.stderr
