"""The student on a rollout server, at the weights it has here: published before a step, asked, and proven.

Every step that learns from the student's own answers first writes the adapter into the run folder and has the server
load it under a name made from its bytes. Of what the server then draws, some tokens are scored by the student here:
both must give them the same log-probabilities. How far apart two engines are by rounding alone is measured on the base,
before the first step: stale weights, an adapter that is not applied and another base all lie far outside.

The tokens that were drawn are compared, and no others are scored (`prompt_logprobs`): with adapters enabled, vLLM 0.32
falls over when two such requests meet in one batch.

Shapes: N scored tokens.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from safetensors.torch import save

from distill import artifacts
from distill.errors import ConfigError, DistillError, EnvironmentProblem
from distill.models import end_ids
from distill.train.batches import collate
from distill.train.likelihood import token_logprobs
from distill.train.rollout_server import LEAST, Drawn
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

CANARY_ROWS, CANARY_TOKENS = 4, 64  # answers that are scored here, too, and tokens of each
BASE_APART = 0.2  # nats a token, mean: two engines with one set of weights are closer, in bfloat16 too
SURE = 4.0  # times the distance of the two engines on the base ...
SHARE = 0.1  # ... plus this share of what the adapter has changed: rounding grows with it
TELL_FIRST_S = 5.0  # the process that knows what is wrong says it before the others end
ROUNDING = 1e-4  # nats a token, the least distance that counts


@dataclass
class Canary:
    """Compares log-probabilities of a server's own tokens with those the student here gives them."""

    student: Loaded
    where: str
    noise: float = 0.0
    """Root mean square of the distance on the base, in nats a token."""

    def own(self, rows: Sequence[Row]) -> Tensor:
        """Log-probability [N] of the completion tokens, by the student as it is here."""
        model = self.student.model
        was_training = model.training
        model.eval()
        batch = collate(rows, pad=self.student.pad, share=False).to(next(causal_lm(model).parameters()).device)
        with torch.no_grad():
            found_N = token_logprobs(hidden_states(model, batch), head_of(model), batch.labels_N)
        model.train(was_training)
        return found_N.double().cpu().clamp_(min=LEAST)

    def base(self, rows: Sequence[Row]) -> Tensor:
        """The same by the base."""
        with self.student.model.disable_adapter():
            return self.own(rows)

    def check_base(self, rows: Sequence[Row]) -> None:
        """The server's base, which drew ``rows``, is the student's: measures rounding. Raises ConfigError."""
        rows, drawn_N = probed(rows)
        apart_N = (drawn_N - self.base(rows)).abs()
        self.noise = max(rms(apart_N), ROUNDING)
        if not float(apart_N.mean()) <= BASE_APART:
            raise ConfigError(
                f"the rollout server's model is not the student's base: {float(apart_N.mean()):.3g} nats a token apart "
                f"(at most {BASE_APART:g})",
                where=self.where,
                next="serve the weights that student.model names, with the default --logprobs-mode",
            )

    def check(self, rows: Sequence[Row]) -> float:
        """The student's weights drew ``rows``; the mean distance in nats a token. Raises EnvironmentProblem."""
        rows, drawn_N = probed(rows)
        own_N = self.own(rows)
        apart, limit = rms(drawn_N - own_N), SURE * self.noise + SHARE * rms(own_N - self.base(rows))
        if not apart <= limit:
            raise EnvironmentProblem(
                f"the rollout server does not have the student's weights: {apart:.3g} nats a token apart, and rounding "
                f"explains {limit:.3g}: its adapter is not applied, or an older one answers",
                where=self.where,
                safe="the last checkpoint",
                next="start the server again, then the same command",
            )
        return float((drawn_N - own_N).abs().mean())


def probed(rows: Sequence[Row]) -> tuple[list[Row], Tensor]:
    """(some of the rows with the first tokens of their answers, the log-probabilities [N] the server gave those)."""
    cut = [
        replace(row, completion=row.completion[:CANARY_TOKENS], logprobs=row.logprobs[:CANARY_TOKENS])
        for row in rows[:CANARY_ROWS]
    ]
    return cut, torch.tensor([value for row in cut for value in row.logprobs], dtype=torch.float64)


def rms(values_N: Tensor) -> float:
    """Root mean square."""
    return float(values_N.square().mean().sqrt())


