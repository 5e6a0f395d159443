"""A page of the report taken apart: checked numbers, tags, the text that a reader sees."""

import json
from html.parser import HTMLParser

from evals.report import numbers
from evals.report.language import language

HIDDEN = ("style", "script")
DRAWN = ("title", "desc", "svg")


class Page(HTMLParser):
    """``found``: (path, exact value, text) of checked numbers; ``outside``: text of the page in none of them."""

    def __init__(self, text):
        super().__init__()
        self.found, self.tags, self.outside, self.ids, self.seen = [], [], [], [], []
        self.open, self.quiet, self.hidden, self.foreign = None, 0, 0, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        self.quiet += tag in (*HIDDEN, *DRAWN)
        self.hidden += tag in HIDDEN
        if "id" in attrs:
            self.ids.append(attrs["id"])
        if "data-path" in attrs:
            self.open = [tag, attrs["data-path"], attrs["data-value"], ""]
        if tag == "span":
            self.foreign.append("lang" in attrs)
        self.seen += [attrs[name] for name in ("aria-label", "data-template") if name in attrs]

    def handle_endtag(self, tag):
        self.quiet -= tag in (*HIDDEN, *DRAWN)
        self.hidden -= tag in HIDDEN
        if tag == "span":
            self.foreign.pop()
        if self.open and self.open[0] == tag:
            self.found.append(tuple(self.open[1:]))
            self.open = None

    def handle_data(self, data):
        if not self.hidden and not any(self.foreign):
            self.seen.append(data)
        if self.open:
            self.open[3] += data
        elif not self.quiet:
            self.outside.append(data)


def assert_numbers(report, found, code, least=400):
    """Every checked number is the report's, and is written as the language writes it."""
    assert len(found) > least
    to = language(code)
    for path, value, text in found:
        exact = json.loads(value)
        assert exact == numbers.at(report, path), path
        null = {to.say("common.unknown"), to.say("common.unbounded")}
        assert text in (null if exact is None else written(to, exact)), (path, text)


def written(to, value):
    """Every way a value may be written."""
    found = set()
    for write in numbers.FORMATS.values():
        try:
            found.add(write(to, value))
        except OverflowError:
            continue
    return found
