"""`distill salvage`: every intact answer of a damaged store, as a new store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from distill.artifacts import RunFolder
from distill.errors import ConfigError

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `distill salvage`."""
    parser.add_argument("run", type=Path, help="the run folder, runs/NAME")


def main(args: argparse.Namespace) -> int:
    """Print what was kept and what is lost."""
    from distill.query import ledger
    from distill.query.salvage import salvage

    path = RunFolder(args.run).db
    if not path.exists():
        raise ConfigError("there is no run.db here", where=str(args.run), next="name a run folder: runs/NAME")
    found = salvage(path)
    print(f"{found.kept} answers kept; the damaged file is {found.damaged.name}")
    if found.lost:
        print(f"{found.lost} paid answers are lost ({found.lost_nano / ledger.NANO:.6f} EUR, still charged to the run)")
    print("the same `distill run` goes on: only what is lost is asked again")
    return 0