class ServedStudent:
    """Draws the student's answers on a server. ``folder`` is on a disk that the server sees under the same path."""

    def __init__(self, server: RolloutServer, student: Loaded, settings: Train, seed: int, folder: Path):
        self.server, self.student, self.settings, self.seed, self.folder = server, student, settings, seed, folder
        self.spool = Spool(folder, folder.parent)
        self.canary = Canary(student, server.url)
        self.name = ""
        self.sync_error = 0.0

    def open(self, rows: Sequence[Row]) -> None:
        """Prove that the server has the student's base and room for ``rows``. Every process calls this.

        Raises ConfigError, EnvironmentProblem, TeacherUnavailable.
        """
        longest = max(len(row.prompt) for row in rows) + self.settings.rollout_max_new_tokens

        def prove() -> float:
            self.server.check(longest)
            some = sorted(rows, key=lambda row: (len(row), row.id, row.key))[:CANARY_ROWS]
            self.canary.check_base(self._asked(self.server.base, 0, some))
            return self.canary.noise

        self.canary.noise = together(prove, first=True)

    def draw(self, step: int, rows: Sequence[Row]) -> list[Row]:
        """The rows with the student's own answers. Every process calls this, each with its own rows.

        Raises EnvironmentProblem, TeacherUnavailable, DiskProblem.
        """
        self._publish()
        what = [self.name, step, self.seed, self._settings(), [[row.id, row.key, row.prompt] for row in rows]]
        key = hashlib.sha256(json.dumps(what).encode()).hexdigest()
        answered: list[Row] = []

        def work() -> float:
            kept = self.spool.read(step, key)
            if kept is not None:
                drawn, apart = kept
                answered.extend(with_answers(rows, drawn))
            else:
                answered.extend(self._asked(self.name, step, rows))
                apart = self.canary.check(answered)
                self.spool.write(step, key, [Drawn(row.completion, row.logprobs) for row in answered], apart)
            return apart

        self.sync_error = together(work)
        return answered

    def _asked(self, name: str, step: int, rows: Sequence[Row]) -> list[Row]:
        seeds = [seed_of(self.seed, step, row) for row in rows]
        return with_answers(rows, self.server.draw(name, [row.prompt for row in rows], seeds, self._settings()))

    def _settings(self) -> dict[str, Any]:
        settings = self.settings
        return {
            "max_tokens": settings.rollout_max_new_tokens,
            "temperature": settings.rollout_temperature,
            "stop_token_ids": end_ids(self.student.tokenizer),
        }

    def _publish(self) -> None:
        """Give the server the weights of this moment, unless it has them: the first process does."""
        tensors = {name: parameter.detach().cpu().contiguous() for name, parameter in self.student.trainable}
        name = f"student-{hashlib.sha256(save(tensors)).hexdigest()[:24]}"
        if name == self.name:
            return

        def work() -> float:
            target = self.folder / name
            with artifacts.new_folder(target) as path:
                self.student.model.save_pretrained(path, save_embedding_layers=False)
            self.server.load(name, target)
            for path in self.folder.glob("student-*"):
                if path != target:
                    self.server.unload(path.name)
                    shutil.rmtree(path)
            return 0.0

        together(work, first=True)
        self.name = name


def with_answers(rows: Sequence[Row], drawn: Sequence[Drawn]) -> list[Row]:
    """The rows with these completions."""
    return [
        replace(row, completion=one.ids, own=True, logprobs=one.logprobs) for row, one in zip(rows, drawn, strict=True)
    ]


def seed_of(seed: int, step: int, row: Row) -> int:
    """Seed of one answer: of nothing but the run's seed, the step and the row."""
    digest = hashlib.sha256(f"{seed}:{step}:{row.id}:{row.key}:rollout".encode()).digest()
    return int.from_bytes(digest[:8]) >> 2  # servers want a signed number of 64 bits


def together(work: Callable[[], float], *, first: bool = False) -> float:
    """Do ``work`` in every process, or in the ``first`` alone; what the first one's gives, in all of them.

    When it fails in one, none goes on: the others would wait for it for ever.
    """
    state, problem = PartialState(), None
    said = torch.zeros(2, dtype=torch.float64, device=state.device)
    if state.is_main_process or not first:
        try:
            value = work()
            said[0] = value if state.is_main_process else 0.0
        except DistillError as error:
            said[1], problem = 1.0, error
    value, failures = reduce(said, "sum").tolist()
    if problem is not None:
        raise problem
    if failures:
        time.sleep(TELL_FIRST_S)  # a launcher ends all processes as soon as one has ended
        raise EnvironmentProblem("another process has a problem with the rollout server, which it tells")
    return float(value)
