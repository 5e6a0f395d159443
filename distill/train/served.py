"""The student on a rollout server, at the weights it has here: published before a step, proven, then asked.

Every step that learns from the student's own answers first writes the adapter into the run folder and has the server
load it under a name made from its bytes. The server then scores a few rows (the canary), and the student here must
give them the same log-probabilities. How far apart two engines are by rounding alone is measured on the base, before
the first step: stale weights, an adapter that is not applied and another base all lie far outside.

Shapes: N scored positions.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from accelerate import PartialState
from accelerate.utils import broadcast
from safetensors.torch import save

from distill import artifacts
from distill.errors import ConfigError, DistillError, EnvironmentProblem
from distill.models import end_ids
from distill.train.batches import collate
from distill.train.likelihood import token_logprobs
from distill.train.rollout_server import LEAST
from distill.train.spool import Spool
from distill.train.student import causal_lm, head_of, hidden_states

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor

    from distill.config import Train
    from distill.train.batches import Row
    from distill.train.rollout_server import RolloutServer
    from distill.train.student import Loaded

CANARY_ROWS = 8
BASE_APART = 0.2  # nats a token, mean: two engines with one set of weights are closer, in bfloat16 too
SURE = 4.0  # times the distance of the two engines on the base ...
SHARE = 0.1  # ... plus this share of what the adapter has changed: rounding grows with it
ROUNDING = 1e-4  # nats a token, the least distance that counts


@dataclass
class Canary:
    """A few rows that both engines score."""

    student: Loaded
    rows: tuple[Row, ...]
    base_N: Tensor | None = None
    noise: float = 0.0

    @property
    def texts(self) -> list[list[int]]:
        """Token ids of each row."""
        return [[*row.prompt, *row.completion] for row in self.rows]

    def own(self) -> Tensor:
        """Log-probability [N] of every token but the first of each row, by the student as it is here."""
        model = self.student.model
        was_training = model.training
        model.eval()
        found = []
        for row, ids in zip(self.rows, self.texts, strict=True):
            whole = replace(row, prompt=tuple(ids[:1]), completion=tuple(ids[1:]))
            batch = collate([whole], pad=self.student.pad).to(next(causal_lm(model).parameters()).device)
            with torch.no_grad():
                found.append(token_logprobs(hidden_states(model, batch), head_of(model), batch.labels_N))
        model.train(was_training)
        return torch.cat(found).double().cpu().clamp_(min=LEAST)

    def check_base(self, scored: Sequence[float], where: str) -> None:
        """The server's base is the student's: sets how far apart they are by rounding. Raises ConfigError."""
        with self.student.model.disable_adapter():
            self.base_N = self.own()
        apart_N = (torch.tensor(scored, dtype=torch.float64) - self.base_N).abs()
        self.noise = max(float(apart_N.norm()), ROUNDING * len(apart_N) ** 0.5)
        if not float(apart_N.mean()) <= BASE_APART:
            raise ConfigError(
                f"the rollout server's model is not the student's base: {float(apart_N.mean()):.3g} nats a token apart "
                f"(at most {BASE_APART:g})",
                where=where,
                next="serve the weights that student.model names, with their tokenizer",
            )

    def check(self, scored: Sequence[float], where: str) -> float:
        """The server has the student's weights; how far apart they are, in nats a token. Raises EnvironmentProblem."""
        assert self.base_N is not None
        own_N = self.own()
        apart_N = torch.tensor(scored, dtype=torch.float64) - own_N
        limit = SURE * self.noise + SHARE * float((own_N - self.base_N).norm())
        if not float(apart_N.norm()) <= limit:
            count = len(apart_N) ** 0.5
            raise EnvironmentProblem(
                f"the rollout server does not have the student's weights: {float(apart_N.norm()) / count:.3g} nats a "
                f"token apart, and rounding explains {limit / count:.3g}: its adapter is not applied, or an older one "
                "answers",
                where=where,
                safe="the last checkpoint",
                next="start the server again, then the same command",
            )
        return float(apart_N.abs().mean())


