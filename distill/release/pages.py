"""A paper written in Markdown as a page that loads nothing; it prints well."""

from __future__ import annotations

import re
from importlib import resources

FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)


def text_of(name: str) -> str:
    """A file of `texts/`."""
    return (resources.files("distill.release") / "texts" / name).read_text("utf-8")


def page(markdown: str, language: str) -> str:
    """HTML of a paper. Tags in the Markdown stay text; the front matter is for model hubs and left out."""
    from jinja2 import Environment, StrictUndefined
    from markdown_it import MarkdownIt
    from markupsafe import Markup

    text = FRONT_MATTER.sub("", markdown)
    title = next((line.lstrip("# ") for line in text.splitlines() if line.startswith("# ")), "")
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    body = body.replace("<table>", '<table class="wide">')
    made = Environment(autoescape=True, undefined=StrictUndefined).from_string(text_of("paper.html.j2"))
    return made.render(title=title, language=language, style=Markup(text_of("paper.css")), body=Markup(body)) + "\n"
