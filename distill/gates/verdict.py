"""One finding about one part of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from distill.catalog import rows

STRICTNESS: tuple[str, ...] = get_args(rows.Verdict)
"""From best to worst."""


@dataclass(frozen=True)
class Verdict:
    """What was found, why, and what would change it."""

    kind: Literal["licence", "region", "name"]
    role: str
    """`teacher` (`teacher 2` ... of a mix), `student base`, `prompts`, or the part that asks a model."""
    subject: str
    verdict: rows.Verdict
    why: str
    rows: tuple[str, ...] = ()
    """Ids of the licence rows it rests on."""
    obligations: tuple[str, ...] = ()
    unblock: str = ""
    source: str = ""
    waiver: str = ""
    """Who took it upon them, when and why; empty = nobody needed to."""

    @property
    def passes(self) -> bool:
        """True when the run may go on."""
        return self.verdict in ("allowed", "allowed_with_obligations") or bool(self.waiver)

    def __str__(self) -> str:
        return f"{self.role} {self.subject}: {self.verdict.replace('_', ' ')}: {self.why}"
