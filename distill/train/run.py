"""Stage 2: data -> checkpoints -> student. One loop, read top to bottom.

Everything a step needs is a pure function of (seed, step): which rows, their order, the learning rate, the random
numbers. So a run killed at any step and started again ends with the same bytes as one that was left alone.
"""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING, Any

import torch

from distill.progress import progress, say
from distill.train import devices, export, setup, tracking
from distill.train.batches import halve
from distill.train.checkpoint import State, folder_of, restore_weights, save_checkpoint
from distill.train.guard import check_finite, check_spike, is_out_of_memory, memory_limit, remembered
from distill.train.holdout import best_step, has_stalled, is_due
from distill.train.meter import Meter
from distill.train.metrics import MetricsLog
from distill.train.resume import resume
from distill.train.schedule import Stop, lr_at, seed_micro, set_lr, stopping

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from distill.artifacts import RunFolder
    from distill.config import RunConfig
    from distill.train.batches import Row
    from distill.train.setup import Ready

VERSION = 1
SETTINGS = ("seed", "teacher", "student", "train")
AFTER = ("generate",)


def inputs(config: RunConfig) -> list[Path]:
    """The student's own files when it is a local folder."""
    kind, _, name = config.student.model.partition(":")
    return sorted(config.resolve(name).glob("*.*")) if kind == "path" else []


def run(config: RunConfig, folder: RunFolder) -> Sequence[Path]:
    """Train the student; return what was written."""
    with stopping() as stop, memory_limit():
        return train(config, folder, stop)


def train(config: RunConfig, folder: RunFolder, stop: Stop) -> Sequence[Path]:
    """The whole stage. Raises Diverged, Preempted, Interrupted, ConfigError, DataError, IntegrityError, DiskProblem."""
    ready = setup.prepare(config, folder)
    settings, accelerator, optimizer, steps = config.train, ready.accelerator, ready.optimizer, ready.steps
    done = resume(folder, ready.identity, ready.trainable, optimizer.optimizer)
    log = MetricsLog(folder.metrics, done.metrics_bytes, silent=not accelerator.is_main_process)
    meter = Meter(done.tokens, done.seconds, done.facts.get("wh", 0.0), settings.eur_per_hour)
    measured: dict[str, Any] = dict(done.facts.get("holdout", {}))
    losses: list[float] = list(done.facts.get("losses", ()))
    halvings = int(done.facts.get("halvings", 0))
    saved = (done.step, len(measured)) if done.step else None

    def save(complete: bool) -> None:
        nonlocal saved
        if saved != (step, len(measured)):
            facts = {"holdout": measured, "losses": remembered(losses), "halvings": halvings, "wh": meter.wh}
            facts["complete"] = complete
            state = State(step, log.sync(), meter.seconds, meter.tokens, ready.identity, facts)
            save_checkpoint(
                folder.checkpoints,
                state,
                ready.trainable,
                optimizer.optimizer,
                settings.keep_checkpoints,
                best_step(measured) if settings.patience else None,
                accelerator.is_main_process,
            )
        saved = step, len(measured)
        accelerator.wait_for_everyone()

    def write(values: dict[str, Any]) -> None:
        log.write(values)
        tracking.record(accelerator, values)

    # Several processes stop together, between two steps: half-way through one, the others would wait for ever.
    alone = stop if accelerator.num_processes == 1 else Stop()
    tracking.start(accelerator, config)
    step, saved_at = done.step, time.monotonic()
    ready.wrapped.train()
    with progress("train", len(steps), "steps") as bar, stop.deferred():
        bar.resume_at(step)
        while True:
            due = is_due(step, len(steps), settings.eval_every or ready.epoch) and str(step) not in measured
            if due and (values := ready.holdout.measure(alone)):
                measured[str(step)] = values
                write({"step": step, **values})
            timed = step > done.step and time.monotonic() - saved_at >= settings.checkpoint_every_s
            asked, timed = devices.agree(accelerator, bool(stop), timed)
            over = not asked and (step == len(steps) or has_stalled(measured, settings.patience))
            best = bool(settings.patience) and best_step(measured) == step
            if asked or over or best or timed:
                save(over)
                saved_at = time.monotonic()
            if asked:
                raise stop.error(f"the checkpoint of step {step}")
            if over:
                break
            sums, halvings = fitting(ready, config, step, halvings, alone)
            if sums is None:
                continue  # asked to stop half-way through the step, which is then done again
            loss, ce, kd, drawn = sums
            rows = [ready.data.train.rows[i] for micro in steps[step] for i in micro]
            check_spike(loss, losses, settings.max_spike, rows, step, folder.metrics)
            rate, norm = update(ready, config, step, rows)
            step += 1
            losses.append(loss)
            meter.tokens += sum(map(len, rows))
            more = ready.source.figures(step - 1, drawn + ce)
            write({"step": step, "loss": loss, "ce": ce, "kd": kd, "lr": rate, "grad_norm": norm} | more)
            bar.advance(1, **meter.shown(loss, ce, kd))
    log.close()
    kept = step
    if settings.patience and (best_at := best_step(measured)) not in (None, step):
        kept = best_at
        restore_weights(folder_of(folder.checkpoints, kept), ready.trainable)
    devices.join(ready.wrapped)
    facts = export.facts(config, ready, meter, measured, step, kept)
    say(export.summary(facts))
    if accelerator.is_main_process:
        export.write(folder, ready.student, ready.base.name, facts)
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return [folder.student, folder.metrics]


