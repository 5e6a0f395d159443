"""`distill init FILE --teacher api|vllm|local`: a complete commented configuration, and a few rows to try it on."""

from __future__ import annotations

import os
import re
import shlex
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from distill.errors import ConfigError

if TYPE_CHECKING:
    import argparse

TEACHERS = {
    "api": "a teacher behind an API (Mistral), bought by the token",
    "vllm": "an open teacher on a vLLM server of your own, with its log-probabilities",
    "local": "a small open teacher in this process: no key, no server",
}
ROWS = ("prompts.jsonl", "test.jsonl")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `distill init`."""
    parser.add_argument("file", type=Path, metavar="FILE", help="configuration to write, for example my-run.yaml")
    parser.add_argument(
        "--teacher",
        choices=tuple(TEACHERS),
        required=True,
        help="; ".join(f"{name}: {what}" for name, what in TEACHERS.items()),
    )


def main(args: argparse.Namespace) -> int:
    """Write the files that are not there yet, and say what to do next."""
    file: Path = args.file
    if file.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"{file.name!r} should end in .yaml", where="FILE", next="distill init my-run.yaml")
    _write(file, template(args.teacher, run_name(file), str(file)), may_exist=False)
    print(f"wrote {file}: {TEACHERS[args.teacher]}")
    for name in ROWS:
        path = file.parent / name
        if _write(path, _text(name), may_exist=True):
            print(f"wrote {path}: a few rows to try it on, replace them with yours")
        else:
            print(f"kept  {path}: it was there")
    shown = shlex.quote(str(file))
    print(f"next: edit {shown}, then\n  distill plan {shown}\n  distill run {shown}")
    return 0


def template(teacher: str, name: str, file: str) -> str:
    """The configuration for a kind of teacher."""
    return _text(f"{teacher}.yaml").replace("NAME:", f"{name}:", 1).replace('"NAME"', f'"{name}"').replace("FILE", file)


def run_name(file: Path) -> str:
    """The name of the run: that of the file, with only what a run's name may hold."""
    return re.sub(r"[^0-9A-Za-z._-]+", "-", file.stem).strip("-._")[:80] or "my-run"


def _text(name: str) -> str:
    return (resources.files("distill.commands") / "templates" / name).read_text("utf-8")


def _write(path: Path, text: str, *, may_exist: bool) -> bool:
    """Create a file and never replace one; False when it was there. Raises ConfigError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        if may_exist:
            return False
        raise ConfigError("is already there and is not overwritten", where=str(path), next="another name") from None
    except OSError as error:
        raise ConfigError(f"cannot write: {error.strerror}", where=str(path)) from None
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    return True
