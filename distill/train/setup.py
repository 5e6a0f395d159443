"""What stands before the loop: the base, the rows, the teacher, and the checkpoint to go on from."""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from distill import gates, models, plugins
from distill.errors import ConfigError, DataError, OutOfMemory
from distill.progress import say
from distill.providers._base import Context
from distill.train import kernels, memory, preflight, tracking
from distill.train.align import CrossTokenizer, aligned_loss
from distill.train.batches import Rows, collate, encode_rows, plan_steps, read_rows
from distill.train.devices import check_shard, split
from distill.train.holdout import Holdout
from distill.train.objective import Recipe
from distill.train.preference import Preference, preference_loss
from distill.train.prune import layers_of, prune
from distill.train.remote import Remote
from distill.train.resume import identity
from distill.train.rollout import OnPolicy
from distill.train.rollout_server import RolloutServer
from distill.train.schedule import be_deterministic
from distill.train.served import ServedStudent
from distill.train.signal import Live, OwnBase, Source, Stored, TextOnly
from distill.train.student import Objective, causal_lm, head_of, load_base, make_student, shares_prefix

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import nn

    from distill.artifacts import RunFolder
    from distill.config import RunConfig
    from distill.train.batches import Batch, Row
    from distill.train.student import Loaded

LOSSES = {"cross_tokenizer": aligned_loss, "preference": preference_loss}


@dataclass(frozen=True)
class Data:
    """Encoded rows of both splits."""

    train: Rows
    holdout: Rows
    records: list[dict[str, Any]]
    """The training rows as text."""
    held_records: list[dict[str, Any]]
    """The held-out rows as text."""


@dataclass(frozen=True)
class Ready:
    """A run before its first step: proven, placed on its devices, planned to the last row."""

    accelerator: Any
    threads: int
    base: models.Resolved
    student: Loaded
    data: Data
    source: Source
    wrapped: Any
    optimizer: Any
    trainable: list[tuple[str, nn.Parameter]]
    steps: list[list[list[int]]]
    epoch: int
    """Steps of one pass over the data."""
    holdout: Holdout
    lay_out: Callable[[Sequence[Row]], Batch]
    """Rows as the micro-batch that the student reads."""
    identity: dict[str, Any]
    """What a resumed run must find unchanged."""
    metrics: Path
    pruned: dict[str, Any] | None
    """What :func:`~distill.train.prune.prune` did."""