def fitting(
    ready: Ready, config: RunConfig, step: int, halvings: int, stop: Stop
) -> tuple[tuple[float, float, float, float] | None, int]:
    """(:func:`accumulate` in micro-batches that fit, how often they were halved): the batch stays what it was."""
    while True:
        micros = halve(ready.steps[step], halvings)
        try:
            return accumulate(ready, config, step, micros, stop), halvings
        except (MemoryError, RuntimeError) as error:
            # Another process would wait for this one's gradients; there, the run ends with exit code 15.
            if not is_out_of_memory(error) or max(map(len, micros)) == 1 or ready.accelerator.num_processes > 1:
                raise
        ready.optimizer.zero_grad(set_to_none=True)
        gc.collect()
        torch.cuda.empty_cache()
        halvings += 1
        say(f"train: out of memory in step {step + 1}; from here on micro-batches are cut into {2**halvings}")


def accumulate(
    ready: Ready, config: RunConfig, step: int, micros: Sequence[Sequence[int]], stop: Stop
) -> tuple[float, float, float, float] | None:
    """Form the gradients of one step. None when asked to stop.

    Returns, per token: loss, cross entropy, divergence, and the log-probability by the engine that drew the answers.
    """
    accelerator, source, rows = ready.accelerator, ready.source, ready.data.train.rows
    shares = devices.share_of(len(micros), accelerator, split=config.train.shard)
    learnt = source.rows(step, [(number, [rows[i] for i in micros[number]]) for number, _ in shares])
    own = [(number, weight, some) for (number, weight), some in zip(shares, learnt, strict=True)]
    valid = devices.total(sum(weight * source.count(some) for _, weight, some in own), accelerator)
    sums = torch.zeros(4, dtype=torch.float64)
    for place, (number, weight, some) in enumerate(own, start=1):
        if stop:
            ready.optimizer.zero_grad(set_to_none=True)
            return None
        batch = ready.lay_out(some).to(accelerator.device)
        seed_micro(config.seed, step, number)
        with devices.sync_on_last(accelerator, ready.wrapped, place == len(own)):
            total, parts = ready.wrapped(batch, source.teacher(batch))
            check_finite(total, "loss", some, step, ready.metrics)
            # Gradients are averaged over processes; the loss is a mean over the tokens of all of them.
            accelerator.backward(total * (weight * accelerator.num_processes / valid))
        sums[:3] += weight * torch.stack([total.detach().double(), parts.ce, parts.kd]).cpu()
        sums[3] += weight * sum(sum(row.logprobs) for row in some)
    loss, ce, kd, drawn = (accelerator.reduce(sums.to(accelerator.device), "sum") / valid).tolist()
    return loss, ce, kd, drawn


def update(ready: Ready, config: RunConfig, step: int, rows: Sequence[Row]) -> tuple[float, float]:
    """Take the optimizer's step; its (learning rate, gradient norm before clipping)."""
    settings, parameters = config.train, [parameter for _, parameter in ready.trainable]
    norm = devices.whole(ready.accelerator.clip_grad_norm_(parameters, settings.max_grad_norm))
    check_finite(norm, "gradient", rows, step, ready.metrics)
    rate = lr_at(step, len(ready.steps), peak=settings.lr, warmup=settings.warmup, schedule=settings.schedule)
    set_lr(ready.optimizer, rate)
    ready.optimizer.step()
    ready.optimizer.zero_grad(set_to_none=True)
    return rate, float(norm)
