"""The one objective: temperature, missing mass, alignment, chunking and reduction live here; a loss is a pure function.

The head is applied to completion positions only, a chunk of them at a time, and the gradient is formed in the
forward pass: no array of the size of all logits ever exists, for the student or for the teacher. With a frozen
head only the gradient of the hidden states is formed.

    loss = [kd_weight * T^2 * sum(divergence) + (1 - kd_weight) * sum(cross entropy)] / (valid tokens of the step)

Shapes: N completion positions (n: those of one chunk), V vocabulary, D and E hidden sizes of student and teacher,
K stored teacher candidates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from distill.losses._base import Distribution, through_softmax

if TYPE_CHECKING:
    from types import ModuleType

FLOOR = -1e4  # log-probability that stands for a probability of 0: finite, so that losses need no special case
TAIL_FLOOR = 1e-9  # least mass of the tail bucket
CHUNK_BYTES = 64 << 20  # one float32 array of a chunk: the head's matrix is read and packed once per chunk
BLOCK_BYTES = 4 << 20  # ... of a block: what fits a processor's cache while the softmax passes go over it
TILE = 2048  # rows of a float32 head multiplied at a time on a processor: they stay in its cache
# Columns between two rows of logits: a page and five cache lines. Rows a power of two apart would share their places
# in a processor's caches.
APART = 1104


class Room:
    """An array that one chunk after the other is written into: of a new one, the system would clear every page."""

    def __init__(self) -> None:
        self._held: Tensor | None = None

    def of(self, rows: int, columns: int, like_nD: Tensor) -> Tensor:
        """An array [rows, columns] with anything in it; what the room held before is gone."""
        if self._held is None or self._held.shape[0] < rows or self._held.shape[1] != columns:
            self._held = None  # before there are two
            self._held = like_nD.new_empty(rows, columns + APART)[:, :columns]
        return self._held[:rows]


@dataclass(frozen=True)
class Head:
    """An output layer cut to the vocabulary both models share."""

    weight_VD: Tensor
    bias_V: Tensor | None = None
    vocab: int = 0
    """Columns used; families pad their vocabularies to different sizes and the rest is never a text. 0 = all."""

    @property
    def size(self) -> int:
        return self.vocab or self.weight_VD.shape[0]

    def logits(self, hidden_nD: Tensor, room: Room | None = None) -> Tensor:
        """Float32 logits [n, V]; written into ``room`` where a processor multiplies float32."""
        weight_VD = self.weight_VD[: self.size]
        bias_V = None if self.bias_V is None else self.bias_V[: self.size]
        single = weight_VD.dtype == torch.float32
        if torch.is_grad_enabled() or single == weight_VD.is_cuda:
            return torch.nn.functional.linear(hidden_nD, weight_VD, bias_V).float()
        if weight_VD.is_cuda:  # half the bits, but the sums are not rounded back to them
            logits_nV = torch.mm(hidden_nD, weight_VD.T, out_dtype=torch.float32)
        else:
            logits_nV = (room or Room()).of(len(hidden_nD), self.size, hidden_nD)
            for at in range(0, self.size, TILE):
                torch.mm(hidden_nD, weight_VD[at : at + TILE].T, out=logits_nV[:, at : at + TILE])
        return logits_nV if bias_V is None else logits_nV.add_(bias_V)


@dataclass(frozen=True)
class Softmax:
    """Some rows of logits (divided by a temperature) and what one exponential of each makes of them."""

    logits_nV: Tensor
    probs_nV: Tensor
    log_z_n1: Tensor

    @classmethod
    def of(cls, logits_nV: Tensor) -> Softmax:
        probs_nV = logits_nV.softmax(-1)
        return cls(logits_nV, probs_nV, logits_nV.amax(-1, keepdim=True) - probs_nV.amax(-1, keepdim=True).log())

    def all(self) -> Distribution:
        """The whole distribution; its log-probabilities take the place of the logits."""
        return Distribution(self.logits_nV.sub_(self.log_z_n1), self.probs_nV)

    def at(self, ids_nK: Tensor) -> Tensor:
        """Log-probabilities [n, K] of some ids."""
        return self.logits_nV.gather(-1, ids_nK) - self.log_z_n1


class Teacher(Protocol):
    """Where the teacher's distribution comes from."""

    def chunk(self, rows: slice) -> Chunk:
        """The teacher of these positions."""


class Chunk(Protocol):
    """The teacher of one chunk of positions."""

    def slope(self, student: Softmax, rows: slice, recipe: Recipe) -> tuple[Tensor, Tensor]:
        """(divergence [n], d divergence / d (logits / T) [n, V]) of some rows of the chunk.

        ``student`` is the softmax of logits / T; its probabilities are not changed, its logits are not needed again.
        """


