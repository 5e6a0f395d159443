"""Stage 2: data -> checkpoints -> student. One loop, read top to bottom.

Everything a step needs is a pure function of (seed, step): which rows, their order, the learning rate, the random
numbers. So a run killed at any step and started again ends with the same bytes as one that was left alone.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch

from distill import models, plugins
from distill.progress import progress, say
from distill.train import export, preflight, setup
from distill.train.align import aligned_loss
from distill.train.batches import collate, plan_steps
from distill.train.checkpoint import State, save_checkpoint
from distill.train.guard import check_finite, memory_limit
from distill.train.metrics import MetricsLog
from distill.train.objective import Recipe
from distill.train.preference import preference_loss
from distill.train.schedule import Stop, be_deterministic, lr_at, seed_micro, set_lr, stopping
from distill.train.student import Objective, load_student, shares_prefix

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from distill.artifacts import RunFolder
    from distill.config import RunConfig

VERSION = 1
SETTINGS = ("seed", "teacher", "student", "train")
AFTER = ("generate",)
LOSSES = {"cross_tokenizer": aligned_loss, "preference": preference_loss}


def inputs(config: RunConfig) -> list[Path]:
    """The student's own files when it is a local folder."""
    kind, _, name = config.student.model.partition(":")
    return sorted(config.resolve(name).glob("*.*")) if kind == "path" else []


def run(config: RunConfig, folder: RunFolder) -> Sequence[Path]:
    """Train the student; return what was written."""
    with stopping() as stop, memory_limit(config.train.micro_batch_size):
        return train(config, folder, stop)


def train(config: RunConfig, folder: RunFolder, stop: Stop) -> Sequence[Path]:
    """The whole stage. Raises Diverged, Preempted, Interrupted, ConfigError, DataError, IntegrityError, DiskProblem."""
    from accelerate import Accelerator

    settings = config.train
    threads = be_deterministic(settings.threads)
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    base = models.resolve(config.student.model, config.resolve("."))
    student = load_student(base.path, config.student.dtype, config.student.adapter, config.seed)
    data = setup.read_data(config, folder, student.tokenizer)
    loss = plugins.load("distill.losses", settings.loss.kind)
    weight = 0.0 if settings.method == "sft" else settings.kd_weight
    recipe = Recipe(loss, settings.loss, weight, settings.temperature, settings.chunk_tokens)
    source, vocab = setup.open_source(config, folder, student, data, recipe)
    objective = Objective(student.model, recipe, vocab, LOSSES.get(settings.method))
    share = settings.share_prefix and shares_prefix(student.model)
    preflight.check_texts(student.tokenizer, data.records, data.train.rows, settings.reasoning)
    preflight.prove(student, data.train.rows, source, vocab, share=share)

    trainable, rows, pad = student.trainable, data.train.rows, student.pad
    parameters = [parameter for _, parameter in trainable]
    optimizer = torch.optim.AdamW(parameters, lr=settings.lr, weight_decay=settings.weight_decay)
    wrapped, optimizer = accelerator.prepare(objective, optimizer)
    steps = plan_steps(data.train.lengths, settings, config.seed)
    epoch = -(-len(rows) // settings.batch_size)
    wanted = setup.identity(config, base, data, threads, accelerator.num_processes)
    done = setup.resume(folder, wanted, trainable, optimizer.optimizer)
    log = MetricsLog(folder.metrics, done.metrics_bytes, silent=not accelerator.is_main_process)
    holdout = setup.Holdout(objective, source, data.holdout, pad, accelerator.device, share)
    measured: dict[str, Any] = dict(done.facts.get("holdout", {}))
    tokens, started = done.tokens, time.monotonic()

    def save(step: int) -> None:
        if accelerator.is_main_process:
            facts = {"holdout": measured, "complete": step == len(steps)}
            state = State(step, log.sync(), done.seconds + time.monotonic() - started, tokens, wanted, facts)
            save_checkpoint(folder.checkpoints, state, trainable, optimizer.optimizer, settings.keep_checkpoints)
        accelerator.wait_for_everyone()

    def measure(step: int) -> None:
        if str(step) not in measured and (values := holdout.measure(stop)):
            measured[str(step)] = values
            log.write({"step": step, **values})

    saved_at = time.monotonic()
    wrapped.train()
    with progress("train", len(steps), "steps") as bar:
        bar.resume_at(done.step)
        for step in range(done.step, len(steps)):
            if step % epoch == 0:
                measure(step)
            micros = steps[step]
            ids = [rows[i].id for micro in micros for i in micro]
            own = [
                (number, share_weight, source.rows(step, number, [rows[i] for i in micros[number]]))
                for number, share_weight in setup.share_of(len(micros), accelerator)
            ]
            valid = setup.total(sum(part * source.count(some) for _, part, some in own), accelerator)
            sums = torch.zeros(3, dtype=torch.float64)
            for number, share_weight, some in own:
                if stop:
                    save(step)
                    raise stop.error(f"the checkpoint of step {step}")
                batch = collate(some, pad=pad, share=share).to(accelerator.device)
                seed_micro(config.seed, step, number)
                with setup.sync_on_last(accelerator, wrapped, number == own[-1][0]):
                    total, parts = wrapped(batch, source.teacher(batch))
                    check_finite(total, "loss", [row.id for row in batch.rows], step, folder.metrics)
                    # Gradients are averaged over processes; the loss is a mean over the tokens of all of them.
                    accelerator.backward(total * (share_weight * accelerator.num_processes / valid))
                sums += share_weight * torch.stack([total.detach().double(), parts.ce, parts.kd]).cpu()
            norm = accelerator.clip_grad_norm_(parameters, settings.max_grad_norm)
            check_finite(norm, "gradient", ids, step, folder.metrics)
            rate = lr_at(step, len(steps), peak=settings.lr, warmup=settings.warmup, schedule=settings.schedule)
            set_lr(optimizer, rate)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            tokens += sum(len(rows[i]) for micro in micros for i in micro)
            mean, ce, kd = (accelerator.reduce(sums.to(accelerator.device), "sum") / valid).tolist()
            log.write({"step": step + 1, "loss": mean, "ce": ce, "kd": kd, "lr": rate, "grad_norm": float(norm)})
            speed = (tokens - done.tokens) / (time.monotonic() - started)
            bar.advance(1, loss=f"{mean:.4g}", tokens=f"{speed:.0f}/s")
            if time.monotonic() - saved_at >= settings.checkpoint_every_s or step + 1 == len(steps):
                save(step + 1)
                saved_at = time.monotonic()
    measure(len(steps))
    log.close()
    if stop:
        raise stop.error("the trained student's last checkpoint")
    seconds = done.seconds + time.monotonic() - started
    facts = {
        "base": config.student.model,
        "base_name": base.name,
        "base_sha256": base.sha256,
        "seed": config.seed,
        "threads": threads,
        "steps": len(steps),
        "rows": len(rows),
        "dropped": data.train.dropped,
        "trainable": sum(p.numel() for p in parameters),
        "tokens": tokens,
        "seconds": round(seconds, 1),
        "tokens_per_s": round(tokens / seconds, 1),
        "versions": wanted["versions"],
        **export.outcome(settings, measured, len(steps)),
    }
    lost, left = facts["holdout_loss_before"], facts["holdout_loss_after"]
    say(f"train: {tokens:,} tokens in {seconds:.0f} s; held-out loss {lost} -> {left}")
    if accelerator.is_main_process:
        export.write(folder, student, base.name, facts)
    accelerator.wait_for_everyone()
    return [folder.student, folder.metrics]
