"""What a run really took, line by line beside its plan."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from distill.artifacts import RunFolder

if TYPE_CHECKING:
    from pathlib import Path


def compare(plan: dict[str, Any], path: Path) -> list[dict[str, Any]]:
    """Rows of (what, planned, actual, share by which the actual is above the plan); [] when nothing was run there."""
    folder = RunFolder(path)
    card, student = _read(folder.data_card), _read(folder.student / "student.json")
    teacher, work = plan["teacher"], plan["training"] or {}
    tokens, cost = card.get("tokens", {}), card.get("cost", {})
    found = (
        ("prompts", plan["prompts"]["used"], card.get("rows", {}).get("prompts")),
        ("teacher's input tokens", teacher["prompt"][1], tokens.get("prompt")),
        ("teacher's output tokens", teacher["completion"][1], tokens.get("completion")),
        ("teacher, EUR", teacher["expected_eur"] if teacher["paid"] else None, cost.get("eur")),
        ("training rows", work.get("rows"), student.get("rows")),
        ("training steps", work.get("steps"), student.get("steps")),
    )
    return [
        {"what": what, "planned": planned, "actual": actual, "above": actual / planned - 1 if planned else None}
        for what, planned, actual in found
        if planned is not None and actual is not None
    ]


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
