"""CONFIG [key=value ...] [--out DIR]: the shape every command on a run has."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from distill import config as configuration

if TYPE_CHECKING:
    import argparse


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """The configuration file, overrides, and the run folder."""
    parser.add_argument("config", type=Path, metavar="CONFIG", help="YAML file of the run")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for example train.lr=2e-5")
    parser.add_argument("--out", type=Path, metavar="DIR", help="run folder (default: runs/NAME)")


def load_config(args: argparse.Namespace, *, fetch: bool = True) -> configuration.RunConfig:
    """The validated configuration the arguments name, its method chosen where it says `auto`.

    ``fetch``: weights may be brought here to choose by.
    """
    config = configuration.load(args.config, args.overrides)
    if config.train.method != "auto":
        return config
    from distill.commands import _method
    from distill.progress import say

    choice = _method.choose(config, fetch=fetch)
    say(f"train.method auto: {choice.method}, {choice.why}")
    return config.with_method(choice.method)


def run_path(args: argparse.Namespace, config: configuration.RunConfig) -> Path:
    """The run folder the arguments name."""
    return Path(args.out) if args.out else Path("runs") / config.name
