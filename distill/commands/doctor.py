"""`distill doctor`: what this machine can do, and what to install for the rest."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill import __version__, catalog, plugins
from distill.errors import ConfigError
from distill.models import cache_dir
from distill.models.load import cpu_has_bf16

if TYPE_CHECKING:
    import argparse

GIB = 1 << 30
# extra -> the packages that make it up (import names)
EXTRAS: dict[str, tuple[str, ...]] = {
    "api": ("openai", "aiohttp"),
    "train": ("torch", "transformers", "peft", "accelerate", "datasets", "safetensors", "gguf", "sklearn"),
    "vllm": ("vllm",),
    "hub": ("huggingface_hub",),
    "data": ("jsonschema",),
    "prices": ("genai_prices",),
    "sign": ("model_signing", "OpenSSL"),
    "ray": ("ray",),
}
DISTRIBUTIONS = {"sklearn": "scikit-learn", "genai_prices": "genai-prices", "OpenSSL": "pyOpenSSL"}
# plug-in -> the extra it needs; a plug-in that is not named here needs none
PROVIDERS = {"openai": "api", "transformers": "train", "vllm": "vllm"}
TARGETS = {"merged": "train", "gguf": "train"}
ROOM_GB = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `distill doctor`."""
    parser.add_argument("config", nargs="?", help="a configuration, for --probe")
    parser.add_argument("--probe", action="store_true", help="ask the teacher's endpoint what it can do (tiny, paid)")
    parser.add_argument("--json", action="store_true", help="the same facts, for machines")


def main(args: argparse.Namespace) -> int:
    """Print the facts, what works, and what to do about what does not: 0. A probe may end as any question may."""
    if args.probe or args.config:
        return _probe(args)
    found = examine()
    if args.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return 0
    _show(found)
    return 0


def _probe(args: argparse.Namespace) -> int:
    from distill.commands import _probe

    if not (args.probe and args.config):
        raise ConfigError("a probe needs both a configuration and --probe", next="distill doctor CONFIG --probe")
    rows = _probe.endpoints(args.config)
    if args.json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        print("\n".join(line for row in rows for line in _probe.lines(row)) or "no teacher here is an endpoint")
    return 0


def examine() -> dict[str, Any]:
    """Everything doctor knows, as JSON values."""
    extras = {name: {package: _version(package) for package in packages} for name, packages in EXTRAS.items()}
    ready = {name for name, packages in extras.items() if all(packages.values())}
    machine = _machine()
    cache = _cache()
    facts = _catalogue()
    works = {
        "providers": _works("distill.providers", PROVIDERS, ready),
        "targets": _works("distill.release.targets", TARGETS, ready),
        "training": _needs("train", ready),
    }
    return {
        "alambic": __version__,
        "machine": machine,
        "cache": cache,
        "catalogue": facts,
        "extras": extras,
        "works": works,
        "advice": _advice(machine, cache, ready, facts),
    }


def _machine() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": _memory_gb(),
        "cpu_bf16": cpu_has_bf16(),
        "gpus": _gpus(),
    }


def _memory_gb() -> float | None:
    """Memory of the machine, or of the container when it may use less."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text("ascii").strip()
        total = min(total, int(limit)) if limit.isdigit() else total
    except OSError:
        pass
    return round(total / GIB, 1)


def _gpus() -> list[dict[str, Any]]:
    """CUDA devices that torch sees; [] without torch or without devices."""
    if _version("torch") is None:
        return []
    try:
        import torch
    except Exception as error:  # a broken driver or library raises anything; doctor says so and goes on
        return [{"name": f"torch does not start: {str(error)[:120]}", "memory_gb": None, "bf16": False}]
    if not torch.cuda.is_available():
        return []
    rows = []
    for number in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(number)
        native = facts.major >= 8  # Ampere is the first with bfloat16 units
        rows.append({"name": facts.name, "memory_gb": round(facts.total_memory / GIB, 1), "bf16": native})
    return rows


def _cache() -> dict[str, Any]:
    folder = cache_dir()
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    return {
        "path": str(folder),
        "writable": os.access(existing, os.W_OK | os.X_OK),
        "free_gb": round(shutil.disk_usage(existing).free / GIB, 1),
        "models": sorted(entry.parent.name for entry in (folder / "models").glob("*/source.json")),
    }


def _catalogue() -> dict[str, Any]:
    """How old the newest price is, and the user's own files that were found."""
    newest = max(row.as_of for row in catalog.prices())
    files = [str(path) for path in catalog.user_files()]
    return {"prices_as_of": newest.isoformat(), "age": catalog.staleness(newest), "files": files}


