"""Drop answers that hold personal data: e-mail addresses, phone numbers, bank accounts, payment cards."""

from __future__ import annotations

from typing import Any, Literal

from distill.generate.filters._base import FilterConfig
from distill.generate.filters._text import conversation
from distill.prompts.personal_data import KINDS, MADE_UP, Kind, kinds_in


class Config(FilterConfig):
    """What to look for, and where."""

    kind: Literal["pii"] = "pii"
    find: tuple[Kind, ...] = KINDS
    """Kinds of personal data."""
    prompts: bool = False
    """Look into the prompt too, not into answer and reasoning alone (`prompts.personal_data` looks before sending)."""
    allow_domains: tuple[str, ...] = MADE_UP
    """E-mail addresses at these domains are made up and allowed."""


def keep(rows: list[dict[str, Any]], config: Config) -> list[str]:
    """The first kind found (``email``, ``iban``, ``card``, ``phone``) or ""."""
    return [next(iter(kinds_in(_text(row, config), config.find, config.allow_domains)), "") for row in rows]


def _text(row: dict[str, Any], config: Config) -> str:
    return "\n".join([row["answer"], row["reasoning"], *([conversation(row)] if config.prompts else [])])
