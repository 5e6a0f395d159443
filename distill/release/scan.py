"""Nothing of this machine and no secret leaves in a bundle. What is found refuses the release."""

from __future__ import annotations

import getpass
import html
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from distill.errors import Refused
from distill.prompts import personal_data

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SECRETS = {
    "private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "API key": re.compile(r"\b(?:sk|pk|rk)-(?:ant-|proj-|or-)?[A-Za-z0-9_-]{20,}\b"),
    "hub token": re.compile(r"\bhf_[A-Za-z0-9]{30,}\b"),
    "repository token": re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|glpat-[\w-]{18,})"),
    "cloud key": re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bAIza[\w-]{35}\b|\bSCW[A-Z0-9]{17}\b"),
    "bearer token": re.compile(r"(?i)\bauthorization\W{1,4}bearer\s+[\w.~+/-]{16,}"),
    "password in an address": re.compile(r"\b[a-z][a-z0-9+.-]*://[^/\s:@]+:[^/\s:@]+@"),
}
LOCAL_PATH = re.compile(
    r"(?<![\w./:-])(?:/home/[\w.-]+|/root|/Users/[\w.-]+|/tmp|/var/tmp|/mnt/[\w.-]+|/workspace|/scratch)/[\w.-]+|"
    r"\b[A-Za-z]:\\+Users\\+|file:///"
)
SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL", re.IGNORECASE)
# Names too common to mean this machine or person; finding them says nothing.
COMMON = frozenset({"root", "user", "admin", "ubuntu", "debian", "localhost", "runner", "docker", "build", "worker"})
# Quoted from elsewhere: texts of the data, licence texts, vocabularies. Only exact strings are looked for there.
QUOTED = (
    "report.",
    "LICENSE",
    "licences/",
    "weights/tokenizer",
    "weights/vocab",
    "weights/merges",
    "adapter/token",
)
# Hashes and numbers only, or not ours: no text that a person could stand in.
NOT_TEXT = (
    "LICENSE",
    "licences/",
    "scores.json",
    "weights/tokenizer",
    "weights/vocab",
    "weights/merges",
    "adapter/token",
)
# A hash, or a UUID as the bill of materials has one: their digits are nobody's number.
HASH = re.compile(r"\b(?:(?=[0-9]*[a-f])[0-9a-f]{16,}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\b")
MARKUP = re.compile(r"<svg\b.*?</svg>|<style\b.*?</style>|<[^>]*>", re.DOTALL)
KINDS = {"email": "an e-mail address", "iban": "a bank account", "card": "a payment card", "phone": "a phone number"}
BINARY = (".safetensors", ".gguf", ".onnx", ".pdf", ".png")
BLOCK = 4 << 20


@dataclass(frozen=True)
class Machine:
    """What would give this machine away: exact bytes to look for, by what they are, and names."""

    exact: tuple[tuple[str, bytes], ...]
    names: tuple[tuple[str, re.Pattern[str]], ...]


def this_machine(folders: Sequence[Path]) -> Machine:
    """The paths ``folders``, the home and working directories, the values of secret variables, host and user name."""
    exact: dict[bytes, str] = {}
    for folder in (*folders, Path.cwd(), Path.home()):
        for path in {str(folder), str(folder.resolve())}:
            if path.count("/") >= 2 and len(path) >= 8:
                exact[path.encode()] = "a path of this machine"
    for name, value in os.environ.items():
        if SECRET_NAME.search(name) and len(value) >= 12 and not value.startswith("/"):
            exact[value.encode("utf-8", "surrogateescape")] = f"the value of ${name}"
    names = [("the host name", socket.gethostname()), ("the user name", _user())]
    return Machine(
        tuple((what, data) for data, what in sorted(exact.items())),
        tuple(
            (what, re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-])"))
            for what, name in names
            if len(name) >= 4 and name.lower() not in COMMON
        ),
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""


def refuse_leaks(bundle: Path, folders: Sequence[Path]) -> None:
    """Raise Refused naming each file with a secret, a local path, or the host or user name."""
    machine = this_machine(folders)
    found = [
        f"{path.relative_to(bundle).as_posix()}: {what}"
        for path in sorted(f for f in bundle.rglob("*") if f.is_file())
        for what in sorted(set(_leaks(path, path.relative_to(bundle).as_posix(), machine)))
    ]
    _refuse("the bundle would give away", found, "remove it from the configuration or the data, then the same command")


def refuse_personal_data(bundle: Path, allowed: Sequence[str]) -> None:
    """Raise Refused naming each file with an e-mail address, account, card or phone number not in ``allowed``."""
    found = [
        f"{name}: {', '.join(KINDS[kind] for kind in kinds)}"
        for path in sorted(f for f in bundle.rglob("*") if f.is_file())
        if not (name := path.relative_to(bundle).as_posix()).endswith(BINARY) and not name.startswith(NOT_TEXT)
        if (kinds := _personal(path.read_text("utf-8", errors="replace"), name, allowed))
    ]
    _refuse(
        "personal data would leave with the bundle:",
        found,
        "mask it (prompts.personal_data: mask), or name it in release.allow_personal_data",
    )


def _refuse(what: str, found: list[str], next_: str) -> None:
    if found:
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        safe = "the run folder; no bundle was written"
        raise Refused(f"{what} {'; '.join(found[:5])}{more}", where="release", safe=safe, next=next_)


def _personal(text: str, name: str, allowed: Sequence[str]) -> list[personal_data.Kind]:
    if name.endswith(".html"):
        text = html.unescape(MARKUP.sub(" ", text))
    for known in sorted(filter(None, allowed), key=len, reverse=True):
        text = text.replace(known, " ")
    return personal_data.kinds_in(HASH.sub(" ", text))


def _leaks(path: Path, name: str, machine: Machine) -> Iterator[str]:
    yield from _exact(path, machine.exact)
    if name.endswith(BINARY):
        return
    text = path.read_text("utf-8", errors="replace")
    yield from (what for what, pattern in SECRETS.items() if pattern.search(text))
    if name.startswith(QUOTED):
        return
    yield from ("a local path" for _ in [1] if LOCAL_PATH.search(text))
    yield from (what for what, pattern in machine.names if pattern.search(text))


def _exact(path: Path, wanted: Sequence[tuple[str, bytes]]) -> Iterator[str]:
    overlap = max((len(data) for _, data in wanted), default=1)
    with path.open("rb") as file:
        tail = b""
        while block := file.read(BLOCK):
            window = tail + block
            yield from (what for what, data in wanted if data in window)
            tail = window[-overlap:]
