"""The answer equals a field of the prompt row."""

from __future__ import annotations

import unicodedata
from typing import Any, Literal

from distill.generate.verifiers._base import VerifierConfig


class Config(VerifierConfig):
    """Which field, and which differences do not matter."""

    kind: Literal["exact"] = "exact"
    field: str = "expected"
    """Field of the prompt row that holds the right answer, or a list of right answers."""
    ignore_case: bool = True
    """Upper and lower case are the same."""


def check(row: dict[str, Any], config: Config) -> str:
    """``wrong``, ``no_expected_answer`` or "". Spaces and Unicode composition do not matter."""
    expected = row["meta"].get(config.field)
    if expected is None:
        return "no_expected_answer"
    right = expected if isinstance(expected, list) else [expected]
    return "" if _plain(row["answer"], config) in {_plain(str(one), config) for one in right} else "wrong"


def _plain(text: str, config: Config) -> str:
    plain = " ".join(unicodedata.normalize("NFC", text).split())
    return plain.casefold() if config.ignore_case else plain
