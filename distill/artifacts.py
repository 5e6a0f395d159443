"""The run folder: every file name, the lock, hashes, atomic writes, and the manifest that lets stages be skipped.

::

    runs/<name>/
      .lock              held while a process works here (flock: the kernel frees it when the process dies)
      config.json        resolved configuration, its hash, versions, git revision
      manifest.json      stage -> key of its inputs, hashes of its outputs
      run.db             every answer ever received, and the ledger (distill.query.store); what stands beside it:
                         docs/durability.md
      data/              train.parquet holdout.parquet rejects.parquet card.json README.md; prompts.jsonl if made here
      signals/           the teacher's log-probabilities (distill.signals)
      checkpoints/       step-00000120/ LATEST; rollouts/ (with train.rollout_engine: adapter and answers of late steps)
      metrics.jsonl      one line per training step
      trackers/          files of train.trackers
      student/           adapter or full weights, tokenizer, student.json
      eval/              <arm>.parquet, <arm>.votes.parquet, report.json, cascade.json (see evals/cascade_file.py)
      report.html        one page per language (report.fr.html), and as PDF where wanted
      release/<name>-<version>/
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill.errors import DiskProblem, IntegrityError, RunLocked
from distill.records import canonical_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

DISK_ERRORS = frozenset({errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT})


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run. Use :func:`open_run` to get a locked one."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def manifest(self) -> Path:
        return self.path / "manifest.json"

    @property
    def db(self) -> Path:
        return self.path / "run.db"

    @property
    def train_data(self) -> Path:
        return self.path / "data" / "train.parquet"

    @property
    def holdout_data(self) -> Path:
        return self.path / "data" / "holdout.parquet"

    @property
    def rejects(self) -> Path:
        return self.path / "data" / "rejects.parquet"

    @property
    def made_prompts(self) -> Path:
        return self.path / "data" / "prompts.jsonl"

    @property
    def data_readme(self) -> Path:
        return self.path / "data" / "README.md"

    @property
    def data_card(self) -> Path:
        return self.path / "data" / "card.json"

    @property
    def signals(self) -> Path:
        return self.path / "signals"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def rollouts(self) -> Path:
        return self.checkpoints / "rollouts"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def trackers(self) -> Path:
        return self.path / "trackers"

    @property
    def student(self) -> Path:
        return self.path / "student"

    @property
    def eval(self) -> Path:
        return self.path / "eval"

    @property
    def report_json(self) -> Path:
        return self.path / "eval" / "report.json"

    @property
    def cascade_json(self) -> Path:
        return self.path / "eval" / "cascade.json"

    @property
    def report_html(self) -> Path:
        return self.path / "report.html"

    @property
    def report_pages(self) -> list[Path]:
        """The report's pages and PDFs that are there, in every language."""
        return sorted(path for end in ("html", "pdf") for path in self.path.glob(f"report*.{end}"))

    @property
    def release(self) -> Path:
        return self.path / "release"

    # -- the manifest -------------------------------------------------------------------------------------

    def read_manifest(self) -> dict[str, Any]:
        """Stage name -> {"key", "outputs": {relative path: {"sha256", "size", "mtime_ns"}}}; {} at first."""
        if not self.manifest.exists():
            return {}
        try:
            return dict(json.loads(self.manifest.read_text("utf-8")))
        except ValueError:
            raise IntegrityError(
                "the manifest is damaged",
                where=str(self.manifest),
                safe="run.db",
                next=f"rm {self.manifest}, then the same command: stages are redone, no answer is bought again",
            ) from None

    def is_done(self, stage: str, key: str) -> bool:
        """True when ``stage`` ended with these inputs and its outputs are still what they were.

        A file whose size and time are unchanged is taken as unchanged; any other is hashed again.
        """
        entry = self.read_manifest().get(stage)
        if entry is None or entry["key"] != key:
            return False
        return all(self._unchanged(name, record) for name, record in entry["outputs"].items())

    def _unchanged(self, name: str, record: dict[str, Any]) -> bool:
        path = self.path / name
        if not path.is_file():
            return False
        stat = path.stat()
        if stat.st_size != record["size"]:
            return False
        return stat.st_mtime_ns == record["mtime_ns"] or sha256_file(path) == record["sha256"]

    def finish(self, stage: str, key: str, outputs: Sequence[Path], **facts: Any) -> None:
        """Record that ``stage`` ended with the inputs ``key`` and wrote ``outputs`` (files or folders)."""
        files = sorted({f for out in outputs for f in ([out] if out.is_file() else out.rglob("*")) if f.is_file()})
        entry = {
            "key": key,
            "outputs": {
                f.relative_to(self.path).as_posix(): {
                    "sha256": sha256_file(f),
                    "size": f.stat().st_size,
                    "mtime_ns": f.stat().st_mtime_ns,
                }
                for f in files
            },
            **facts,
        }
        write_json(self.manifest, {**self.read_manifest(), stage: entry})

    def output_hashes(self, *stages: str) -> dict[str, str]:
        """Relative path -> SHA-256 of everything the named stages wrote."""
        manifest = self.read_manifest()
        return {
            name: record["sha256"]
            for stage in stages
            for name, record in manifest.get(stage, {}).get("outputs", {}).items()
        }


