"""Documents as text, and texts cut into passages at the ends of sentences."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

from distill.errors import MissingDependency

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TEXT, HTML, PDF = (".txt", ".md", ".markdown", ".rst"), (".html", ".htm", ".xhtml"), (".pdf",)
KNOWN = TEXT + HTML + PDF
BLOCKS = frozenset(
    {"address", "article", "aside", "blockquote", "br", "dd", "div", "dl", "dt", "figcaption", "figure", "footer"}
    | {"h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "main", "ol", "p", "pre", "section", "table", "td"}
    | {"th", "tr", "ul"}
)
UNREAD = frozenset({"script", "style", "nav", "template", "noscript", "head", "svg"})
# A full stop ends a sentence when a new one can begin behind it, and when it is not part of a short form.
BORDER = re.compile(r"[.!?…;·](?P<close>[\"'”’»)\]]*)(?P<gap>\s+)(?=[\"'“„‘«(\[¿¡]*[^\W_a-zß-öø-ÿ])|\n[ \t]*\n\s*")
SHORT = re.compile(
    r"(?:^|[\s(])(?:[^\W\d_]|\d{1,2}|z\.\s?B|d\.\s?h|u\.\s?a|bzw|ca|Nr|Abs|Art|art|S|Dr|Prof|Mr|Mrs|Ms|St|No|no|vs|etc|e\.g|i\.e"
    r"|cf|pp?|M|Mme|Mlle|n°|núm|Sr|Sra|sig|tzv|např|m\.in|np|tj|tzn|bijv|o\.a|bl\.a|t\.ex|dvs|kl)$"
)


def read_document(path: Path) -> str:
    """The document's text. Raises ValueError saying why not, OSError, MissingDependency for a PDF without pypdf."""
    suffix = path.suffix.lower()
    if suffix in PDF:
        return _pdf(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 text (byte {error.start})") from None
    if suffix in HTML:
        reader = _Html()
        reader.feed(text)
        reader.close()
        text = "".join(reader.parts)
    lines = (re.sub(r"[ \t\u00a0]+", " ", line).strip() for line in text.splitlines())
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


class _Html(HTMLParser):
    """Collects what a reader of the page would see."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._unread = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._unread += tag in UNREAD
        if tag in BLOCKS:
            self.parts.append("\n\n")

    def handle_endtag(self, tag: str) -> None:
        self._unread -= tag in UNREAD and self._unread > 0
        if tag in BLOCKS:
            self.parts.append("\n\n")

    def handle_data(self, data: str) -> None:
        if not self._unread:
            self.parts.append(re.sub(r"\s+", " ", data))


def _pdf(path: Path) -> str:
    try:
        from pypdf import PdfReader
    except ImportError:
        raise MissingDependency("pypdf", "PDF documents", "data") from None
    try:
        return "\n\n".join(page.extract_text().strip() for page in PdfReader(path).pages)
    except Exception as error:  # a damaged PDF can raise anything
        raise ValueError(f"not a readable PDF: {' '.join(str(error).split())[:120]}") from None


def sentences(text: str) -> list[str]:
    """The text in pieces that end where a sentence or a paragraph ends; joined they are the text again."""
    pieces, start = [], 0
    for match in BORDER.finditer(text):
        if (
            match["gap"] is not None
            and match[0][0] == "."
            and SHORT.search(text[max(start, match.start() - 8) : match.start()])
        ):
            continue
        pieces.append(text[start : match.end()])
        start = match.end()
    return [*pieces, text[start:]] if start < len(text) else pieces


def passages(text: str, size: int, overlap: int, measure: Callable[[str], int]) -> list[str]:
    """Passages of at most ``size``, each beginning with the last sentences (at most ``overlap``) of the one before.

    A sentence longer than ``size`` is cut between words.
    """
    pieces = [part for piece in sentences(text) for part in _fitting(piece, size, measure)]
    made: list[str] = []
    current: list[str] = []
    for piece in pieces:
        if current and measure("".join([*current, piece]).strip()) > size:
            made.append("".join(current).strip())
            current = _tail(current, overlap, measure)
            if current and measure("".join([*current, piece]).strip()) > size:
                current = []
        current.append(piece)
    return [passage for passage in [*made, "".join(current).strip()] if passage]


def _tail(pieces: list[str], overlap: int, measure: Callable[[str], int]) -> list[str]:
    kept: list[str] = []
    for piece in reversed(pieces):
        if measure("".join([piece, *kept]).strip()) > overlap:
            break
        kept.insert(0, piece)
    return kept


def _fitting(piece: str, size: int, measure: Callable[[str], int]) -> list[str]:
    """The piece, or parts of it cut between words (within a word longer than ``size``)."""
    if measure(piece.strip()) <= size:
        return [piece]
    words = re.findall(r"\S+\s*", piece)
    if len(words) < 2:
        middle = len(piece) // 2
        return (
            [*_fitting(piece[:middle], size, measure), *_fitting(piece[middle:], size, measure)] if middle else [piece]
        )
    middle = len(words) // 2
    return [*_fitting("".join(words[:middle]), size, measure), *_fitting("".join(words[middle:]), size, measure)]
