"""Drop answers with characters that a reader cannot see: watermarks, smuggled instructions, broken decoding."""

from __future__ import annotations

import unicodedata
from typing import Any, Literal

from distill.generate.filters._base import FilterConfig
from distill.generate.filters._text import conversation

BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180e\u200b\u2060\u2061\u2062\u2063\u2064\u3164\ufeff\uffa0\u2800")
JOINERS = "\u200c\u200d"
BLACK_FLAG, END_OF_TAGS = "\U0001f3f4", "\U000e007f"


class Config(FilterConfig):
    """Where to look."""

    kind: Literal["hidden_unicode"] = "hidden_unicode"
    prompts: bool = False
    """Look into the prompt too, not into answer and reasoning alone."""


def keep(rows: list[dict[str, Any]], config: Config) -> list[str]:
    """``bidi``, ``blank``, ``joiner``, ``tag``, ``selector``, ``control``, ``private_use``, ``replacement`` or ""."""
    return [_first(_text(row, config)) for row in rows]


def _text(row: dict[str, Any], config: Config) -> str:
    parts = [row["answer"], row["reasoning"], *([conversation(row)] if config.prompts else [])]
    return "\n".join(parts)


def _first(text: str) -> str:
    if text.isascii() and text.isprintable():
        return ""
    for place, char in enumerate(text):
        if (char > "\x7e" or char < " ") and (reason := _reason(text, place, char)):
            return reason
    return ""


def _reason(text: str, place: int, char: str) -> str:
    """Why this character does not belong in a text, or ""."""
    code = ord(char)
    if char in BIDI:
        return "bidi"
    if char in BLANK:
        return "blank"
    if char in JOINERS:
        return "" if _joins(text, place) else "joiner"
    if 0xE0000 <= code <= 0xE007F:
        return "" if _in_flag(text, place) else "tag"
    if 0xE0100 <= code <= 0xE01EF:
        return "selector"
    if char == "\ufffd":
        return "replacement"
    category = unicodedata.category(char)
    if category == "Cc" and char not in "\t\n\r":
        return "control"
    return "private_use" if category in ("Co", "Cs", "Cn") else ""


def _joins(text: str, place: int) -> bool:
    """A joiner belongs between two characters that are not ASCII: scripts that need it, and emoji."""
    return 0 < place < len(text) - 1 and text[place - 1] > "\x7f" and text[place + 1] > "\x7f"


def _in_flag(text: str, place: int) -> bool:
    """Tag characters spell out the flags of regions: a black flag, tags, the closing tag."""
    start = text.rfind(BLACK_FLAG, max(0, place - 8), place)
    end = text.find(END_OF_TAGS, place, place + 8)
    return start >= 0 and end >= 0 and all(0xE0020 <= ord(c) <= 0xE007F for c in text[start + 1 : end + 1])