def _version(package: str) -> str | None:
    """Version of an importable package; "?" when it does not say; None when it is not there."""
    if importlib.util.find_spec(package) is None:
        return None
    try:
        return importlib.metadata.version(DISTRIBUTIONS.get(package, package))
    except importlib.metadata.PackageNotFoundError:
        return "?"


def _works(package: str, needs: dict[str, str], ready: set[str]) -> dict[str, str | None]:
    """Plug-in -> None when it works here, else the command that makes it work."""
    return {name: _needs(needs.get(name), ready) for name in plugins.available(package)}


def _needs(extra: str | None, ready: set[str]) -> str | None:
    return None if extra is None or extra in ready else f"pip install 'alambic[{extra}]'"


def _advice(machine: dict[str, Any], cache: dict[str, Any], ready: set[str], facts: dict[str, Any]) -> list[str]:
    """One sentence for each thing a person may want to change."""
    lines = []
    if "train" not in ready:
        lines.append("local models and training need: pip install 'alambic[train]'")
    if "api" not in ready:
        lines.append("API teachers need: pip install 'alambic[api]'")
    if not cache["writable"]:
        lines.append(f"the cache {cache['path']} cannot be written: set ALAMBIC_CACHE to a folder of yours")
    if cache["free_gb"] < ROOM_GB:
        lines.append(f"only {cache['free_gb']} GB free for models: set ALAMBIC_CACHE to a larger disk")
    if facts["age"] != "fresh":
        lines.append(
            f"the newest price of the catalogue is of {facts['prices_as_of']}: distill catalog prices --refresh "
            "(pip install 'alambic[prices]'), or pip install -U alambic"
        )
    if not machine["gpus"]:
        size = "1-2 billion weights" if (machine["memory_gb"] or 0) >= 12 else "half a billion weights"
        lines.append(
            f"no GPU: models of up to {size} run on the processor; for larger teachers, an API or a vLLM server"
        )
        if not machine["cpu_bf16"]:
            lines.append("this processor multiplies bfloat16 slowly: dtype auto takes float32, at twice the memory")
    elif "vllm" not in ready:
        lines.append("for fast local teachers: pip install 'alambic[vllm]' (an environment of its own is safest)")
    return lines


def _show(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(file=sys.stdout, highlight=False, markup=False)
    machine, cache = found["machine"], found["cache"]
    memory = "unknown" if machine["memory_gb"] is None else f"{machine['memory_gb']:g} GB"
    console.print(f"alambic {found['alambic']}, Python {machine['python']}, {machine['system']}")
    console.print(
        f"{machine['cores']} cores, {memory} memory, native bfloat16: {'yes' if machine['cpu_bf16'] else 'no'}"
    )
    for gpu in machine["gpus"]:
        console.print(f"GPU: {gpu['name']}, {gpu['memory_gb']} GB, native bfloat16: {'yes' if gpu['bf16'] else 'no'}")
    if not machine["gpus"]:
        console.print("no CUDA device")
    state = f"{cache['free_gb']:g} GB free" if cache["writable"] else "NOT WRITABLE"
    console.print(f"cache: {cache['path']} ({state}; {len(cache['models'])} models)", soft_wrap=True)
    own = ", ".join(found["catalogue"]["files"]) or "none of your own"
    console.print(f"catalogue: prices of {found['catalogue']['prices_as_of']}; your files: {own}", soft_wrap=True)
    table = Table("works here", "", "needs", box=None, pad_edge=False)
    works = found["works"]
    for noun, rows in (("provider", works["providers"]), ("target", works["targets"])):
        for name, command in rows.items():
            table.add_row(f"{noun} {name}", "no" if command else "yes", command or "")
    table.add_row("training", "no" if works["training"] else "yes", works["training"] or "")
    console.print(table)
    versions = {k: v for packages in found["extras"].values() for k, v in packages.items() if v}
    console.print("installed: " + ", ".join(f"{name} {version}" for name, version in versions.items()), soft_wrap=True)
    for line in found["advice"]:
        console.print(f"- {line}", soft_wrap=True)
