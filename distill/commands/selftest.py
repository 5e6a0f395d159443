"""`distill selftest`: what the promises of the store are worth on this disk."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from distill.errors import ConfigError, IntegrityError

if TYPE_CHECKING:
    import argparse

    from distill.query.crash import Figures, Speed

FAST_SYNC_MS = 0.05


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `distill selftest`."""
    parser.add_argument("--crash", action="store_true", help="kill a process that asks a teacher, again and again")
    parser.add_argument("--kills", type=int, default=100, metavar="N", help="how often (default 100)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default 0)")
    parser.add_argument("folder", type=Path, nargs="?", default=Path(), help="on the disk to test (default: here)")


def main(args: argparse.Namespace) -> int:
    """Run the campaign in a folder of its own below ``folder`` and print the figures. Raises IntegrityError."""
    if not args.crash:
        raise ConfigError("say what to test", next="distill selftest --crash")
    if args.kills < 1:
        raise ConfigError("--kills must be at least 1", next="distill selftest --crash --kills 100")
    if not args.folder.is_dir():
        raise ConfigError("is not a folder", where=str(args.folder), next="name a folder on the disk to test")
    from distill.progress import progress
    from distill.query import crash

    with tempfile.TemporaryDirectory(prefix=".distill-selftest-", dir=args.folder) as name:
        with progress("selftest", args.kills, "kills") as bar:
            done = 0

            def told(figures: Figures) -> None:
                nonlocal done
                bar.advance(figures.kills - done)
                done = figures.kills

            figures = crash.campaign(Path(name), args.kills, seed=args.seed, concurrency=CONCURRENCY, told=told)
        speed = crash.speed(Path(name))
    _show(figures, speed)
    if broken := figures.broken(CONCURRENCY):
        what = ", ".join(f"{name} {value}" for name, value in broken.items())
        raise IntegrityError(f"promises were broken on this disk: {what}", next="keep run folders on another disk")
    return 0


CONCURRENCY = 16


def _show(figures: Figures, speed: Speed) -> None:
    rows = [
        ("kills, of them with calls in flight", f"{figures.kills}, {figures.at_work}"),
        ("rows acknowledged", f"{figures.committed}"),
        ("acknowledged rows lost", f"{figures.lost}"),
        ("acknowledged rows asked again", f"{figures.sent_again}"),
        ("most calls billed twice by one kill", f"{figures.most_twice} (in flight: {CONCURRENCY})"),
        ("ledger against the teacher's log", f"{figures.ledger_difference} nano-EUR apart"),
        ("billed and not covered", f"{figures.uncovered} nano-EUR"),
        ("contradictions in a store", f"{figures.contradictions}"),
        (
            "durable rows per second",
            f"{speed.rows_per_s:.0f} ({speed.rows} rows of 3.6 kB, {speed.in_flight} in flight)",
        ),
        ("one sync of this disk", f"{speed.sync_ms:.2f} ms (median)"),
    ]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")
    if speed.sync_ms < FAST_SYNC_MS:
        print("this disk answers a sync faster than a disk can: it lies in memory, or keeps data in a volatile cache")
    print("a power cut cannot be tried from here: see docs/durability.md")
