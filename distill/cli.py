"""The command line: one table, one error handler. `distill --help` loads neither pydantic nor torch."""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import signal
import sys
import tempfile
import traceback
import warnings
from typing import TYPE_CHECKING

from distill import __version__
from distill.errors import ConfigError, DiskProblem, DistillError, EnvironmentProblem, Interrupted, struck

if TYPE_CHECKING:
    from collections.abc import Sequence

# name -> (module with `add_arguments(parser)` and `main(args) -> int`, summary)
COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("distill.commands.init", "write a commented starter configuration"),
    "doctor": ("distill.commands.doctor", "say what this machine can do and what to install"),
    "plan": ("distill.commands.plan", "tokens, euros, time, licences: before anything is spent"),
    "quote": ("distill.commands.quote", "a dated offer for a client, which may say: do not distil"),
    "run": ("distill.commands.run", "the whole line: generate, train, eval, release"),
    "generate": ("distill.commands.stage", "stage 1: ask the teacher"),
    "train": ("distill.commands.stage", "stage 2: train the student"),
    "eval": ("distill.commands.stage", "stage 3: compare teacher, base and student"),
    "release": ("distill.commands.release", "stage 4: build the client bundle; --compare holds it to an earlier one"),
    "compare": ("evals.compare", "compare any systems on the same items, with intervals and euros"),
    "catalog": ("distill.commands.catalog", "search the dated facts: licences, prices, providers, models, gpus, grid"),
    "erase": ("distill.commands.erase", "take a person's prompts and answers out of a run, for good"),
    "salvage": ("distill.commands.salvage", "take every intact answer out of a damaged store"),
    "selftest": ("distill.commands.selftest", "kill a run again and again on this disk, and count what is lost"),
    "verify": ("distill.commands.verify", "check a bundle: every file, every hash"),
}

EPILOG = """examples:
  distill init my-run.yaml --teacher api
  distill run my-run.yaml train.lr=2e-5"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Every known error is one line on stderr, never a traceback."""
    argv = list(sys.argv[1:] if argv is None else argv)
    os.umask(0o077)  # a run folder holds confidential prompts
    # What a library will drop one day is for us to read, not for the person who runs this.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft|accelerate)\.")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin on a busy machine slow everyone down
    try:
        return _dispatch(argv)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except DistillError as error:
        return _say(error)
    except KeyboardInterrupt:
        return _say(
            Interrupted("interrupted", safe="every answer and checkpoint already committed", next="the same command")
        )
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT):
            return _say(
                DiskProblem(error.strerror or str(error), where=str(error.filename or ""), next="the same command")
            )
        return _bug(error)
    except Exception as error:
        return _bug(error)


def _dispatch(argv: list[str]) -> int:
    if len(argv) == 1 and argv[0] in ("--version", "-V"):
        print(f"alambic {__version__}")
        return 0
    if not argv or argv[0] in ("--help", "-h", "help"):
        print(help_text())
        return 0
    name = argv[0]
    if name not in COMMANDS:
        import difflib

        close = difflib.get_close_matches(name, COMMANDS, n=1)
        raise ConfigError(
            f"no command {name!r}" + (f"; did you mean {close[0]!r}?" if close else ""),
            next=f"one of: {', '.join(COMMANDS)}",
        )
    module_name, summary = COMMANDS[name]
    module = importlib.import_module(module_name)
    if module_name.startswith("evals.") and getattr(importlib.import_module("evals"), "__owner__", "") != "alambic":
        raise EnvironmentProblem(
            "another package named 'evals' hides ours",
            where=str(importlib.import_module("evals").__file__),
            next="pip uninstall evals, then reinstall alambic",
        )
    parser = _Parser(prog=f"distill {name}", description=summary, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.set_defaults(command=name)
    module.add_arguments(parser)
    return int(module.main(parser.parse_intermixed_args(argv[1:])))


class _Parser(argparse.ArgumentParser):
    """argparse whose complaint is our one line, with exit code 2."""

    def error(self, message: str) -> None:  # type: ignore[override]
        raise ConfigError(message, where=self.prog, next=f"{self.prog} --help")


def help_text() -> str:
    """What `distill --help` prints."""
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:<{width}}  {summary}" for name, (_, summary) in COMMANDS.items())
    return f"usage: distill COMMAND ...\n\n{__doc_line__}\n\n{rows}\n\n{EPILOG}"


__doc_line__ = "Distil a large teacher into a small student you own, and prove what it lost and what it saves."


def _say(error: DistillError) -> int:
    print(f"distill: {error}" if "\n" not in str(error) else str(error), file=sys.stderr)
    return error.exit_code


def _bug(error: BaseException) -> int:
    """The only ending with a traceback, and it goes to a file."""
    handle, path = tempfile.mkstemp(prefix="distill-bug-", suffix=".txt")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(struck("".join(traceback.format_exception(error))))
    print(
        f"distill: a bug of ours ({type(error).__name__}: {struck(str(error))[:200]}) | details: {path}",
        file=sys.stderr,
    )
    return 70


if __name__ == "__main__":
    raise SystemExit(main())
