"""Drop answers in which the teacher declines, in the 24 official languages of the EU."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from distill.generate.filters._base import FilterConfig
from distill.generate.filters._refusals import PHRASES
from distill.generate.filters._text import folded

FOLDED = {lang: tuple(folded(phrase) for phrase in phrases) for lang, phrases in PHRASES.items()}


class Config(FilterConfig):
    """How much of the answer is read."""

    kind: Literal["refusal"] = "refusal"
    window: Annotated[int, Field(ge=20)] = 160
    """A refusal comes at the beginning: only this many characters are searched."""
    phrases: tuple[str, ...] = ()
    """Your own phrases, beside the built-in ones."""


def keep(rows: list[dict[str, Any]], config: Config) -> list[str]:
    """The refusal's language code (``own`` for your own phrases) or ""."""
    own = tuple(folded(phrase) for phrase in config.phrases)
    return [_language(folded(row["answer"][: 2 * config.window])[: config.window], own) for row in rows]


def _language(start: str, own: tuple[str, ...]) -> str:
    if any(phrase in start for phrase in own):
        return "own"
    return next((lang for lang, phrases in FOLDED.items() if any(phrase in start for phrase in phrases)), "")
