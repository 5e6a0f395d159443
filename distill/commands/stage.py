"""`distill generate|train|eval|release`: one stage, with the earlier ones it needs already done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill.artifacts import open_run
from distill.commands import run
from distill.commands._config import add_config_arguments, load_config, run_path
from distill.commands._summary import write_config
from distill.errors import DataError

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of a single-stage command."""
    add_config_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Run the stage the command names. Refused when a stage before it has not been run."""
    config = load_config(args)
    with open_run(run_path(args, config)) as folder:
        done = folder.read_manifest()
        for earlier in run.load_stage(args.command).AFTER:
            if earlier not in done:
                raise DataError(
                    f"the stage {earlier!r} has not been run",
                    where=str(folder.path),
                    next=f"distill {earlier} {args.config}",
                )
        write_config(config, folder)
        run.run_stage(args.command, config, folder)
    return 0