def chunk_size(vocab: int, wanted: int = 0) -> int:
    """Positions whose logits exist at the same time: those wanted, or as many as fill CHUNK_BYTES."""
    return wanted or max(16, CHUNK_BYTES // (4 * vocab))


@dataclass(frozen=True)
class Recipe:
    """What is minimised."""

    loss: ModuleType
    config: Any
    kd_weight: float = 0.0
    temperature: float = 1.0
    chunk_tokens: int = 0
    """Positions per chunk; 0 = as many as fill CHUNK_BYTES."""

    def chunk(self, vocab: int) -> int:
        """Positions per chunk for a vocabulary."""
        return chunk_size(vocab, self.chunk_tokens)

    def block(self, logits_nV: Tensor) -> int:
        """Positions per block: few on a processor with caches, all of the chunk on an accelerator."""
        return logits_nV.shape[0] if logits_nV.is_cuda else max(1, BLOCK_BYTES // (4 * logits_nV.shape[1]))

    def gradient(self, student: Distribution, teacher: Distribution) -> tuple[Tensor, Tensor]:
        """(divergence [n], d divergence / d student logit): the loss's own gradient, or autograd's."""
        if hasattr(self.loss, "gradient"):
            value, slope = self.loss.gradient(student, teacher, self.config)
            return value, slope
        value, slope = self.partial(student.log, teacher.log)
        return value, through_softmax(slope, student.p)

    def partial(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """(divergence [n], d divergence / d student log-probability), by autograd."""
        with torch.enable_grad():
            leaf = student.detach().requires_grad_()
            value = self.loss.divergence(leaf, teacher, self.config)
            (slope,) = torch.autograd.grad(value.sum(), leaf)
        return value.detach(), slope


@dataclass(frozen=True)
class LiveTeacher:
    """Hidden states of a teacher at the same positions; its head is applied chunk by chunk."""

    hidden_NE: Tensor
    head: Head
    room: Room = field(default_factory=Room, repr=False, compare=False)

    def chunk(self, rows: slice) -> LiveChunk:
        return LiveChunk(self.head.logits(self.hidden_NE[rows], self.room))


@dataclass(frozen=True)
class LiveChunk:
    """Teacher logits of one chunk."""

    logits_nW: Tensor

    def slope(self, student: Softmax, rows: slice, recipe: Recipe) -> tuple[Tensor, Tensor]:
        teacher_nV = self.logits_nW[rows, : student.logits_nV.shape[1]]
        teacher = Softmax.of(teacher_nV if recipe.temperature == 1 else teacher_nV / recipe.temperature)
        return recipe.gradient(student.all(), teacher.all())


@dataclass(frozen=True)
class StoredTeacher:
    """Top-k (or sampled) teacher log-probabilities at temperature ``temperature``, from disk."""

    ids_NK: Tensor
    logprobs_NK: Tensor
    missing: str = "tail"
    """`tail`: one more bucket holds the mass outside the k. `renormalise`: the k are the whole distribution
    (also right for sampled targets, whose weights sum to 1)."""
    temperature: float = 1.0

    def chunk(self, rows: slice) -> StoredTeacher:
        return StoredTeacher(self.ids_NK[rows], self.logprobs_NK[rows], self.missing, self.temperature)

    def slope(self, student: Softmax, rows: slice, recipe: Recipe) -> tuple[Tensor, Tensor]:
        ids_nK, stored_nK = self.ids_NK[rows], self.logprobs_NK[rows].float()
        student_nK = student.at(ids_nK)
        if self.missing != "tail" or ids_nK.shape[1] == student.logits_nV.shape[1]:
            stored_nK = torch.log_softmax(stored_nK * (self.temperature / recipe.temperature), -1).clamp_(min=FLOOR)
            value_n, slope_nK = recipe.partial(student_nK, stored_nK)
            slope_nV = student.probs_nV * -slope_nK.sum(-1, keepdim=True)
            return value_n, slope_nV.scatter_add_(-1, ids_nK, slope_nK)
        padding_nK = stored_nK.isneginf()  # an id that stands for nothing: its student mass belongs to the tail
        student_nK, stored_nK = (t.masked_fill(padding_nK, FLOOR) for t in (student_nK, stored_nK))
        rest_nV = student.probs_nV.scatter(-1, ids_nK, student.probs_nV.gather(-1, ids_nK).mul_(padding_nK))
        student_tail_n1 = rest_nV.sum(-1, keepdim=True).clamp_(min=TAIL_FLOOR)
        teacher_tail_n1 = (1 - stored_nK.double().exp().sum(-1, keepdim=True)).clamp_(min=TAIL_FLOOR).float()
        buckets = (
            torch.cat([kept_nK, tail_n1.log()], -1)
            for kept_nK, tail_n1 in ((student_nK, student_tail_n1), (stored_nK, teacher_tail_n1))
        )
        value_n, slope_nB = recipe.gradient(*(Distribution(log_nB, log_nB.exp()) for log_nB in buckets))
        # A bucket's logit is the log-sum-exp of its members': each takes its share of the bucket's slope.
        rest_nV.mul_(slope_nB[:, -1:] / student_tail_n1)
        kept_nK = torch.where(padding_nK, rest_nV.gather(-1, ids_nK), slope_nB[:, :-1])
        return value_n, rest_nV.scatter_(-1, ids_nK, kept_nK)


@dataclass(frozen=True)
class Parts:
    """Sums over tokens of what is logged; no gradient."""

    ce: Tensor
    kd: Tensor


class _Chunked(torch.autograd.Function):
    """sum of the loss over all positions; its gradients are formed on the way."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        vocab: int,
        labels_N: Tensor,
        teacher: Teacher | None,
        recipe: Recipe,
    ) -> tuple[Tensor, Tensor, Tensor]:
        head = Head(weight_VD, bias_V, vocab)
        need_hidden, need_weight, need_bias = ctx.needs_input_grad[:3]
        grad_ND = torch.empty_like(hidden_ND) if need_hidden else None
        grad_VD = torch.zeros_like(weight_VD) if need_weight else None
        grad_V = torch.zeros_like(bias_V) if need_bias and bias_V is not None else None
        sums = torch.zeros(2, dtype=torch.float64, device=hidden_ND.device)
        step, room = recipe.chunk(head.size), Room()
        for start in range(0, hidden_ND.shape[0], step):
            rows = slice(start, start + step)
            logits_nV = head.logits(hidden_ND[rows], room)
            chunk = teacher.chunk(rows) if teacher is not None and recipe.kd_weight > 0 else None
            block = recipe.block(logits_nV)
            for at in range(0, logits_nV.shape[0], block):
                some = slice(at, at + block)
                ce, kd, slope_bV = _terms(logits_nV[some], labels_N[rows][some], chunk, some, recipe)
                logits_nV[some] = slope_bV  # the logits are not needed again: their place takes the gradient
                sums += torch.stack([ce, kd])
            slope_nV = logits_nV.to(weight_VD.dtype)
            del chunk, logits_nV
            if grad_ND is not None:
                torch.mm(slope_nV, weight_VD[: head.size], out=grad_ND[rows])
            if grad_VD is not None:
                grad_VD[: head.size].addmm_(slope_nV.T, hidden_ND[rows])
            if grad_V is not None:
                grad_V[: head.size] += slope_nV.sum(0)
            del slope_nV
        ctx.grads = grad_ND, grad_VD, grad_V
        weight = recipe.kd_weight if teacher is not None else 0.0
        loss = (1 - weight) * sums[0] + weight * recipe.temperature**2 * sums[1]
        ce_sum, kd_sum = sums.unbind()
        ctx.mark_non_differentiable(ce_sum, kd_sum)
        return loss.to(torch.float32), ce_sum, kd_sum

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor, *_: Any) -> tuple[Any, ...]:
        grads = [None if grad is None else grad.mul_(grad_loss) for grad in ctx.grads]
        ctx.grads = (None, None, None)
        return (*grads, None, None, None, None)


def _terms(
    logits_nV: Tensor, labels_n: Tensor, teacher: Chunk | None, rows: slice, recipe: Recipe
) -> tuple[Tensor, Tensor, Tensor]:
    """(sum of cross entropy, sum of divergence, d loss / d logits [n, V]) of one block."""
    weight, temperature = recipe.kd_weight if teacher is not None else 0.0, recipe.temperature
    plain = Softmax.of(logits_nV)
    labels_n1 = labels_n[:, None]
    ce = -plain.at(labels_n1).double().sum()
    if teacher is None:
        kd, slope_nV = logits_nV.new_zeros((), dtype=torch.float64), plain.probs_nV
    else:
        tempered = plain if temperature == 1 else Softmax.of(logits_nV / temperature)
        kd_n, slope_nV = teacher.slope(tempered, rows, recipe)
        kd = kd_n.double().sum()
        if weight * temperature != 1:
            slope_nV.mul_(weight * temperature)  # T^2 of the loss times 1/T of the chain rule
        if weight < 1:
            slope_nV.add_(plain.probs_nV, alpha=1 - weight)
    if weight < 1:
        slope_nV.scatter_add_(-1, labels_n1, torch.full_like(labels_n1, weight - 1, dtype=slope_nV.dtype))
    return ce, kd, slope_nV


def chunked_loss(
    hidden_ND: Tensor, head: Head, labels_N: Tensor, teacher: Teacher | None, recipe: Recipe
) -> tuple[Tensor, Parts]:
    """(loss summed over positions, its parts). Divide by the valid tokens of the whole step, over all devices."""
    loss, ce, kd = _Chunked.apply(hidden_ND, head.weight_VD, head.bias_V, head.size, labels_N, teacher, recipe)
    return loss, Parts(ce, kd)


def sample_targets(logprobs_NV: Tensor, draws: int, generator: torch.Generator) -> StoredTeacher:
    """Unbiased sparse targets: ``draws`` tokens with replacement, weight = count / draws (arXiv 2503.16870).

    The forward-KL gradient against them is, in expectation, the gradient against the full distribution.
    """
    ids_NK = torch.multinomial(logprobs_NV.exp(), draws, replacement=True, generator=generator)
    return StoredTeacher(ids_NK, torch.full(ids_NK.shape, -math.log(draws)), missing="renormalise")
