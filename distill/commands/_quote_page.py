"""One list of blocks, two shapes: a self-contained HTML page and an A4 PDF with the same words and numbers."""

from __future__ import annotations

import io
import textwrap
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import datetime
    from pathlib import Path

INK, SOFT, MARK, LINE = "#1c2430", "#5c6878", "#0b6e5b", "#d9dee5"
A4 = (8.27, 11.69)  # inches
LEFT, RIGHT, TOP, BOTTOM = 0.085, 0.915, 0.94, 0.06  # of the page
MONTHS = {
    "en": "January February March April May June July August September October November December".split(),  # noqa: SIM905
    "fr": "janvier février mars avril mai juin juillet août septembre octobre novembre décembre".split(),  # noqa: SIM905
}
THEME = {INK: "--ink", SOFT: "--soft", MARK: "--mark", LINE: "--line"}


@dataclass(frozen=True)
class Block:
    """A piece of the page. ``rows`` and ``head`` for a table; ``strong``: numbers of the rows that stand out."""

    kind: Literal["title", "heading", "finding", "text", "soft", "table", "chart"]
    text: str = ""
    head: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    strong: tuple[int, ...] = ()


@dataclass(frozen=True)
class Chart:
    """Two lines over months."""

    today: list[float]
    student: list[float]
    labels: tuple[str, str, str, str]
    """Names of the two lines, and of the axes."""


def words(lang: str) -> dict[str, Any]:
    """The sentences in a language."""
    from ruamel.yaml import YAML

    text = (resources.files("distill.commands") / "templates" / "quote.yaml").read_text("utf-8")
    return dict(YAML(typ="safe").load(text)[lang])


def money(value: float, lang: str) -> str:
    """1 234,56 in French, 1,234.56 in English; what rounds to nothing but is something is shown as less than a cent."""
    shown = "< 0.01" if 0 < value < 0.005 else f"{value:,.2f}".replace("-", "\N{MINUS SIGN}")
    return shown.replace(",", "\u202f").replace(".", ",") if lang == "fr" else shown


def number(value: float, lang: str) -> str:
    """A whole number with the language's separators."""
    return f"{value:,.0f}".replace(",", "\u202f") if lang == "fr" else f"{value:,.0f}"


def share(value: float, lang: str) -> str:
    """A percentage."""
    return f"{100 * value:g}\u202f%".replace(".", ",") if lang == "fr" else f"{100 * value:g}%"


def day(value: datetime.date, lang: str) -> str:
    """23 novembre 2026 in French, 23 November 2026 in English."""
    number_ = "1er" if lang == "fr" and value.day == 1 else str(value.day)
    return f"{number_} {MONTHS[lang][value.month - 1]} {value.year}"


# -- HTML -------------------------------------------------------------------------------------------------------


def html(blocks: list[Block], chart: Chart, lang: str, title: str) -> str:
    """The page. Every text is escaped; nothing is loaded from elsewhere."""
    import jinja2

    source = (resources.files("distill.commands") / "templates" / "quote.html").read_text("utf-8")
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(source)
    return template.render(blocks=blocks, chart=_svg(chart), lang=lang, title=title) + "\n"


def _figure(size: tuple[float, float]) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=size)


def _draw(axes: Any, chart: Chart) -> None:
    months = range(len(chart.today))
    today, student, x, y = chart.labels
    axes.plot(months, chart.today, color=SOFT, linewidth=1.8, label=today)
    axes.plot(months, chart.student, color=MARK, linewidth=2.2, label=student)
    axes.set_xlabel(x, color=SOFT, fontsize=9)
    axes.set_ylabel(y, color=SOFT, fontsize=9)
    axes.set_xlim(0, len(chart.today) - 1)
    axes.set_ylim(bottom=0)
    axes.set_xticks(range(0, len(chart.today), 6))
    axes.tick_params(colors=SOFT, labelsize=8, length=0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}".replace(",", "\u202f"))
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(LINE)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, loc="upper left")


def _svg(chart: Chart) -> str:
    import matplotlib as mpl

    figure = _figure((7.2, 2.8))
    _draw(figure.subplots(), chart)
    figure.tight_layout()
    buffer = io.StringIO()
    # Text as text, and no date or random ids: the same quote gives the same bytes.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "quote", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for colour, name in THEME.items():  # the page's own colours, so that the chart follows light and dark
        text = text.replace(colour, f"var({name})")
    return text


