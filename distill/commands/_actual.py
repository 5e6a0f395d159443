"""The plan that a run is compared with: written before it begins, read beside what it took."""

from __future__ import annotations

import importlib
import json
from typing import TYPE_CHECKING, Any

from distill.artifacts import RunFolder, write_json
from distill.errors import DistillError

if TYPE_CHECKING:
    from pathlib import Path

    from distill.config import RunConfig

PLAN = "plan.json"


def compare(plan: dict[str, Any], path: Path) -> list[dict[str, Any]]:
    """Rows of (what, planned, actual, share by which the actual is above the plan); [] when nothing was run there."""
    rows: list[dict[str, Any]] = importlib.import_module("evals.planned").compare(plan, RunFolder(path))
    return rows


def write_plan(config: RunConfig, folder: RunFolder) -> None:
    """Write plan.json, unless the folder has this configuration's. What cannot be planned, the stages explain."""
    from distill.commands import plan

    path = folder.path / PLAN
    try:
        if json.loads(path.read_text("utf-8"))["config_sha256"] == config.hash():
            return
    except (OSError, ValueError, KeyError, TypeError):
        pass  # none yet, or a damaged one
    try:
        facts, _ = plan.build(config, plan.GPUS, 1, plan.ZONE, plan.VOLUME, 0.0)
    except DistillError:
        return
    write_json(path, facts)
