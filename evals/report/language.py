"""What the report says, and how it writes numbers, in each language: one catalogue of sentences per language.

French typesetting: Lexique des règles typographiques en usage à l'Imprimerie nationale. A decimal comma, a narrow
no-break space between thousands and before `%`, the amount before the currency.
"""

from __future__ import annotations

import functools
import math
import re
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LANGUAGES = ("en", "fr")
ARTICLES = {"de le ": "du ", "à le ": "au ", "De le ": "Du ", "À le ": "Au "}
CONTRACTED = re.compile(rf"\b(?:{'|'.join(ARTICLES)})")
MINUS, FIXED, NARROW = "\u2212", "\u00a0", "\u202f"  # the two blanks at which no line is broken


@dataclass(frozen=True)
class Language:
    """Sentences with ``{placeholders}`` by dotted key, and the way numbers are written."""

    code: str
    sentences: Mapping[str, str]
    phrases: tuple[tuple[re.Pattern[str], str], ...]
    """What the producers of a report write in English -> the same in this language."""
    point: str
    thousands: str
    before_percent: str
    before_unit: str

    def say(self, key: str, /, **values: object) -> str:
        """The sentence of ``key``. KeyError when nobody has written it."""
        return self.contracted(self.sentences[key].format(**values)) if values else self.sentences[key]

    def contracted(self, text: str) -> str:
        """A filled sentence, with the articles that French draws together."""
        return CONTRACTED.sub(lambda found: ARTICLES[found[0]], text) if self.code == "fr" else text

    def phrase(self, text: str) -> str | None:
        """A producer's English phrase in this language; None when it is not known here."""
        if self.code == "en":
            return text
        for pattern, said in self.phrases:
            if found := pattern.fullmatch(text):
                return said.format(**{k: self.phrase(v) or self.localised(v) for k, v in found.groupdict().items()})
        return None

    def localised(self, text: str) -> str:
        """A bare number of a phrase written this language's way; anything else as it is."""
        return self._written(text) if re.fullmatch(r"[+±-]?[\d,]*\d(\.\d+)?", text) else text

    def label(self, arm: Mapping[str, Any]) -> str:
        """What a system is called in a sentence: a run's own systems in this language, others by their name."""
        key = f"arm.{arm['name']}"
        ours = language("en").sentences.get(key) == arm["label"]
        return self.sentences[key] if ours else str(arm["label"])

    def short(self, arm: Mapping[str, Any]) -> str:
        """A name that fits beside a mark."""
        name = self.sentences.get(f"short.{arm['name']}") if arm["label"] != arm["name"] else None
        text = name or self.label(arm)
        return text if len(text) <= 30 else text[:29] + "…"

    # -- numbers ----------------------------------------------------------------------------------------------------

    def _written(self, text: str) -> str:
        """Python's number in this language: `-1,234.5` -> `−1 234,5`."""
        swapped = {",": self.thousands, ".": self.point, "-": MINUS}
        return "".join(swapped.get(letter, letter) for letter in text)

    def number(self, value: float, digits: int = 0) -> str:
        """1,234.5"""
        return self._written(f"{value:,.{digits}f}")

    def plain(self, value: float) -> str:
        """As many digits as it has, six at most, never in scientific notation: 0.05, 12."""
        if value == 0 or abs(value) >= 1e6:
            return self.number(value)
        digits = max(0, 5 - math.floor(math.log10(abs(value))))
        text = f"{value:,.{min(digits, 12)}f}"
        return self._written(text.rstrip("0").rstrip(".") if "." in text else text)

    def percent(self, value: float, digits: int = 1) -> str:
        """A share as a percentage: 81.2 %."""
        return f"{self.number(100 * value, digits)}{self.before_percent}%"

    def tick(self, value: float) -> str:
        """A share on an axis: 80 %."""
        return f"{self.plain(round(100 * value, 6))}{self.before_percent}%"

    def points(self, value: float | None) -> str:
        """A difference in points, signed; None is an open end."""
        if value is None:
            return self.say("common.unbounded")
        rounded = round(100 * value, 1) + 0.0
        return ("+" if rounded > 0 else "") + self.number(rounded, 1)

    def signed(self, value: float | None) -> str:
        """A signed number with one decimal; None is an open end."""
        return self.say("common.unbounded") if value is None else self.points(value / 100)

    def euros(self, value: float) -> str:
        """EUR with three significant digits, never in scientific notation."""
        return f"{self.significant(value, 2)}{self.before_unit}EUR"

    def significant(self, value: float, cents: int = 0) -> str:
        """Three significant digits, never in scientific notation; from 1 on at least ``cents`` decimals."""
        if value == 0:
            return "0"
        digits = max(2 - math.floor(math.log10(abs(value))), cents if abs(value) >= 1 else 0)
        return self.number(value, min(digits, 12))

    def amount(self, value: float) -> str:
        """Three significant digits; from 100 on whole."""
        return self.number(value) if abs(value) >= 100 else self.significant(value, 2)

    def three(self, value: float) -> str:
        """Three significant digits, whatever is measured."""
        return self.number(value) if abs(value) >= 100 else self.significant(value)

    def limit(self, value: float) -> str:
        """Seconds as somebody stated them: 0.8 s, 60 ms."""
        short = value < 0.1
        return f"{self.plain(value * (1000 if short else 1))}{self.before_unit}{'ms' if short else 's'}"

    def seconds(self, value: float) -> str:
        """Milliseconds, seconds, or minutes and hours when long."""
        if 0 < value < 0.1:
            return f"{self.significant(1000 * value)}{self.before_unit}ms"
        if value < 120:
            return f"{self.number(value, 2 if value < 10 else 0)}{self.before_unit}s"
        minutes = value < 7200
        return f"{self.number(value / (60 if minutes else 3600), 0 if minutes else 1)} {'min' if minutes else 'h'}"

    def p_value(self, value: float) -> str:
        """A p-value."""
        if value < 0.0001:
            return f"<{self.before_unit}{self._written('0.0001')}"
        return self.number(value, 4 if value < 0.01 else 3)

    def times(self, value: float) -> str:
        """3.2×"""
        return f"{self.number(value, 1 if value < 100 else 0)}{self.before_percent if self.code == 'fr' else ''}×"

    def grams(self, value: float) -> str:
        """Grams, or kilograms from 1,000 on."""
        heavy = abs(value) >= 1000
        return f"{self.significant(value / (1000 if heavy else 1))}{self.before_unit}{'kg' if heavy else 'g'}"


