"""The answer matches a pattern."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from distill.generate.verifiers._base import VerifierConfig


class Config(VerifierConfig):
    """The pattern, in Python's notation."""

    kind: Literal["regex"] = "regex"
    pattern: Annotated[str, Field(min_length=1)]
    """Regular expression."""
    whole: bool = True
    """The stripped answer must match from beginning to end; otherwise anywhere."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        return pattern


def check(row: dict[str, Any], config: Config) -> str:
    """``no_match`` or ""."""
    pattern, answer = re.compile(config.pattern), row["answer"].strip()
    return "" if (pattern.fullmatch(answer) if config.whole else pattern.search(answer)) else "no_match"