class ServedStudent:
    """Draws the student's answers on a server. ``folder`` is on a disk that the server sees under the same path."""

    def __init__(self, server: RolloutServer, student: Loaded, settings: Train, seed: int, folder: Path):
        self.server, self.student, self.settings, self.seed, self.folder = server, student, settings, seed, folder
        self.spool = Spool(folder, folder.parent)
        self.canary = Canary(student, ())
        self.name = ""
        self.sync_error = 0.0

    def open(self, rows: Sequence[Row]) -> None:
        """Prove that the server has the student's base and room for ``rows``. Every process calls this.

        Raises ConfigError, EnvironmentProblem, TeacherUnavailable.
        """
        self.canary.rows = tuple(sorted(rows, key=lambda row: (len(row), row.id, row.key))[:CANARY_ROWS])
        longest = max(len(row.prompt) for row in rows) + self.settings.rollout_max_new_tokens

        def prove() -> float:
            self.server.check(max(longest, *(len(text) + 1 for text in self.canary.texts)))
            self.canary.check_base(self.server.score(self.server.base, self.canary.texts), self.server.url)
            return 0.0

        first_only(prove)

    def draw(self, step: int, rows: Sequence[Row]) -> list[Row]:
        """The rows with the student's own answers. Every process calls this, each with its own rows.

        Raises EnvironmentProblem, TeacherUnavailable, DiskProblem.
        """
        self._sync()
        settings = self.settings
        wanted = {
            "max_tokens": settings.rollout_max_new_tokens,
            "temperature": settings.rollout_temperature,
            "stop_token_ids": end_ids(self.student.tokenizer),
        }
        seeds = [seed_of(self.seed, step, row) for row in rows]
        what = [self.name, seeds, wanted, [row.prompt for row in rows]]
        key = hashlib.sha256(json.dumps(what).encode()).hexdigest()
        kept = self.spool.read(step, key)
        if kept is None:
            drawn = self.server.draw(self.name, [row.prompt for row in rows], seeds, wanted)
            self.spool.write(step, key, drawn, self.sync_error)
        else:
            drawn, self.sync_error = kept
        return [
            replace(row, completion=one.ids, own=True, logprobs=one.logprobs)
            for row, one in zip(rows, drawn, strict=True)
        ]

    def _sync(self) -> None:
        """Give the server the weights of this moment, unless it has them."""
        tensors = {name: parameter.detach().cpu().contiguous() for name, parameter in self.student.trainable}
        name = f"student-{hashlib.sha256(save(tensors)).hexdigest()[:24]}"
        if name != self.name:
            self.sync_error = first_only(lambda: self._publish(name))
            self.name = name

    def _publish(self, name: str) -> float:
        target = self.folder / name
        old = [path for path in self.folder.glob("student-*") if path != target]
        with artifacts.new_folder(target) as path:
            self.student.model.save_pretrained(path, save_embedding_layers=False)
        self.server.load(name, target)
        apart = self.canary.check(self.server.score(name, self.canary.texts), self.server.url)
        for path in old:
            self.server.unload(path.name)
            shutil.rmtree(path)
        return apart


def seed_of(seed: int, step: int, row: Row) -> int:
    """Seed of one answer: of nothing but the run's seed, the step and the row."""
    digest = hashlib.sha256(f"{seed}:{step}:{row.id}:{row.key}:rollout".encode()).digest()
    return int.from_bytes(digest[:8]) >> 2  # servers want a signed number of 64 bits


def first_only(work: Callable[[], float]) -> float:
    """What ``work`` gives in the first process, in all of them. When it fails there, no process goes on."""
    state, problem = PartialState(), None
    said = torch.zeros(2, dtype=torch.float64, device=state.device)
    if state.is_main_process:
        try:
            said[0] = work()
        except DistillError as error:
            said[1], problem = 1.0, error
    said = broadcast(said)
    if problem is not None:
        raise problem
    if said[1]:
        raise EnvironmentProblem("the first process has a problem with the rollout server, which it tells")
    return float(said[0])
