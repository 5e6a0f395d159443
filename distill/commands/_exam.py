"""What the evaluation can show with the items it has."""

from __future__ import annotations

import importlib
import math
from typing import TYPE_CHECKING, Any

from distill import plugins

if TYPE_CHECKING:
    from distill.config import RunConfig
    from distill.records import Request

Z_TWO_SIDED, Z_ONE_SIDED, Z_POWER = 1.959964, 1.644854, 0.841621  # 5 % two- and one-sided, 80 % power
DISAGREE = (0.1, 0.2, 0.3)


def examination(config: RunConfig) -> tuple[list[dict[str, Any]], list[Request]]:
    """(each task's items and what they can show, the questions). Raises DataError for an unusable task file."""
    base: Any = importlib.import_module("evals.tasks._base")  # by name: the package stands beside this one
    rows, questions = [], []
    for task in config.eval.tasks:
        module = plugins.load("evals.tasks", task.kind)
        settings = base.completed(task, config.prompts, config.generate.max_new_tokens)
        items = base.select(module.examples(settings, config.resolve(settings.path)), settings, config.seed)
        questions += [module.prompt(item, settings) for item in items]
        rows.append(
            {
                "task": settings.title,
                "items": len(items),
                "clusters": len({item.cluster for item in items}),
                "visible_drop": {str(p): smallest_visible_drop(len(items), p) for p in DISAGREE},
                "margin": config.eval.margin,
                "items_for_margin": {str(p): items_for_margin(config.eval.margin, p) for p in DISAGREE},
            }
        )
    return rows, questions


def smallest_visible_drop(items: int, disagree: float) -> float:
    """Difference in accuracy that a paired test of ``items`` finds with 80 % power at 5 %, two-sided.

    ``disagree``: share of the items on which exactly one of the two systems is right.
    """
    z = (Z_TWO_SIDED + Z_POWER) ** 2
    return min(1.0, math.sqrt(z * disagree / (max(items, 1) + z)))


def items_for_margin(margin: float, disagree: float) -> int:
    """Items after which two equal systems pass a non-inferiority test with this margin (one-sided 5 %, 80 % power)."""
    return math.ceil((Z_ONE_SIDED + Z_POWER) ** 2 * disagree / margin**2)
