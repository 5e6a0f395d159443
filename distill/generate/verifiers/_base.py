"""A verifier file: ``Config`` and ``check(row, config) -> str``: "" when the answer passes, else the reason.

``row`` is a dict with ``id cluster lang messages answer reasoning finish meta``; ``meta`` holds the fields of the
prompt row, so the right answer can stand beside the question.

A verifier that asks a model has ``check_all(rows, config, desk) -> list[tuple[str, float | None]]`` instead: reason and
score of each row still standing, through the desk's store and budget.
"""

from __future__ import annotations

from typing import ClassVar

from distill.plugins import PluginConfig


class VerifierConfig(PluginConfig):
    """Base of a verifier's settings."""

    SCORES: ClassVar[bool] = False
    """Gives scores that `generate.select: best` can compare."""
