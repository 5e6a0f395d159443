"""`distill release`: build the client bundle; with --compare, hold it to an earlier one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from distill.commands import stage
from distill.errors import ConfigError

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of a stage, and the release to compare with."""
    stage.add_arguments(parser)
    parser.add_argument(
        "--compare",
        type=Path,
        metavar="PREVIOUS",
        help="bundle of an earlier release: show what changed; a student worse by more than eval.margin is refused",
    )
    parser.epilog = (
        "CONFIG may be a finished bundle with --compare: nothing is built then.\n"
        "exit codes: 0 built, and not worse; 20 worse than PREVIOUS; 21 too few items to tell; 6 PREVIOUS damaged"
    )


def main(args: argparse.Namespace) -> int:
    """Build, or compare two bundles. Raises GateFailed, GateInconclusive and what a stage raises."""
    if args.compare is None:
        return stage.main(args)
    if args.config.is_dir():
        return _compare(args.config, args.compare)
    # As the setting is read: from the configuration's folder. An absolute path would make each place's bundle another.
    previous = Path(os.path.relpath(args.compare, args.config.resolve().parent)).as_posix()
    args.overrides = [*args.overrides, f"release.previous={json.dumps(previous)}"]
    return stage.main(args)


def _compare(new: Path, old: Path) -> int:
    """Print what changed from ``old`` to ``new``, then hold the new student to the margin of its own run."""
    from distill.release import previous

    try:
        margin = float(json.loads((new / "config" / "run.json").read_bytes())["config"]["eval"]["margin"])
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError("neither a configuration nor a bundle", where=str(new)) from None
    changes = previous.compare(new, old, margin)
    print(previous.markdown(changes, new.resolve().name), end="")
    previous.gate(changes)
    return 0
