"""On-policy distillation: the student answers, the teacher scores what the student really says.

With chance ``rollout_share`` a step learns from the student's own answers, else from the teacher's text (GKD,
arXiv 2306.13649). ``full`` compares whole distributions; ``sampled`` needs only the teacher's probability of the
token the student chose: the policy gradient of reverse KL, reward = log p - log q of that token. Answers are drawn in
this process or by a vLLM server that is given the student's weights before each step (``train.served``).

Shapes: B rows, T tokens, N completion positions, V vocabulary.
"""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from distill.models import end_ids
from distill.train.schedule import seed_micro
from distill.train.student import causal_lm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from distill.config import Train
    from distill.train.batches import Batch, Row
    from distill.train.objective import Recipe, Softmax, Teacher
    from distill.train.remote import Remote
    from distill.train.served import ServedStudent
    from distill.train.signal import Live, Micros
    from distill.train.student import Loaded

IMPORTANCE = 2.0  # most that a token drawn elsewhere counts


@dataclass(frozen=True)
class SampledTeacher:
    """A teacher of which only the log-probability of the student's own token is used."""

    logprobs_N: Tensor
    labels_N: Tensor
    drawn_N: Tensor | None = None
    """Log-probability of the token by the engine that drew it; None where that was this student itself."""

    def chunk(self, rows: slice) -> SampledTeacher:
        drawn_n = None if self.drawn_N is None else self.drawn_N[rows]
        return SampledTeacher(self.logprobs_N[rows], self.labels_N[rows], drawn_n)

    def slope(self, student: Softmax, rows: slice, recipe: Recipe) -> tuple[Tensor, Tensor]:
        """(log q - log p of the token [n], that times the score function [n, V]).

        Its mean over the student's own tokens is the gradient of KL(student || teacher). Tokens that another engine
        drew count by how much likelier they are here, at most IMPORTANCE times (truncated importance sampling,
        Ionides 2008): rounding there would else be learnt as if it were the student's own.
        """
        labels_n1 = self.labels_N[rows][:, None]
        own_n1 = student.at(labels_n1)
        ratio_n1 = own_n1 - self.logprobs_N[rows][:, None]
        if self.drawn_N is not None:
            ratio_n1 = ratio_n1 * (own_n1 - self.drawn_N[rows][:, None]).exp().clamp(max=IMPORTANCE)
        return ratio_n1[:, 0], (student.probs_nV * -ratio_n1).scatter_add_(-1, labels_n1, ratio_n1)


class OnPolicy:
    """A teacher, in this process or on a server, that scores the student's own answers.

    ``served``: the student on the server that draws them; None = this process does.
    """

    def __init__(
        self, scorer: Live | Remote, student: Loaded, settings: Train, seed: int, served: ServedStudent | None = None
    ):
        self.scorer, self.student, self.settings, self.seed = scorer, student, settings, seed
        self.served = served

    def rows(self, step: int, micros: Micros) -> list[Sequence[Row]]:
        """The rows with the student's answers in steps that are on-policy, which depends on (seed, step) alone."""
        if not is_on_policy(self.seed, step, self.settings.rollout_share):
            return [rows for _, rows in micros]
        if self.served is None:
            return [self._rolled_out(step, number, rows) for number, rows in micros]
        answered = iter(self.served.draw(step, [row for _, rows in micros for row in rows]))
        return [list(itertools.islice(answered, len(rows))) for _, rows in micros]

    def _rolled_out(self, step: int, number: int, rows: Sequence[Row]) -> list[Row]:
        seed_micro(self.seed, step, -1 - number)
        return roll_out(self.student, rows, self.settings.rollout_max_new_tokens, self.settings.rollout_temperature)

    def figures(self, step: int, apart: float) -> dict[str, float]:
        """With a server: `sync_error`, how far its log-probabilities were from the student's on the canary rows, and
        `rollout_kl`, an estimate of KL(server's student || this one) on the step's own answers; nats a token."""
        if self.served is None or not is_on_policy(self.seed, step, self.settings.rollout_share):
            return {}
        return {"sync_error": self.served.sync_error, "rollout_kl": apart}

    def count(self, rows: Sequence[Row]) -> int:
        """Completion tokens."""
        return self.scorer.count(rows)

    def teacher(self, batch: Batch) -> Teacher:
        """The teacher at the batch's completion positions."""
        if batch.own and self.settings.rollout_objective == "sampled":
            drawn = [value for row in batch.rows for value in row.logprobs]
            drawn_N = torch.tensor(drawn, device=batch.labels_N.device) if drawn else None
            return SampledTeacher(self.scorer.chosen(batch), batch.labels_N, drawn_N)
        return self.scorer.teacher(batch)


def is_on_policy(seed: int, step: int, share: float) -> bool:
    """Whether ``step`` learns from the student's own answers."""
    digest = hashlib.sha256(f"{seed}:{step}:on-policy".encode()).digest()
    return int.from_bytes(digest[:8]) < share * 2**64


def roll_out(student: Loaded, rows: Sequence[Row], max_new_tokens: int, temperature: float) -> list[Row]:
    """The rows with completions drawn from the student as it is now; an answer cut short has no end-of-turn id."""
    from transformers import GenerationConfig

    ends = end_ids(student.tokenizer)
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=True,
        temperature=temperature,
        top_k=0,
        top_p=1.0,
        repetition_penalty=1.0,
        eos_token_id=ends,
        pad_token_id=student.pad,
    )
    device = next(causal_lm(student.model).parameters()).device
    width = max(len(row.prompt) for row in rows)
    ids_BT = torch.full((len(rows), width), student.pad, device=device)
    mask_BT = torch.zeros_like(ids_BT)
    for number, row in enumerate(rows):
        ids_BT[number, width - len(row.prompt) :] = torch.tensor(row.prompt, device=device)
        mask_BT[number, width - len(row.prompt) :] = 1
    was_training = student.model.training
    student.model.eval()
    with torch.no_grad():
        said_BT = student.model.generate(input_ids=ids_BT, attention_mask=mask_BT, generation_config=settings)
    student.model.train(was_training)
    answers = said_BT[:, width:].tolist()
    return [
        replace(row, completion=until_end(answer, ends), own=True) for row, answer in zip(rows, answers, strict=True)
    ]


def until_end(answer: Sequence[int], ends: Sequence[int]) -> tuple[int, ...]:
    """The tokens up to and with the first that ends a turn."""
    stop = next((i + 1 for i, token in enumerate(answer) if token in ends), len(answer))
    return tuple(answer[:stop])
