"""What a step depends on, as pure functions of the step: learning rate, random seed, and when to stop."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import signal
from typing import TYPE_CHECKING, Any

import torch

from distill.errors import DistillError, Interrupted, Preempted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType


def lr_at(step: int, total: int, *, peak: float, warmup: float, schedule: str) -> float:
    """Learning rate of ``step`` (from 0) of ``total``: a linear rise, then constant, a line or a half cosine to 0."""
    rising = math.ceil(total * warmup)
    if step < rising:
        return peak * (step + 1) / rising
    done = (step - rising) / max(1, total - rising)
    if schedule == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * done))
    return peak * (1 - done) if schedule == "linear" else peak


def set_lr(optimizer: Any, rate: float) -> None:
    """Give every parameter group the learning rate of this step."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def seed_micro(seed: int, step: int, micro: int) -> None:
    """Seed every generator (dropout) for one micro-batch: nothing before it can matter."""
    torch.manual_seed(int.from_bytes(hashlib.sha256(f"{seed}:{step}:{micro}".encode()).digest()[:8]) >> 1)


def be_deterministic(threads: int) -> int:
    """Deterministic algorithms and a fixed number of CPU threads, which is returned."""
    if threads:
        torch.set_num_threads(threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    torch.utils.deterministic.fill_uninitialized_memory = False  # nothing here reads what it has not written
    return torch.get_num_threads()


class Stop:
    """Whether a signal asked the run to stop, and which. Where nothing is to be saved, it stops there and then."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._deferred = False

    def __bool__(self) -> bool:
        return self.number is not None

    def ask(self, number: int, _frame: FrameType | None) -> None:
        """Signal handler: set the flag, nothing else; a second signal leaves at once."""
        if self.number is not None:
            raise KeyboardInterrupt
        self.number = number
        if not self._deferred:
            raise self.error("what was there before")

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside, a signal only sets the flag, which is to be asked for."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def error(self, safe: str) -> DistillError:
        """How the run ends."""
        kind, what = (
            (Interrupted, "interrupted") if self.number == signal.SIGINT else (Preempted, "stopped by a signal")
        )
        return kind(f"training {what}", safe=safe, next="the same command goes on from there")


@contextlib.contextmanager
def stopping() -> Iterator[Stop]:
    """Turn SIGTERM, SIGINT and SIGUSR1 into a flag while training (in the main thread; elsewhere it stays false)."""
    stop, before = Stop(), {}
    try:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            with contextlib.suppress(ValueError):
                before[number] = signal.signal(number, stop.ask)
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
