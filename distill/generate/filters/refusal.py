"""Drop answers in which the teacher declines, in the 24 official languages of the EU."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from distill.folding import folded
from distill.generate.filters._base import FilterConfig
from distill.refusals import WINDOW, beginning, refused


class Config(FilterConfig):
    """How much of the answer is read."""

    kind: Literal["refusal"] = "refusal"
    window: Annotated[int, Field(ge=20)] = WINDOW
    """A refusal comes at the beginning: only this many characters are searched."""
    phrases: tuple[str, ...] = ()
    """Your own phrases, beside the built-in ones."""


def keep(rows: list[dict[str, Any]], config: Config) -> list[str]:
    """The refusal's language code (``own`` for your own phrases) or ""."""
    own = tuple(folded(phrase) for phrase in config.phrases)
    return [_language(row["answer"], own, config.window) for row in rows]


def _language(answer: str, own: tuple[str, ...], window: int) -> str:
    if own and any(phrase in beginning(answer, window) for phrase in own):
        return "own"
    return refused(answer, window)
