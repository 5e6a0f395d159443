"""`distill generate|train|eval|release`: one stage, with the earlier ones it needs already done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill.artifacts import open_run, rank
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
    if args.command != "train":
        run.alone(args.command)
    with open_run(run_path(args, config)) as folder:
        for earlier in run.load_stage(args.command).AFTER:
            if not folder.is_done(earlier, run.key_of(run.load_stage(earlier), config, folder)):
                raise DataError(
                    f"the stage {earlier!r} has not been run with these settings",
                    where=str(folder.path),
                    next=" ".join(["distill", earlier, str(args.config), *args.overrides]),
                )
        if rank() == 0:
            write_config(config, folder)
        run.run_stage(args.command, config, folder)
    return 0