def prepare(config: RunConfig, folder: RunFolder) -> Ready:
    """Load, prove, plan. Raises ConfigError, DataError, EnvironmentProblem, OutOfMemory before anything is written."""
    from accelerate import Accelerator

    settings = config.train
    if settings.method == "auto":
        raise ConfigError("train.method is still auto: the command line chooses before the run", next="name a method")
    tracking.check_installed(settings.trackers)
    kernels.check(config)
    threads = be_deterministic(settings.threads)
    trackers = list(settings.trackers) or None
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), log_with=trackers, project_dir=str(folder.trackers))
    if settings.shard:
        check_shard(config, accelerator.num_processes)
    base = models.resolve(config.student.model, config.resolve("."))
    check_memory(config, base.path)
    model, tokenizer = load_base(base.path, config.student)
    if settings.liger:
        kernels.fuse(model)
    data = read_data(config, folder, tokenizer)
    preflight.check_rows(tokenizer, data.train.rows, head_of(model).size)
    pruned = None
    if config.student.prune is not None:
        pruned = prune(model, config.student.prune.layers, data.train.rows, data.holdout.rows)
    student = make_student(model, tokenizer, config.student.adapter, config.seed)
    recipe = recipe_of(config)
    source, vocab = open_source(config, folder, student, data, recipe)
    objective = Objective(student.model, recipe, vocab, LOSSES.get(settings.method))
    lay_out = layout_of(config, student)
    preflight.check_texts(student.tokenizer, data.records, data.train.rows, settings.reasoning)
    preflight.prove(student, data.train.rows, source, vocab, lay_out)
    wrapped, optimizer = place(config, accelerator, student, objective)
    if isinstance(source, OnPolicy) and source.served is not None:
        source.served.open(data.train.rows)
    return Ready(
        accelerator=accelerator,
        threads=threads,
        base=base,
        student=student,
        data=data,
        source=source,
        wrapped=wrapped,
        optimizer=optimizer,
        trainable=student.trainable,
        steps=plan_steps(data.train.lengths, settings, config.seed),
        epoch=-(-len(data.train.rows) // settings.batch_size),
        holdout=Holdout(objective, source, data.holdout, student.pad, accelerator.device, lay_out.keywords["share"]),
        lay_out=lay_out,
        identity=identity(config, base, data, threads, accelerator.num_processes),
        metrics=folder.metrics,
        pruned=pruned,
    )


def recipe_of(config: RunConfig) -> Recipe:
    """What is minimised."""
    settings = config.train
    weight = 0.0 if settings.method == "sft" else settings.kd_weight
    loss = plugins.load("distill.losses", settings.loss.kind)
    return Recipe(loss, settings.loss, weight, settings.temperature, settings.chunk_tokens)


def layout_of(config: RunConfig, student: Loaded) -> functools.partial[Batch]:
    """How rows become the micro-batch that the student reads."""
    settings = config.train
    # Without a cache of keys and values, or a mask, no prefix can be shared.
    share = settings.share_prefix and not settings.gradient_checkpointing and shares_prefix(student.model)
    return functools.partial(collate, pad=student.pad, share=share, pack=settings.packing)


def place(config: RunConfig, accelerator: Any, student: Loaded, objective: Objective) -> tuple[Any, Any]:
    """(the objective on its devices, its optimizer)."""
    settings = config.train
    if settings.gradient_checkpointing:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # the new name is not in every version we allow
            student.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if settings.shard:
        split(objective.to(accelerator.device), layers_of(causal_lm(student.model)), accelerator.device)
    parameters = [parameter for _, parameter in student.trainable]
    # Fused: no temporary of the size of all trained weights, and on a processor a step that is eight times shorter.
    fused = not settings.shard
    optimizer = torch.optim.AdamW(parameters, lr=settings.lr, weight_decay=settings.weight_decay, fused=fused)
    if settings.shard:
        return objective, accelerator.prepare(optimizer)
    wrapped, optimizer = accelerator.prepare(objective, optimizer)
    return wrapped, optimizer


def check_memory(config: RunConfig, path: Path) -> None:
    """Say what the training needs. Raises OutOfMemory when weights and optimizer alone are more than is free.

    Activations are left to the run itself, which halves its micro-batches until they fit.
    """
    known = memory.folder_size(path)
    free = torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else memory.available()
    if known is None or free is None:
        return
    params, layers, hidden = known
    if not layers or not hidden:
        return
    adapter = config.student.adapter
    width = 4 if models.pick_dtype(config.student.dtype, models.pick_device()) == "float32" else 2
    trained = memory.trained(params, layers, hidden, adapter)
    four_bits = adapter.kind == "qlora"
    fixed = memory.needed(params, trained, layers, hidden, 0, width=width, quantised=four_bits)
    tokens = memory.micro_tokens(config.train, config.student.max_length)
    recompute = config.train.gradient_checkpointing
    most = memory.needed(
        params, trained, layers, hidden, tokens, width=width, quantised=four_bits, checkpointing=recompute
    )
    text = f"{fixed / 1e9:.3g} GB for weights and optimizer, up to {most / 1e9:.3g} GB with activations"
    say(f"train: the student needs {text}; {free / 1e9:.3g} GB are free")
    if fixed > free:
        raise OutOfMemory(
            f"the student needs {fixed / 1e9:.3g} GB before its first step, and {free / 1e9:.3g} GB are free",
            next="a smaller student, student.adapter.kind: lora or qlora, or a larger machine",
        )


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
    if method == "cross_tokenizer":
        other = CrossTokenizer(*load_teacher(config), config.train.align)
        for rows, records in ((data.train, data.records), (data.holdout, data.held_records)):
            other.read(records, rows, student.tokenizer, reasoning=config.train.reasoning)
        return other, 0
    scorer, vocab = open_scorer(config, student, data)
    if method != "on_policy":
        return scorer, vocab
    return OnPolicy(scorer, student, config.train, config.seed, open_rollouts(config, folder, student)), vocab


def open_rollouts(config: RunConfig, folder: RunFolder, student: Loaded) -> ServedStudent | None:
    """The student on the server that draws its answers; None where this process draws them. Asks nothing yet."""
    if config.train.rollout_engine is None:
        return None
    gates.check_regions(config)  # it may be new since the teacher was asked
    provider = plugins.load("distill.providers", "openai").build(config.train.rollout_engine, Context())
    server = RolloutServer(provider, head_of(student.model).size, config.student.adapter.r)
    return ServedStudent(server, student, config.train, config.seed, folder.rollouts)


def open_scorer(config: RunConfig, student: Loaded, data: Data) -> tuple[Live | Remote, int]:
    """(a teacher that reads the student's tokens, size of the vocabulary both share; 0 = the student's own)."""
    if config.teacher.kind == "openai":
        provider = plugins.load("distill.providers", "openai").build(config.teacher, Context(config.resolve(".")))
        return Remote(provider, head_of(student.model).size), 0
    if is_own_base(config) and not config.train.shard:
        say("train: the teacher is the student's base: the student without its adapter scores")
        return OwnBase(student.model), 0
    model, tokenizer = load_teacher(config)
    vocab = preflight.shared_vocab(student, model, tokenizer)
    preflight.check_pair(student.tokenizer, tokenizer, data.records)
    return Live(model, vocab), vocab


def is_own_base(config: RunConfig) -> bool:
    """True when the teacher's weights are those under the student's adapter, bit for bit."""
    teacher, student = config.teacher, config.student
    if teacher.adapter or student.adapter.kind in ("none", "qlora") or student.prune is not None:  # type: ignore[attr-defined]
        return False
    device = models.pick_device()
    dtypes = {models.pick_dtype(dtype, device) for dtype in (teacher.dtype, student.dtype)}  # type: ignore[attr-defined]
    paths = {models.resolve(model, config.resolve(".")).path for model in (teacher.model, student.model)}  # type: ignore[attr-defined]
    return len(dtypes) == len(paths) == 1


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
    return models.load_causal_lm(path, settings.dtype, adapter, attention=config.student.attention)


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
