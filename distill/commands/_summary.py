"""What the run folder and the terminal say about a run as a whole."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill import __version__
from distill.artifacts import write_json

if TYPE_CHECKING:
    from rich.table import Table

    from distill.artifacts import RunFolder
    from distill.config import RunConfig

NARROW = 72  # columns below which a table is harder to read than lines
PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets", "openai", "vllm", "numpy", "pyarrow")


def write_config(config: RunConfig, folder: RunFolder) -> None:
    """Write the resolved configuration with its hash, the versions and the git revision."""
    write_json(
        folder.config,
        {"config": config.resolved(), "sha256": config.hash(), "versions": versions(), "git_revision": git_revision()},
    )


def versions() -> dict[str, str]:
    """Versions of Python, of this package, and of the installed packages that decide results."""
    found = {"python": platform.python_version(), "alambic": __version__}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_revision() -> str | None:
    """Commit of the source tree this package runs from, or None when it is not a checkout of it."""
    here = Path(__file__).resolve().parent
    try:
        answer = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None if answer.returncode == 0 else None


def show(config: RunConfig, folder: RunFolder) -> None:
    """Print the end of a run: the systems side by side, the verdict, what each stage took, and where things are."""
    from rich.console import Console

    from distill.commands.run import STAGES

    console = Console()
    if folder.report_json.exists():
        report: dict[str, Any] = json.loads(folder.report_json.read_text("utf-8"))
        if console.width >= NARROW:
            console.print(_table(report))
        else:
            for row in _rows(report):
                console.print("  ".join(row), soft_wrap=True)
        for part in report["verdict"]["parts"]:
            console.print(part, highlight=False)
    done = folder.read_manifest()
    took = {name: done[name].get("seconds", 0.0) for name in STAGES if name in done}
    console.print("took     " + ", ".join(f"{name} {seconds:.0f} s" for name, seconds in took.items()), soft_wrap=True)
    bundle = folder.release / f"{config.name}-{config.release.version}"
    if bundle.is_dir():
        console.print(f"bundle   {bundle}  (distill verify {bundle})", highlight=False, soft_wrap=True)
    for page in folder.report_pages:
        console.print(f"report   {page}", highlight=False, soft_wrap=True)


def _table(report: dict[str, Any]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(
        box=SIMPLE_HEAD, title=f"{report['name']}: the same {report['method']['items']} items", title_justify="left"
    )
    table.add_column("system")
    for head in ("accuracy", "95 % interval", "EUR per 1,000 requests", "answers/s"):
        table.add_column(head, justify="right")
    for row in _rows(report):
        table.add_row(*row)
    return table


def _rows(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """One row of text for each system; what is not known says so."""
    rows: list[tuple[str, ...]] = []
    for arm in report["arms"]:
        accuracy, price, speed = arm["accuracy"], arm["cost"]["per_1000_requests"], arm["speed"]
        rows.append(
            (
                str(arm["label"]),
                f"{100 * accuracy['value']:.1f} %",
                f"{100 * accuracy['low']:.1f} to {100 * accuracy['high']:.1f}",
                f"{price['value']:.3g}" if price else "unknown",
                f"{speed['answers_per_s']:,.1f}" if speed and speed.get("answers_per_s") else "unknown",
            )
        )
    return rows
