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
    from distill.artifacts import RunFolder
    from distill.config import RunConfig

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
        answer = subprocess.run(["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None if answer.returncode == 0 else None


def show(config: RunConfig, folder: RunFolder) -> None:
    """Print the end of a run: verdict, arms, money, and where the report and the bundle are."""
    report: dict[str, Any] = json.loads(folder.report_json.read_text("utf-8")) if folder.report_json.exists() else {}
    print(report.get("verdict", {}).get("sentence", ""))
    print(f"report: {folder.report_html}")
