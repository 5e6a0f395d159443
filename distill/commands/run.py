"""`distill run`: a loop over the stages. A stage whose inputs are unchanged is skipped."""

from __future__ import annotations

import importlib
import os
import time
from typing import TYPE_CHECKING, Protocol, cast

from distill.artifacts import RunFolder, open_run, rank, sha256_file, stage_key
from distill.commands._config import add_config_arguments, load_config, run_path
from distill.errors import ConfigError, EnvironmentProblem
from distill.progress import say

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from pathlib import Path

    from distill.config import RunConfig

# In order. `evals` is named only here and in cli.COMMANDS, as text: the package stands beside `distill`.
STAGES = {
    "generate": "distill.generate.run",
    "train": "distill.train.run",
    "eval": "evals.run",
    "release": "distill.release.run",
}


class Stage(Protocol):
    """What a stage module holds."""

    VERSION: int
    """Raised when the stage's code changes what it writes."""
    SETTINGS: tuple[str, ...]
    """Top-level settings it depends on."""
    AFTER: tuple[str, ...]
    """Earlier stages whose outputs it reads."""

    def inputs(self, config: RunConfig) -> list[Path]:
        """Files outside the run folder that it reads."""

    def run(self, config: RunConfig, folder: RunFolder) -> Sequence[Path]:
        """Do the work; return the files and folders written."""


def load_stage(name: str) -> Stage:
    """The stage module."""
    return cast("Stage", importlib.import_module(STAGES[name]))


def key_of(stage: Stage, config: RunConfig, folder: RunFolder) -> str:
    """Hash of everything the stage depends on."""
    files = dict.fromkeys(path for path in stage.inputs(config) if path.is_file())
    hashes = {str(number): sha256_file(path) for number, path in enumerate(files)}
    return stage_key(stage.VERSION, config.settings(*stage.SETTINGS), hashes | folder.output_hashes(*stage.AFTER))


def run_stage(name: str, config: RunConfig, folder: RunFolder) -> bool:
    """Run one stage unless its inputs are unchanged; True when it ran."""
    stage = load_stage(name)
    key = key_of(stage, config, folder)
    if folder.is_done(name, key):
        say(f"{name}: unchanged, skipped")
        return False
    started = time.monotonic()
    say(f"{name}: started")
    outputs = stage.run(config, folder)
    if rank() > 0:
        return True
    folder.finish(name, key, outputs, seconds=round(time.monotonic() - started, 1))
    say(f"{name}: done in {time.monotonic() - started:.1f} s")
    return True


def alone(command: str) -> None:
    """Raise EnvironmentProblem when torchrun started several processes: only training is shared out."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise EnvironmentProblem(
            f"`distill {command}` runs in one process; only `train` is shared out by torchrun",
            next="distill generate CONFIG; torchrun --nproc_per_node N -m distill train CONFIG; distill run CONFIG",
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `distill run`."""
    add_config_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """All stages in order, then the summary."""
    from distill.commands import _actual, _summary

    config = load_config(args)
    alone("run")
    if not config.eval.tasks:
        raise ConfigError(
            "eval.tasks is empty: the student would be trained and never compared",
            where=str(args.config),
            next="name a task: eval.tasks: [{kind: classification, path: test.jsonl}]",
        )
    with open_run(run_path(args, config)) as folder:
        _summary.write_config(config, folder)
        _actual.write_plan(config, folder)
        for name in STAGES:
            run_stage(name, config, folder)
        _summary.show(config, folder)
    return 0
