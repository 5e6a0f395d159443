"""A verifier file: ``Config`` and ``check(row, config) -> str``: "" when the answer passes, else the reason.

``row`` is a dict with ``id cluster lang messages answer reasoning finish meta``; ``meta`` holds the fields of the
prompt row, so the right answer can stand beside the question.
"""

from __future__ import annotations

from distill.plugins import PluginConfig


class VerifierConfig(PluginConfig):
    """Base of a verifier's settings."""
