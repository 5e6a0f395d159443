"""Going on: what a run must find unchanged, and the checkpoint it goes on from."""

from __future__ import annotations

import importlib.metadata
import secrets
import shutil
from typing import TYPE_CHECKING, Any

import torch

from distill.errors import ConfigError, DataError
from distill.progress import say
from distill.train import checkpoint
from distill.train.batches import fingerprint
from distill.train.checkpoint import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from distill import models
    from distill.artifacts import RunFolder
    from distill.config import RunConfig
    from distill.train.setup import Data

# Settings that may change between a kill and a resume ...
FREE = ("checkpoint_every_s", "keep_checkpoints", "max_spike", "trackers", "eur_per_hour")
# ... and those that change the last digits only.
ROUNDING = (
    *("micro_batch_size", "micro_batch_tokens", "packing", "gradient_checkpointing", "liger"),
    *("chunk_tokens", "share_prefix", "shard", "threads"),
)
VERSIONS = ("torch", "transformers", "peft", "accelerate")


def identity(config: RunConfig, base: models.Resolved, data: Data, threads: int, processes: int) -> dict[str, Any]:
    """What a resumed run must find unchanged."""
    settings = config.settings("seed", "student", "train")
    rounding = {name: settings["train"].pop(name) for name in ROUNDING} | {"threads": threads}
    rounding["attention"] = settings["student"].pop("attention")
    settings["train"] = {k: v for k, v in settings["train"].items() if k not in FREE}
    engine = settings["train"]["rollout_engine"]
    settings["train"]["rollout_engine"] = engine and engine["kind"]  # a requeued job finds its server elsewhere
    return {
        "settings": _flat(settings),
        "data": fingerprint(data.train.rows),
        "base": base.sha256,
        "machine": rounding | {"processes": processes, "isa": torch.backends.cpu.get_cpu_capability()},
        "versions": {name: importlib.metadata.version(name) for name in VERSIONS},
    }


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(values, dict):
        return {prefix[:-1]: values}
    return {path: leaf for key, value in values.items() for path, leaf in _flat(value, f"{prefix}{key}.").items()}


def resume(
    folder: RunFolder, wanted: dict[str, Any], trainable: Sequence[tuple[str, nn.Parameter]], optimizer: Any
) -> State:
    """Restore the newest good checkpoint; a fresh State when there has never been one.

    Raises ConfigError (settings changed half-way), DataError (data or base changed), IntegrityError (all damaged).
    """
    fresh = State(0, 0, 0.0, 0, wanted, {})
    found = checkpoint.find(folder.checkpoints)
    if found is None:
        return fresh
    path, state = found
    try:
        _compare(state.identity, wanted, path.name, str(folder.checkpoints))
    except (ConfigError, DataError):
        if not state.facts.get("complete"):
            raise
        say("train: the finished student was trained with other settings or data; training again from the start")
        trash = folder.checkpoints.with_name(f".tmp-{secrets.token_hex(6)}-checkpoints")
        folder.checkpoints.rename(trash)
        shutil.rmtree(trash)
        return fresh
    checkpoint.restore(path, trainable, optimizer)
    say(f"train: going on from step {state.step}")
    return state


def _compare(saved: dict[str, Any], wanted: dict[str, Any], name: str, where: str) -> None:
    """Refuse a checkpoint of another run; warn when only versions or machine differ."""
    old, new = saved["settings"], wanted["settings"]
    changed = [f"{k}: {old.get(k)} -> {new.get(k)}" for k in sorted({*old, *new}) if old.get(k) != new.get(k)]
    advice = f"put it back, or rm -r {where} to train from the start"
    if changed:
        raise ConfigError(f"settings changed since checkpoint {name}: {', '.join(changed)}", where=where, next=advice)
    for part, what in (("data", "the training data"), ("base", "the student's base weights")):
        if saved[part] != wanted[part]:
            raise DataError(f"{what} changed since checkpoint {name}", where=where, next=advice)
    for part in ("versions", "machine"):
        if saved[part] != wanted[part]:
            say(f"train: {part} changed since {name} ({saved[part]} -> {wanted[part]}): not bit for bit from here on")
