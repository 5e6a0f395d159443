"""`distill plan --prove`: the training's own proof, before anything is asked or paid."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill import models
from distill.artifacts import RunFolder
from distill.errors import EnvironmentProblem
from distill.generate import writing

if TYPE_CHECKING:
    from pathlib import Path

    from distill.config import RunConfig


def prove(config: RunConfig, run: Path) -> list[str]:
    """What was shown. Raises what the run would raise before its first step; EnvironmentProblem without the weights."""
    from distill.train import rehearsal

    names = [config.student.model, *([config.teacher.model] if config.teacher.kind == "transformers" else [])]  # type: ignore[attr-defined]
    folders = [
        config.resolve(name.removeprefix("path:")) if name.startswith("path:") else models.cached(name)
        for name in names
    ]
    absent = [name for name, folder in zip(names, folders, strict=True) if folder is None]
    if absent or folders[0] is None:
        raise EnvironmentProblem(
            f"the weights of {', '.join(absent)} are not here, and a plan fetches nothing",
            where="distill plan --prove",
            next="distill generate brings them, or distill plan without --prove",
        )
    asked = [prompt.messages for prompt in writing.preview(config, config.student_prompts())[0].prompts]
    return rehearsal.prove(config, asked, folders[0], RunFolder(run))
