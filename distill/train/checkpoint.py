"""Checkpoints that survive a kill at any byte: safetensors and JSON, hashed, synced, renamed into place.

::

    checkpoints/
      step-00000120/   trainable.safetensors optimizer.safetensors state.json MANIFEST.json
      LATEST           name of the newest good one

A damaged checkpoint is passed over for the one before it; when none is good the run stops and says so - it never
silently starts over. Only what is trained is saved: the frozen base is named by its hash in ``state.json``.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save

from distill import artifacts
from distill.errors import IntegrityError
from distill.progress import say
from distill.train.devices import like, whole

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor, nn


@dataclass(frozen=True)
class State:
    """What is not a tensor: how far the run is, and what it must find unchanged."""

    step: int
    metrics_bytes: int
    """Length of metrics.jsonl at this step; what lies behind it was written by a process that died."""
    seconds: float
    tokens: int
    identity: dict[str, Any]
    """Settings, data, base and versions of the run."""
    facts: dict[str, Any]
    """Whatever must outlive a restart: held-out losses, recent losses, how often micro-batches were halved."""


def save_checkpoint(
    folder: Path,
    state: State,
    trainable: Sequence[tuple[str, nn.Parameter]],
    optimizer: Any,
    keep: int,
    best: int | None = None,
    write: bool = True,
) -> None:
    """Write one checkpoint, point LATEST at it, then remove the oldest beyond ``keep``, but not that of step ``best``.

    Every process calls this, as the parts of a split student come from all of them; one of them writes.
    Raises DiskProblem.
    """
    weights = {name: whole(p).contiguous() for name, p in trainable}
    moments = optimizer_tensors(trainable, optimizer)
    if not write:
        return
    target = folder_of(folder, state.step)
    with artifacts.new_folder(target) as path:
        (path / "trainable.safetensors").write_bytes(save(weights))
        (path / "optimizer.safetensors").write_bytes(save(moments))
        (path / "state.json").write_text(json.dumps(state.__dict__, sort_keys=True, allow_nan=False), "utf-8")
        files = {f.name: {"size": f.stat().st_size, "sha256": artifacts.sha256_file(f)} for f in sorted(path.iterdir())}
        (path / "MANIFEST.json").write_text(json.dumps({"step": state.step, "files": files}, sort_keys=True), "utf-8")
    artifacts.write_text(folder / "LATEST", target.name)
    for old in _steps(folder)[keep:]:
        if best is not None and old == folder_of(folder, best):
            continue
        trash = old.with_name(f".tmp-{old.name}")
        old.rename(trash)
        shutil.rmtree(trash)


def folder_of(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step is."""
    return folder / f"step-{step:08d}"


def optimizer_tensors(trainable: Sequence[tuple[str, nn.Parameter]], optimizer: Any) -> dict[str, Tensor]:
    """The optimizer's tensors, named after the parameters they belong to."""
    return {
        f"{name}/{key}": whole(value).contiguous()
        for name, parameter in trainable
        for key, value in sorted(optimizer.state[parameter].items())
    }


def find(folder: Path) -> tuple[Path, State] | None:
    """The newest checkpoint whose every hash is right, or None when there has never been one.

    Raises IntegrityError when there are checkpoints and all are damaged.
    """
    damaged: list[str] = []
    for path in _candidates(folder):
        problem = _problem(path)
        if problem is None:
            if damaged:
                say(f"train: checkpoint {', '.join(damaged)}; going on from {path.name}")
            values = json.loads((path / "state.json").read_text("utf-8"))
            return path, State(**values)
        damaged.append(f"{path.name} is damaged ({problem})")
    if damaged or (folder / "LATEST").exists():
        raise IntegrityError(
            f"no good checkpoint is left: {'; '.join(damaged) or 'LATEST names one that is gone'}",
            where=str(folder),
            safe="the teacher's answers and the data set",
            next=f"rm -r {folder} to train from the start, then the same command",
        )
    return None


def restore(path: Path, trainable: Sequence[tuple[str, nn.Parameter]], optimizer: Any) -> None:
    """Put a checkpoint's tensors back: every name, every shape, bit for bit. Raises IntegrityError."""
    restore_weights(path, trainable)
    moments = load_file(path / "optimizer.safetensors")
    fused = optimizer.defaults.get("fused")
    for name, parameter in trainable:
        own = {key.rpartition("/")[2]: value for key, value in moments.items() if key.rpartition("/")[0] == name}
        # A fused AdamW keeps its step count beside the parameter, another on the CPU.
        steps = {k: v.to(parameter.device) if fused else v for k, v in own.items() if k == "step"}
        optimizer.state[parameter] = steps | {k: like(parameter, v) for k, v in own.items() if k != "step"}


def restore_weights(path: Path, trainable: Sequence[tuple[str, nn.Parameter]]) -> None:
    """Put the trained tensors of a checkpoint back. Raises IntegrityError when it is damaged or of another student."""
    if (problem := _problem(path)) is not None:
        raise IntegrityError(f"the checkpoint is damaged ({problem})", where=str(path))
    weights = load_file(path / "trainable.safetensors")
    names = {name for name, _ in trainable}
    if names != set(weights):
        odd = sorted(names ^ set(weights))[:3]
        raise IntegrityError(f"the checkpoint holds other parameters than the student: {odd}", where=str(path))
    with torch.no_grad():
        for name, parameter in trainable:
            if parameter.shape != weights[name].shape or parameter.dtype != weights[name].dtype:
                raise IntegrityError(f"{name} has another shape or type in the checkpoint", where=str(path))
            parameter.copy_(like(parameter, weights[name]))


def _steps(folder: Path) -> list[Path]:
    """Checkpoint folders, the newest first."""
    return sorted(folder.glob("step-*"), reverse=True)


def _candidates(folder: Path) -> list[Path]:
    """What LATEST names first, then older ones; a folder newer than LATEST was not finished and comes last."""
    steps = _steps(folder)
    latest = folder / "LATEST"
    name = latest.read_text("utf-8", errors="replace").strip() if latest.exists() else ""
    return [s for s in steps if s.name <= name] + [s for s in steps if s.name > name]


def _problem(path: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        manifest = json.loads((path / "MANIFEST.json").read_text("utf-8"))
        if f"step-{manifest['step']:08d}" != path.name:
            return "its manifest names another step"
        for name, record in manifest["files"].items():
            file = path / name
            if not file.is_file():
                return f"{name} is missing"
            if file.stat().st_size != record["size"] or artifacts.sha256_file(file) != record["sha256"]:
                return f"{name} is not what its hash says"
        state = json.loads((path / "state.json").read_text("utf-8"))
        if state["step"] != manifest["step"]:
            return "files of two steps are mixed"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{type(error).__name__}"
    return None
