"""Trackers beside metrics.jsonl, through accelerate. The log is the truth; a tracker is a view of it."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from distill.errors import EnvironmentProblem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distill.config import RunConfig


def check_installed(names: Sequence[str]) -> None:
    """Raise EnvironmentProblem for a tracker that is not installed: accelerate would leave it out in silence."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise EnvironmentProblem(
            f"train.trackers names {', '.join(missing)}, not installed here", next=f"pip install {' '.join(missing)}"
        )


def start(accelerator: Any, config: RunConfig) -> None:
    """Tell the trackers about the run: its name and its training settings."""
    if config.train.trackers:
        plain = {k: v for k, v in config.train.model_dump(mode="json").items() if isinstance(v, int | float | str)}
        accelerator.init_trackers(config.name, config={"seed": config.seed, **plain})


def record(accelerator: Any, values: dict[str, Any]) -> None:
    """Pass one line of metrics.jsonl on."""
    accelerator.log({k: v for k, v in values.items() if k != "step"}, step=values["step"])
