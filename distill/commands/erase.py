"""`distill erase`: take a person's prompts and answers out of a run, for good."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from distill.artifacts import open_run
from distill.errors import ConfigError, DataError

if TYPE_CHECKING:
    import argparse

    from distill.artifacts import RunFolder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `distill erase`."""
    parser.add_argument("run", type=Path, help="the run folder, runs/NAME")
    parser.add_argument("--id", action="append", default=[], metavar="ID", help="of a prompt; may be repeated")
    parser.add_argument(
        "--text", action="append", default=[], metavar="TEXT", help="whatever holds it; may be repeated"
    )


def main(args: argparse.Namespace) -> int:
    """Print what was erased, what is made anew, and what still learnt from it."""
    if not (args.run / "run.db").exists():
        raise ConfigError("there is no run.db here", where=str(args.run), next="name a run folder: runs/NAME")
    if not args.id and not args.text:
        raise ConfigError("say what to erase", next="distill erase RUN --id ID, or --text TEXT")
    from distill.query import erase
    from distill.query.store import Store

    with open_run(args.run) as folder:
        keys = _of_ids(folder, set(args.id)) if args.id else set()
        with Store(folder.db):  # what an earlier process left is in the store from here on
            pass
        for text in args.text:
            keys |= erase.holding(folder.db, text)
        with Store(folder.db) as store:
            count = erase.erase(store, keys)
        gone = _derived(folder) if count else []
    print(f"{count} requests and their answers are erased; their cost stays in the ledger")
    if gone:
        print(f"removed, and made anew by `distill run` without asking again: {', '.join(gone)}")
    learnt = [name for name in ("student", "checkpoints", "release") if (args.run / name).exists()]
    if count and learnt:
        print(f"trained before, so what they learnt from it is still in: {', '.join(learnt)}")
    if count:
        print("take the rows out of your prompt file, too: a request that was erased is refused, never asked again")
    return 0


def _of_ids(folder: RunFolder, ids: set[str]) -> set[str]:
    """Request keys of the prompts with these ids. Raises DataError when one is not there."""
    import pyarrow.parquet

    keys, seen = set(), set()
    for path in (folder.train_data, folder.holdout_data, folder.rejects):
        if path.exists():
            for row in pyarrow.parquet.read_table(path, columns=["id", "request_key"]).to_pylist():
                if row["id"] in ids:
                    keys.add(row["request_key"])
                    seen.add(row["id"])
    if missing := sorted(ids - seen):
        raise DataError(
            f"no answer of a prompt with id {missing[0]!r}",
            where=str(folder.path),
            next="distill erase RUN --text TEXT",
        )
    return keys


def _derived(folder: RunFolder) -> list[str]:
    """Remove every file that was made from the store; their names."""
    gone = []
    for path in (folder.train_data.parent, folder.signals, folder.eval, *folder.report_pages, folder.manifest):
        if path.is_dir():
            shutil.rmtree(path)
        elif path.exists():
            path.unlink()
        else:
            continue
        gone.append(path.name)
    return gone
