"""A model's name as a local folder: the catalogue, the cache, one lock per cache entry."""

from __future__ import annotations

import contextlib
import difflib
import fcntl
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from distill.artifacts import disk_problem
from distill.errors import ConfigError, EnvironmentProblem
from distill.models import hub, package
from distill.models.folder import check_folder, read_json, weights_sha256
from distill.progress import say

if TYPE_CHECKING:
    from collections.abc import Iterator

RECORD = "source.json"
FORMS = "hub:ID@REVISION, path:DIR, package:DIST==VERSION/FILE.gguf#sha256=HEX"


@dataclass(frozen=True)
class Resolved:
    """A model on this disk."""

    path: Path
    """Folder with config.json, safetensors and tokenizer files."""
    name: str
    """Short name: the catalogue's, the hub id, or the folder's."""
    source: str
    """Where it was taken from."""
    revision: str
    """Hub commit, or SHA-256 of the packaged file; empty for a local folder."""
    sha256: str
    """Of the weights."""
    licence: str | None
    """As stated by the source or the catalogue; None when nobody stated one."""


def cache_dir() -> Path:
    """$ALAMBIC_CACHE, else ~/.cache/alambic."""
    return Path(os.environ.get("ALAMBIC_CACHE") or "~/.cache/alambic").expanduser()


def resolve(model: str, folder: Path) -> Resolved:
    """Bring ``model`` to this disk. Paths start at ``folder``.

    Of a catalogue name's sources, one already in the cache is taken, else the first that can be reached.
    Raises ConfigError, EnvironmentProblem (unreachable), Refused, IntegrityError, DataError, DiskProblem.
    """
    if ":" in model:
        return _one(model, folder, "", None)
    sources, licence = _from_catalogue(model)
    ready = [source for source in sources if _is_cached(source)]
    if ready:
        return _one(ready[0], folder, model, licence)
    for source, following in zip(sources, [*sources[1:], None], strict=True):
        try:
            return _one(source, folder, model, licence)
        except EnvironmentProblem as error:
            if following is None:
                raise
            say(f"{model}: {error.what}; taking {_short(following)} instead")
    raise AssertionError("unreachable: a catalogue row has a source")


def cached(model: str) -> Path | None:
    """Folder of a catalogue name, an official id or a `hub:`/`package:` source that is here already; else None."""
    from distill import catalog

    row = catalog.find_model(model)
    named = row.sources if row else (model,) if model.startswith(("hub:", "package:")) else ()
    return next((_entry(source) for source in named if _is_cached(source)), None)


def _one(source: str, folder: Path, name: str, licence: str | None) -> Resolved:
    kind, _, rest = source.partition(":")
    if kind == "path":
        path = (folder / Path(rest).expanduser()).resolve()
        return _local(path, name or path.name, source, "", licence)
    entry = _entry(source)
    name = name or (hub.parse(source)[0] if kind == "hub" else entry.name)
    if not (entry / RECORD).exists():
        with _lock(entry):
            if not (entry / RECORD).exists():  # another process may have made it while we waited
                for leftover in entry.parent.glob(f".tmp-*-{entry.name}"):  # of a process that was killed
                    shutil.rmtree(leftover, ignore_errors=True)
                (package.fetch if kind == "package" else hub.fetch)(source, entry, licence)
    record = read_json(entry / RECORD)
    return _local(entry, name, source, str(record["revision"]), licence or record.get("licence"))


def _local(path: Path, name: str, source: str, revision: str, licence: str | None) -> Resolved:
    check_folder(path)
    read_json(path / "config.json")
    return Resolved(path, name, source, revision, weights_sha256(path, cache_dir() / "hashes"), licence)


def _entry(source: str) -> Path:
    """Cache folder of a source. Raises ConfigError when the source is not one of the three forms."""
    kind = source.partition(":")[0]
    if kind not in ("hub", "package"):
        raise ConfigError(f"{source!r} names no model", next=f"a name of `distill catalog models`, or {FORMS}")
    label = package.parse(source).label if kind == "package" else "@".join(hub.parse(source))
    return cache_dir() / "models" / re.sub(r"[^0-9A-Za-z.@-]+", "--", label)


def _is_cached(source: str) -> bool:
    return not source.startswith("path:") and (_entry(source) / RECORD).exists()


def _short(source: str) -> str:
    return source if len(source) <= 90 else source[:87] + "..."


def _from_catalogue(name: str) -> tuple[list[str], str | None]:
    """(sources in order of preference, licence) of a catalogue name."""
    from distill import catalog

    models = catalog.models().values()
    rows = {alias: row for row in models for alias in row.aliases} | {row.name: row for row in models}
    if name not in rows:
        close = difflib.get_close_matches(name, rows, n=1)
        raise ConfigError(
            f"no model {name!r} in the catalogue" + (f"; did you mean {close[0]!r}?" if close else ""),
            next=f"a name of `distill catalog models`, or {FORMS}",
        )
    row = rows[name]
    return list(row.sources) or [f"hub:{row.id}@main"], row.licence


@contextlib.contextmanager
def _lock(entry: Path) -> Iterator[None]:
    """Hold a cache entry: the kernel frees it when the process dies."""
    path = cache_dir() / "locks" / f"{entry.name}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        entry.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise disk_problem(error, path) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{entry.name}: waiting for another process that is fetching it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
