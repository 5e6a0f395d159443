"""What stands before the loop: the base, the rows, the teacher, and the checkpoint to go on from."""

from __future__ import annotations

import contextlib
import importlib.metadata
import secrets
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from distill import models
from distill.errors import ConfigError, DataError
from distill.progress import say
from distill.train import checkpoint, preflight
from distill.train.align import CrossTokenizer
from distill.train.batches import Rows, collate, encode_rows, fingerprint, read_rows
from distill.train.checkpoint import State
from distill.train.preference import Preference
from distill.train.rollout import OnPolicy
from distill.train.signal import Live, Source, Stored, TextOnly

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from distill.artifacts import RunFolder
    from distill.config import RunConfig
    from distill.train.batches import Batch
    from distill.train.objective import Recipe
    from distill.train.schedule import Stop
    from distill.train.student import Loaded, Objective

FREE = ("checkpoint_every_s", "keep_checkpoints")  # settings that may change between a kill and a resume
ROUNDING = ("micro_batch_size", "chunk_tokens", "share_prefix", "threads")  # these change the last digits only
VERSIONS = ("torch", "transformers", "peft", "accelerate")


@dataclass(frozen=True)
class Data:
    """Encoded rows of both splits."""

    train: Rows
    holdout: Rows
    records: list[dict[str, Any]]
    """The training rows as text."""
    held_records: list[dict[str, Any]]
    """The held-out rows as text."""


def read_data(config: RunConfig, folder: RunFolder, tokenizer: Any) -> Data:
    """Both splits as token ids. Raises DataError when nothing is left to learn from."""
    length, reasoning = config.student.max_length, config.train.reasoning
    records = read_rows(folder.train_data)
    train = encode_rows(records, tokenizer, length, reasoning=reasoning)
    if not train.rows:
        raise DataError(
            f"no row is left to learn from (dropped: {train.dropped})",
            where=str(folder.train_data),
            next="raise student.max_length, or distill generate",
        )
    held = read_rows(folder.holdout_data) if folder.holdout_data.exists() else []
    lost = sum(train.dropped.values())
    if lost:
        say(f"train: {lost} of {lost + len(train.rows)} rows dropped: {train.dropped}")
    return Data(train, encode_rows(held, tokenizer, length, reasoning=reasoning), records, held)


def open_source(
    config: RunConfig, folder: RunFolder, student: Loaded, data: Data, recipe: Recipe
) -> tuple[Source, int]:
    """(the teacher's side of a step, size of the vocabulary both share; 0 = the student's own)."""
    method = config.train.method
    if method == "sft":
        return TextOnly(), 0
    if method == "offline_topk":
        from distill.signals import SignalReader

        reader = SignalReader(folder.signals)
        check_stored(reader.about, student, config.train.temperature)
        return Stored(reader, student.tokenizer), 0
    if method == "preference":
        return Preference(student, recipe, config.train, config.seed), 0
    model, tokenizer = load_teacher(config)
    if method == "cross_tokenizer":
        other = CrossTokenizer(model, tokenizer, config.train.align)
        for rows, records in ((data.train, data.records), (data.holdout, data.held_records)):
            other.read(records, rows, student.tokenizer, reasoning=config.train.reasoning)
        return other, 0
    vocab = preflight.shared_vocab(student, model, tokenizer)
    if method == "on_policy":
        return OnPolicy(model, student, config.train, config.seed), vocab
    return Live(model), vocab


def load_teacher(config: RunConfig) -> tuple[Any, Any]:
    """(model, tokenizer) of a teacher in this process. Raises ConfigError when it is elsewhere."""
    if config.teacher.kind != "transformers":
        raise ConfigError(
            f"train.method {config.train.method} needs the teacher in this process; "
            f"teacher.kind is {config.teacher.kind!r}",
            next="teacher.kind: transformers, or train.method: offline_topk or sft",
        )
    settings: Any = config.teacher
    path = models.resolve(settings.model, config.resolve(".")).path
    adapter = config.resolve(settings.adapter) if settings.adapter else None
    return models.load_causal_lm(path, dtype=settings.dtype, adapter=adapter)


def check_stored(about: Any, student: Loaded, temperature: float) -> None:
    """Refuse stored signals of another tokenizer or temperature. Raises DataError."""
    if not about.vocabulary and about.tokenizer != models.tokenizer_fingerprint(student.tokenizer):
        raise DataError(
            "the stored teacher log-probabilities belong to another tokenizer than the student's",
            next="train.method: sft learns from the text alone, or choose a student of the teacher's family",
        )
    if about.kind == "topk" and about.temperature != temperature:
        raise DataError(
            f"the signals were stored at temperature {about.temperature:g} and train.temperature is {temperature:g}: "
            "the mass outside the top k cannot be converted",
            next=f"train.temperature={about.temperature:g}",
        )


# -- going on ----------------------------------------------------------------------------------------------------


def identity(config: RunConfig, base: models.Resolved, data: Data, threads: int, processes: int) -> dict[str, Any]:
    """What a resumed run must find unchanged."""
    settings = config.settings("seed", "student", "train")
    rounding = {name: settings["train"].pop(name) for name in ROUNDING} | {"threads": threads}
    settings["train"] = {k: v for k, v in settings["train"].items() if k not in FREE}
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


# -- devices -----------------------------------------------------------------------------------------------------


def share_of(count: int, accelerator: Any) -> list[tuple[int, float]]:
    """(number, weight) of the micro-batches this process runs; one without work repeats the first at weight 0."""
    own = range(accelerator.process_index, count, accelerator.num_processes)
    return [(number, 1.0) for number in own] or [(0, 0.0)]


def sync_on_last(accelerator: Any, module: Any, last: bool) -> Any:
    """Processes exchange gradients in the last micro-batch of a step only."""
    return contextlib.nullcontext() if last else accelerator.no_sync(module)


def total(value: float, accelerator: Any) -> float:
    """The sum of ``value`` over all processes."""
    return float(accelerator.reduce(torch.tensor(value, dtype=torch.float64, device=accelerator.device), "sum"))


# -- held-out loss -----------------------------------------------------------------------------------------------


@dataclass
class Holdout:
    """Measures the objective on the held-out rows; every process measures all of them."""

    objective: Objective
    source: Source
    rows: Rows
    pad: int
    device: Any
    share: bool
    size: int = 16
    _batches: list[Batch] = field(default_factory=list)

    def measure(self, stop: Stop) -> dict[str, float]:
        """Mean per token of loss, cross entropy and divergence; {} without rows or when asked to stop."""
        if not self._batches:
            order = sorted(range(len(self.rows.rows)), key=lambda i: (self.rows.lengths[i], i))
            groups = [order[at : at + self.size] for at in range(0, len(order), self.size)]
            self._batches = [collate([self.rows.rows[i] for i in g], pad=self.pad, share=self.share) for g in groups]
        sums = torch.zeros(3, dtype=torch.float64)
        was_training = self.objective.training
        self.objective.eval()
        with torch.no_grad():
            for batch in (b.to(self.device) for b in self._batches):
                if stop:
                    break
                loss, parts = self.objective(batch, self.source.teacher(batch))
                sums += torch.stack([loss.double(), parts.ce, parts.kd]).cpu()
        self.objective.train(was_training)
        if stop or not self._batches:
            return {}
        names = ("holdout_loss", "holdout_ce", "holdout_kd")
        tokens = sum(len(row.completion) for row in self.rows.rows)
        return {name: value / tokens for name, value in zip(names, sums.tolist(), strict=True)}