def _entries(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in tree.items():
        found |= _entries(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": str(value)}
    return found


def _pattern(phrase: str) -> re.Pattern[str]:
    """`{a} rows` -> anything, then ` rows`."""
    parts = re.split(r"\{(\w+)\}", phrase)
    return re.compile("".join(f"(?P<{part}>.+)" if n % 2 else re.escape(part) for n, part in enumerate(parts)))


def french(text: str) -> str:
    """The blanks that French sets: fixed before a colon and inside guillemets, narrow before ; ! ? % and thousands."""
    text = re.sub(r" (?=[:»])|(?<=«) ", FIXED, text)
    return re.sub(r" (?=[;!?%])|(?<=\d) (?=\d{3}\b)", NARROW, text)


@functools.cache
def language(code: str) -> Language:
    """The language of a code in LANGUAGES. KeyError for another."""
    numbers = {"en": (".", ",", FIXED, " "), "fr": (",", NARROW, NARROW, FIXED)}[code]
    names = {f"lang.{short}": name[code] for short, name in _yaml("languages").items()}
    phrases = _yaml(f"phrases.{code}") if code != "en" else {}
    typeset: Callable[[str], str] = french if code == "fr" else str
    return Language(
        code,
        {key: typeset(sentence) for key, sentence in _entries(_yaml(code)).items()} | names,
        tuple((_pattern(phrase), typeset(said)) for phrase, said in phrases.items()),
        *numbers,
    )


def _yaml(name: str) -> dict[str, Any]:
    """A file of `words/`."""
    from ruamel.yaml import YAML

    text = (resources.files("evals.report") / "words" / f"{name}.yaml").read_text("utf-8")
    return dict(YAML(typ="safe").load(text))
