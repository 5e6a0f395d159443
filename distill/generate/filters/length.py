"""Keep answers whose length lies between two bounds."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from distill.generate.filters._base import FilterConfig


class Config(FilterConfig):
    """Bounds on the stripped answer."""

    kind: Literal["length"] = "length"
    min_characters: Annotated[int, Field(ge=0)] = 1
    """Shortest answer, in characters."""
    max_characters: Annotated[int, Field(ge=1)] | None = None
    """Longest answer, in characters. None = no bound."""

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Config:
        if self.max_characters is not None and self.max_characters < self.min_characters:
            raise ValueError(f"max_characters ({self.max_characters}) is below min_characters ({self.min_characters})")
        return self


def keep(rows: list[dict[str, Any]], config: Config) -> list[str]:
    """``too_short``, ``too_long`` or ""."""
    return [_judge(len(row["answer"].strip()), config) for row in rows]


def _judge(size: int, config: Config) -> str:
    if size < config.min_characters:
        return "too_short"
    return "too_long" if config.max_characters is not None and size > config.max_characters else ""
