"""What a run really took, line by line beside its plan."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from distill.artifacts import RunFolder


def compare(plan: dict[str, Any], folder: RunFolder) -> list[dict[str, Any]]:
    """Rows of (what, planned, actual, share by which the actual is above the plan); [] when nothing was run there."""
    card, student = _read(folder.data_card), _read(folder.student / "student.json")
    teacher, work = plan["teacher"], plan["training"] or {}
    tokens, cost = card.get("tokens", {}), card.get("cost", {})
    found = (
        ("prompts", plan["prompts"]["used"], card.get("rows", {}).get("prompts")),
        ("answers of the teacher", teacher["asked"], card.get("answers")),
        ("teacher's input tokens", teacher["prompt"][1], tokens.get("prompt")),
        ("teacher's output tokens", teacher["completion"][1], tokens.get("completion")),
        ("teacher, EUR", teacher["expected_eur"] if teacher["paid"] else None, cost.get("eur")),
        ("training rows", work.get("rows"), student.get("rows")),
        ("training steps", work.get("steps"), student.get("steps")),
        ("training tokens", work.get("tokens"), student.get("tokens")),
    )
    rows = [(what, _number(planned), _number(actual)) for what, planned, actual in found]
    return [
        {"what": what, "planned": planned, "actual": actual, "above": actual / planned - 1 if planned else None}
        for what, planned, actual in rows
        if planned is not None and actual is not None
    ]


def recorded(folder: RunFolder) -> list[dict[str, Any]]:
    """The lines for the plan that `distill run` wrote before it began; [] without one."""
    try:
        return compare(_read(folder.path / "plan.json"), folder)
    except (KeyError, TypeError):
        return []


def _number(value: Any) -> float | None:
    """A count or an exact amount as text; None for anything else."""
    try:
        return None if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
