"""The answer is one of the legal texts."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from distill.generate.verifiers._base import VerifierConfig


class Config(VerifierConfig):
    """The legal texts: the same for all rows, or named by each row."""

    kind: Literal["choice"] = "choice"
    choices: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Legal answers. Empty = the row's own list."""
    field: str = "choices"
    """Field of the prompt row that lists its legal answers."""


def check(row: dict[str, Any], config: Config) -> str:
    """``not_a_choice``, ``no_choices`` or "". Spaces around the answer do not matter; case does."""
    legal = config.choices or row["meta"].get(config.field)
    if not isinstance(legal, list | tuple) or not legal:
        return "no_choices"
    return "" if row["answer"].strip() in {str(text) for text in legal} else "not_a_choice"
