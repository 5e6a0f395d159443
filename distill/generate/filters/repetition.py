"""Drop answers that run in a loop, or that say the same words over and over."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from distill.generate.filters._base import FilterConfig
from distill.generate.filters._text import words

TAIL = 4_000


class Config(FilterConfig):
    """When a repetition is a loop."""

    kind: Literal["repetition"] = "repetition"
    min_repeats: Annotated[int, Field(ge=2)] = 4
    """A piece that comes this often in a row at the end is a loop ..."""
    min_characters: Annotated[int, Field(ge=1)] = 40
    """... if all its repeats together are at least this long, in characters."""
    max_share: Annotated[float, Field(gt=0, lt=1)] = 0.6
    """Largest share of four-word sequences that came before in the same answer (from 40 words on)."""


def keep(rows: list[dict[str, Any]], config: Config) -> list[str]:
    """``loop``, ``repeated_words`` or ""."""
    return [_judge(row["answer"], config) for row in rows]


def _judge(answer: str, config: Config) -> str:
    if _loops(answer.rstrip()[-TAIL:], config):
        return "loop"
    parts = words(answer)
    if len(parts) < 40:
        return ""
    grams = list(zip(parts, parts[1:], parts[2:], parts[3:], strict=False))
    return "repeated_words" if 1 - len(set(grams)) / len(grams) > config.max_share else ""


def _loops(tail: str, config: Config) -> bool:
    """True when the tail ends in ``min_repeats`` copies of one piece; the last copy may be unfinished."""
    backwards = tail[::-1]
    reach = _prefix_matches(backwards)
    return any(
        period + reach[period] >= max(config.min_repeats * period, config.min_characters)
        for period in range(1, len(backwards) // config.min_repeats + 1)
    )


def _prefix_matches(text: str) -> list[int]:
    """For each place, how many characters from there equal the beginning of the text (the Z algorithm, Gusfield)."""
    size = len(text)
    reach = [0] * (size + 1)
    left = right = 0
    for place in range(1, size):
        known = min(right - place, reach[place - left]) if place < right else 0
        while place + known < size and text[known] == text[place + known]:
            known += 1
        reach[place] = known
        if place + known > right:
            left, right = place, place + known
    return reach
