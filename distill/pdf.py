"""An HTML page as a PDF: the same page gives the same bytes, and the page itself can load nothing."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from distill.errors import EnvironmentProblem, MissingDependency

# The font comes with matplotlib, which is always installed: what fonts a machine has does not change the bytes.
FACES = {
    ("DejaVu Sans", "normal", "normal"): "DejaVuSans.ttf",
    ("DejaVu Sans", "bold", "normal"): "DejaVuSans-Bold.ttf",
    ("DejaVu Sans", "normal", "italic"): "DejaVuSans-Oblique.ttf",
    ("DejaVu Sans Mono", "normal", "normal"): "DejaVuSansMono.ttf",
}
PRINT = """
@page { size: A4; margin: 16mm 15mm 18mm;
  @bottom-right { content: counter(page) " / " counter(pages); font: 7.5pt "Page Sans"; color: #5c6675; } }
html { font-size: 10.5pt }
* { font-family: "Page Sans" !important }
body { font-size: .82rem !important; max-width: none !important; padding: 0 }
code, pre, kbd, samp, code *, pre * { font-family: "Page Mono" !important }
"""


def from_html(page: str) -> bytes:
    """A4 PDF of ``page``, which may hold `data:` addresses and no others. Raises MissingDependency, EnvironmentProblem.

    Fonts are embedded; there is no date and no random identifier in the file.
    """
    weasyprint = _library()
    from weasyprint.text.fonts import FontConfiguration
    from weasyprint.urls import URLFetcher

    logging.getLogger("weasyprint").setLevel(logging.ERROR)  # what print has no use for, such as dark colours
    fonts = FontConfiguration()
    own = weasyprint.CSS(string=_faces() + PRINT, font_config=fonts, url_fetcher=URLFetcher(allowed_protocols=["file"]))
    document = weasyprint.HTML(string=page, url_fetcher=URLFetcher(allowed_protocols=["data"]))
    made: bytes = document.write_pdf(stylesheets=[own], font_config=fonts)
    return made


def require() -> None:
    """Raises MissingDependency or EnvironmentProblem where no PDF can be drawn: said before the work, not after it."""
    _library()


def available() -> bool:
    """True when a PDF can be drawn on this machine."""
    try:
        _library()
    except (MissingDependency, EnvironmentProblem):
        return False
    return True


def _library() -> Any:
    try:
        import weasyprint
    except ImportError:
        raise MissingDependency("weasyprint", "a PDF", "pdf") from None
    except OSError:
        raise EnvironmentProblem(
            "weasyprint finds no Pango library on this system",
            next="apt-get install libpango-1.0-0 libpangoft2-1.0-0 (or brew install pango), or leave the PDF out",
        ) from None
    return weasyprint


def _faces() -> str:
    """The `@font-face` rules. Own family names, so that a font of the system never takes their place."""
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return "".join(
        f'@font-face {{ font-family: "{"Page Mono" if "Mono" in family else "Page Sans"}"; font-weight: {weight}; '
        f'font-style: {style}; src: url("{(folder / file).as_uri()}") }}\n'
        for (family, weight, style), file in FACES.items()
    )