# -- PDF --------------------------------------------------------------------------------------------------------

# kind -> (points, weight, colour, characters in a line, space before in lines of 12 points)
STYLES: dict[str, tuple[float, str, str, int, float]] = {
    "title": (17, "bold", INK, 52, 0),
    "heading": (11.5, "bold", INK, 80, 1.3),
    "finding": (11.5, "bold", MARK, 72, 0.9),
    "text": (9.5, "normal", INK, 98, 0.3),
    "soft": (8, "normal", SOFT, 116, 0.25),
}
POINT = 1 / 72 / A4[1]  # of the page's height


class _Pages:
    """Writes from top to bottom and turns the page when it is full."""

    def __init__(self, pdf: Any):
        self.pdf, self.figure, self.y, self.number = pdf, _figure(A4), TOP, 1

    def room(self, height: float) -> None:
        """Make sure that ``height`` (of the page) is left."""
        if self.y - height < BOTTOM:
            self.turn()

    def turn(self) -> None:
        """Close the page, begin the next one."""
        self.figure.text(RIGHT, BOTTOM / 2, str(self.number), fontsize=8, color=SOFT, ha="right")
        self.pdf.savefig(self.figure)
        self.figure, self.y, self.number = _figure(A4), TOP, self.number + 1

    def line(self, text: str, size: float, weight: str, colour: str, x: float = LEFT, align: str = "left") -> None:
        """One line of text at the current height; the height does not change."""
        baseline = self.y - 0.95 * size * POINT  # the same for every text, accents or not
        shown = text.replace("$", r"\$")  # a dollar sign would start a formula
        self.figure.text(x, baseline, shown, fontsize=size, fontweight=weight, color=colour, ha=align, va="baseline")

    def rule(self, colour: str = LINE, width: float = 0.6) -> None:
        """A horizontal line."""
        from matplotlib.lines import Line2D

        self.figure.add_artist(Line2D([LEFT, RIGHT], [self.y, self.y], color=colour, linewidth=width))

    def text(self, block: Block) -> None:
        """A paragraph, folded."""
        size, weight, colour, width, before = STYLES[block.kind]
        lines = textwrap.wrap(block.text, width, break_on_hyphens=False) or [""]
        step = 1.42 * size * POINT
        self.y -= 12 * before * POINT
        self.room(step * len(lines) + (0.12 if block.kind == "heading" else 0))
        for line in lines:
            self.line(line, size, weight, colour)
            self.y -= step

    def table(self, block: Block) -> None:
        """A table: the first column to the left, the others to the right."""
        columns = len(block.head)
        edges = [LEFT, *(RIGHT - 0.17 * (columns - 1 - n) for n in range(1, columns))]
        step = 15.5 * POINT
        self.y -= 4 * POINT
        self.room(step * (len(block.rows) + 2))
        for number_, row in enumerate((block.head, *block.rows)):
            head, strong = number_ == 0, number_ - 1 in block.strong
            for n, cell in enumerate(row):
                colour, weight = (SOFT if head else INK), ("bold" if head or strong else "normal")
                self.line(cell, 8.5 if head else 9, weight, colour, edges[n], "left" if n == 0 else "right")
            self.y -= step * 0.8
            self.rule(INK if strong else LINE, 1.1 if strong else 0.6)
            self.y -= step * 0.3

    def chart(self, chart: Chart) -> None:
        """The chart, as wide as the text."""
        height = 0.19
        self.room(height + 0.03)
        _draw(self.figure.add_axes((LEFT + 0.06, self.y - height, RIGHT - LEFT - 0.06, height - 0.02)), chart)
        self.y -= height + 0.04


def pdf(path: Path, blocks: list[Block], chart: Chart, title: str) -> None:
    """Write the PDF: fonts embedded, no date inside, so the same quote gives the same bytes."""
    import matplotlib as mpl
    from matplotlib.backends.backend_pdf import PdfPages

    about = {"Title": title, "CreationDate": None, "Creator": None, "Producer": None}
    with mpl.rc_context({"pdf.fonttype": 42, "font.family": "DejaVu Sans"}), PdfPages(path, metadata=about) as book:
        pages = _Pages(book)
        for block in blocks:
            if block.kind == "table":
                pages.table(block)
            elif block.kind == "chart":
                pages.chart(chart)
            else:
                pages.text(block)
        pages.turn()
