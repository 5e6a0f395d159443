"""A report as it is seen in one language: what templates and figures ask for names, numbers and sentences."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from evals.report import numbers
from evals.report.language import MINUS, NARROW
from evals.verdict import cap, cascade_sentence

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from evals.report.language import Language

# In a comparison of many systems figures show the best ones beside the two that are judged.
SHOWN = 6


@dataclass(frozen=True)
class View:
    """One report, one language."""

    report: Mapping[str, Any]
    to: Language

    # -- words ------------------------------------------------------------------------------------------------------

    def t(self, key: str, /, **values: object) -> Markup:
        """The sentence of ``key`` for the page; values that are no Markup are escaped."""
        return Markup(self.to.contracted(Markup(escape(self.to.sentences[key])).format(**values)))

    def say(self, key: str, /, **values: object) -> str:
        """The sentence as plain text, for figures and attributes."""
        return self.to.say(key, **values)

    def phrase(self, text: str) -> Markup:
        """What a producer wrote in English, in this language; a part that is not known is marked as English."""
        if self.to.code == "en":
            return escape(re.sub(r"(?<=\s)-(?=\d)", MINUS, text))
        parts = [(part, self.to.phrase(part)) for part in text.split("; ")]
        shown = [escape(said) if said is not None else self._foreign(part) for part, said in parts]
        return Markup(f"{NARROW}; ").join(shown)

    def _foreign(self, text: str) -> Markup:
        """English inside of a page that is not; an address or a name is no language."""
        if not re.search(r"[a-z]{2} [a-z]", text):
            return escape(text)
        return Markup('<span lang="en">{}</span>').format(text)

    @cached_property
    def verdict(self) -> Mapping[str, Any]:
        """`headline` and `parts` in this language."""
        found: Mapping[str, Any] = self.report["verdict"]
        return found if self.to.code == "en" else found[self.to.code]

    def lang(self, code: str) -> str:
        """The name of a language of the items, and its code; the code alone where it is unknown here."""
        name = self.to.sentences.get(f"lang.{code.lower()}")
        return f"{name} ({code})" if name else code

    @property
    def metric(self) -> str:
        """accuracy or score."""
        return self.say(f"metric.{self.report['method']['metric']}")

    @property
    def Metric(self) -> str:  # noqa: N802
        """Accuracy or Score."""
        return cap(self.metric)

    @property
    def cascade_sentence(self) -> str:
        """What asking the reference when unsure gains."""
        if self.to.code == "en":
            return str(self.report["cascade"]["sentence"])
        return cascade_sentence(self.report["cascade"]["best"], self.report["margin"], self.to.code)

    # -- systems ----------------------------------------------------------------------------------------------------

    @cached_property
    def arms(self) -> dict[str, Mapping[str, Any]]:
        """System -> its part of the report."""
        return {arm["name"]: arm for arm in self.report["arms"]}

    def index(self, name: str) -> int:
        """Place of a system in the report."""
        return list(self.arms).index(name)

    def label(self, name: str) -> str:
        """A system in a sentence."""
        return self.to.label(self.arms[name]) if name in self.arms else name

    def short(self, name: str) -> str:
        """A system beside a mark."""
        return self.to.short(self.arms[name]) if name in self.arms else name

    @property
    def c(self) -> str:
        """The candidate in a sentence."""
        return self.label(self.report["candidate"])

    @property
    def r(self) -> str:
        """The reference in a sentence."""
        return self.label(self.report["reference"])

    @cached_property
    def chosen(self) -> list[str]:
        """Systems that figures with little room show: reference, candidate, base, the first humble one."""
        report = self.report
        names = [report["reference"], report["candidate"], report["base"], *report["humble"][:1]]
        names += [arm["name"] for arm in report["arms"] if arm["name"].startswith("alternative")]
        return list(dict.fromkeys(name for name in names if name in self.arms))[:SHOWN]

    def role(self, name: str) -> str:
        """candidate, reference, humble or other: decides shape and colour."""
        if name in (self.report["candidate"], self.report["reference"]):
            return "candidate" if name == self.report["candidate"] else "reference"
        return "humble" if name in self.report["humble"] else "other"

    # -- numbers ----------------------------------------------------------------------------------------------------

    def at(self, path: str) -> Any:
        """The value at a dotted path."""
        return numbers.at(self.report, path)

    def n(self, path: str, kind: str, tag: str = "data", extra: str = "") -> Markup:
        """The number at a path, in an element that can be checked."""
        return numbers.shown(self.report, path, kind, self.to, tag, extra)

    def end(self, path: str, kind: str, tag: str = "data") -> Markup:
        """An end of an interval: null has no bound."""
        return numbers.shown(self.report, path, kind, self.to, tag, null="common.unbounded")

    def write(self, kind: str, value: Any) -> str:
        """A number as plain text."""
        return self.say("common.unknown") if value is None else numbers.FORMATS[kind](self.to, value)

    def facts(self, key: str, rows: Sequence[Mapping[str, object]]) -> str:
        """One phrase for each row: what a figure shows, for those who do not see it."""
        return "; ".join(self.say(key, **row) for row in rows)