@contextlib.contextmanager
def open_run(path: Path) -> Iterator[RunFolder]:
    """Create the folder (mode 0700) if needed, take its lock, and give it. Raises RunLocked, DiskProblem.

    Of several processes started together (torchrun), the first holds the lock for all of them.
    """
    if rank() > 0:
        yield RunFolder(path)
        return
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise disk_problem(error, path) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunLocked(
                "another process is working in this run folder",
                where=str(path),
                next="wait for it, or give this run its own folder with --out DIR",
            ) from None
        sweep(path)
        yield RunFolder(path)
    finally:
        os.close(lock)


def rank() -> int:
    """Number of this process among those torchrun started; 0 when it runs alone."""
    return int(os.environ.get("RANK", "0"))


def disk_problem(error: OSError, path: Path) -> DiskProblem:
    """The one line for an operating-system error on ``path``."""
    return DiskProblem(
        f"cannot write: {error.strerror or error}", where=str(path), next="free the disk, then run the same command"
    )


def stage_key(version: int, settings: dict[str, Any], inputs: dict[str, str]) -> str:
    """SHA-256 of what a stage depends on: its code version, its part of the configuration, its input hashes."""
    return hashlib.sha256(canonical_json({"version": version, "settings": settings, "inputs": inputs})).hexdigest()


# -- hashes ---------------------------------------------------------------------------------------------------


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_tree(folder: Path) -> str:
    """Hex SHA-256 over the sorted (relative path, file hash) pairs of a folder."""
    pairs = [[f.relative_to(folder).as_posix(), sha256_file(f)] for f in sorted(folder.rglob("*")) if f.is_file()]
    return hashlib.sha256(canonical_json(pairs)).hexdigest()


# -- atomic writes: a reader sees the old content or the new, never a half -----------------------------------


def fsync_dir(path: Path) -> None:
    """Make renames inside ``path`` durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data``: temporary file, fsync, rename, fsync of the folder. Raises DiskProblem."""
    temporary = path.with_name(f".tmp-{secrets.token_hex(6)}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        fsync_dir(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno in DISK_ERRORS:
            raise disk_problem(error, path) from error
        raise


def write_text(path: Path, text: str) -> None:
    """:func:`write_bytes` of UTF-8 text."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """:func:`write_bytes` of readable, sorted JSON. NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give an empty temporary folder beside ``path``; on a clean exit it is synced and takes the name ``path``."""
    temporary = path.with_name(f".tmp-{secrets.token_hex(6)}-{path.name}")
    try:
        temporary.mkdir(parents=True, mode=0o700)
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())
        for folder in [temporary, *(f for f in temporary.rglob("*") if f.is_dir())]:
            fsync_dir(folder)
        if path.exists():
            shutil.rmtree(path)
        temporary.rename(path)
        fsync_dir(path.parent)
    except OSError as error:
        if error.errno in DISK_ERRORS:
            raise disk_problem(error, path) from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what a killed process left half-written. Called with the lock held."""
    for leftover in folder.rglob(".tmp-*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
