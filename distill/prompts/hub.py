"""A data set of a model hub: the Parquet files of one split at one commit. Nothing of it is run.

``hub:OWNER/NAME@REVISION:SPLIT``. A split is a file (``train.parquet``), files (``data/train-00000-of-00002.parquet``)
or a folder (``refs/convert/parquet`` has ``default/train/0000.parquet``); ``FOLDER/SPLIT`` where several have one.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from distill import models
from distill.artifacts import new_folder, write_json
from distill.errors import ConfigError, DataError
from distill.models import hub
from distill.progress import say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

FORM = re.compile(r"hub:(?P<id>[\w.-]+/[\w.-]+)@(?P<revision>[\w./-]+)(?::(?P<split>[\w./-]+))?")
PART = re.compile(r"-\d+-of-\d+(-\w+)?$")
RECORD = "source.json"


def locate(path: str, resolve: Callable[[str], Path]) -> Path:
    """Where the rows lie on this disk: a path of the configuration, or a data set of the hub, fetched once.

    Raises ConfigError, DataError (no Parquet, no such split), EnvironmentProblem (not reachable).
    """
    if not path.startswith("hub:"):
        return resolve(path)
    match = FORM.fullmatch(path)
    if match is None:
        raise ConfigError(f"cannot read {path!r}", where="prompts.path", next="hub:OWNER/NAME@COMMIT:SPLIT")
    entry = models.cache_dir() / "datasets" / re.sub(r"[^0-9A-Za-z.@-]+", "--", path.removeprefix("hub:"))
    if not (entry / RECORD).exists():
        _fetch(path, match["id"], match["revision"], match["split"] or "", entry)
    return entry / "rows"


def _fetch(source: str, name: str, revision: str, split: str, entry: Path) -> None:
    info = hub.reach(name, revision, "dataset")
    wanted = files_of(split, [file.rfilename for file in info.siblings or ()], source)
    commit = str(info.sha)
    if revision != commit:
        say(f"{source} is not pinned: taking commit {commit}")
    work = entry.parent.parent / "work" / f"{entry.name}-{commit[:12]}"
    hub.download(name, commit, work, "dataset", allow_patterns=[re.sub(r"([*?\[])", r"[\1]", file) for file in wanted])
    stated = getattr(info.card_data, "license", None) if info.card_data else None
    with new_folder(entry) as folder:
        (folder / "rows").mkdir()
        for number, file in enumerate(wanted):
            (work / file).rename(folder / "rows" / f"{number:05d}.parquet")
        record = {"source": source, "revision": commit, "licence": stated, "files": wanted}
        write_json(folder / RECORD, record)
    shutil.rmtree(work, ignore_errors=True)


def files_of(split: str, names: Iterable[str], where: str) -> list[str]:
    """The split's Parquet files, sorted. Raises DataError when there is none, or not clear which is meant."""
    parquet = sorted(name for name in names if name.endswith(".parquet"))
    if not parquet:
        raise DataError(
            "the data set has no Parquet files",
            where=where,
            next="@refs/convert/parquet, where the hub keeps a copy of them",
        )
    splits: dict[str, list[str]] = {}
    for name in parquet:
        splits.setdefault(_split_of(PurePosixPath(name)), []).append(name)
    fits = [key for key in splits if not split or key == split or key.endswith("/" + split)]
    if len(fits) != 1:
        what = f"it has {len(fits) or 'no'} such splits" if split else "it has several splits"
        raise DataError(
            f"{what}; name one: {', '.join(sorted(splits))}", where=where, next="hub:OWNER/NAME@COMMIT:SPLIT"
        )
    return splits[fits[0]]


def _split_of(path: PurePosixPath) -> str:
    """``data/train`` of data/train-00000-of-00002.parquet, ``default/train`` of default/train/0000.parquet."""
    stem = PART.sub("", path.stem)
    return str(path.parent if stem.isdigit() else path.parent / stem)
