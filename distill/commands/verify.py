"""`distill verify`: every file of a bundle is there, is what its hash says, and nothing else is there."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from distill.errors import ConfigError, DataError, IntegrityError

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The bundle, and where to unpack it when it is an archive."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder, .tar or .zip of a release")
    parser.add_argument(
        "--into", type=Path, metavar="DIR", help="keep the unpacked archive in this new folder (default: not kept)"
    )
    parser.add_argument(
        "--key",
        type=Path,
        metavar="PEM",
        help="the signer's public key, or certificates you trust: the signature is checked, too",
    )
    parser.epilog = (
        "exit codes: 0 sound; 6 damaged, incomplete or with extra files; 5 an archive that must not be unpacked"
    )


def main(args: argparse.Namespace) -> int:
    """Check the bundle; print each problem on stdout. Returns 0 or 6."""
    from distill.release import archive

    bundle: Path = args.bundle
    key = _read_key(args.key) if args.key else None
    if bundle.is_dir():
        if args.into:
            raise ConfigError("--into is for archives", where=str(bundle))
        return _check(bundle, key)
    if not bundle.exists():
        raise ConfigError("no such bundle", where=str(bundle))
    if not archive.is_archive(bundle):
        raise IntegrityError("neither a folder nor a tar or zip archive", where=str(bundle))
    if args.into:
        try:
            args.into.mkdir(parents=True)
        except FileExistsError:
            raise ConfigError("exists already; name a new folder", where=str(args.into)) from None
        archive.unpack(bundle, args.into)
        return _check(_top(args.into), key)
    with tempfile.TemporaryDirectory(prefix="distill-verify-") as folder:
        archive.unpack(bundle, Path(folder))
        return _check(_top(Path(folder)), key)


def _top(folder: Path) -> Path:
    """The folder itself, or the only folder in it: an archive usually holds one."""
    entries = list(folder.iterdir())
    return entries[0] if len(entries) == 1 and entries[0].is_dir() else folder


def _read_key(path: Path) -> bytes:
    from distill.release import verify_bundle

    try:
        key = path.read_bytes()
        verify_bundle.trusted(key)
    except OSError as error:
        raise ConfigError(f"cannot read the key: {error.strerror}", where=str(path)) from None
    except ValueError as error:
        raise ConfigError(f"not a usable public key or certificate: {error}", where=str(path)) from None
    return key


def _check(folder: Path, key: bytes | None) -> int:
    from distill.release import verify_bundle

    try:
        problems = verify_bundle.check(str(folder), key)
    except verify_bundle.NotABundle as error:
        raise DataError("no SHA256SUMS in it: not a bundle", where=str(folder)) from error
    for problem in problems:
        print(problem.encode("ascii", "backslashreplace").decode())
    print(f"{verify_bundle.verdict(str(folder), problems, key)} ({len(verify_bundle.walk(str(folder))[0])} files)")
    return IntegrityError.exit_code if problems else 0
