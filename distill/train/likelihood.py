"""Log-probabilities of given tokens, differentiable, without an array of all logits.

Shapes: N positions (n: those of one chunk), V vocabulary, D hidden size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from distill.train.objective import Head, chunk_size


class _TokenLogprobs(torch.autograd.Function):
    """log q of each label, chunk by chunk; the chunks are computed again in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, vocab: int, labels_N: Tensor, step: int
    ) -> Tensor:
        ctx.save_for_backward(hidden_ND, weight_VD, bias_V, labels_N)
        ctx.vocab, ctx.step = vocab, step
        head, found = Head(weight_VD, bias_V, vocab), []
        for at in range(0, hidden_ND.shape[0], step):
            logits_nV = head.logits(hidden_ND[at : at + step])
            labels_n1 = labels_N[at : at + step, None]
            found.append((logits_nV.gather(-1, labels_n1) - logits_nV.logsumexp(-1, keepdim=True))[:, 0])
        return torch.cat(found)

    @staticmethod
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor | None, ...]:
        hidden_ND, weight_VD, bias_V, labels_N = ctx.saved_tensors
        head = Head(weight_VD, bias_V, ctx.vocab)
        need_weight, need_bias = ctx.needs_input_grad[1:3]
        grad_ND = torch.empty_like(hidden_ND)
        grad_VD = torch.zeros_like(weight_VD) if need_weight else None
        grad_V = torch.zeros_like(bias_V) if need_bias and bias_V is not None else None
        for at in range(0, hidden_ND.shape[0], ctx.step):
            rows = slice(at, at + ctx.step)
            grad_n1 = grad_N[rows, None].float()
            slope_nV = head.logits(hidden_ND[rows]).softmax(-1).mul_(-grad_n1)
            slope_nV = slope_nV.scatter_add_(-1, labels_N[rows, None], grad_n1).to(weight_VD.dtype)
            torch.mm(slope_nV, weight_VD[: head.size], out=grad_ND[rows])
            if grad_VD is not None:
                grad_VD[: head.size].addmm_(slope_nV.T, hidden_ND[rows])
            if grad_V is not None:
                grad_V[: head.size] += slope_nV.sum(0)
        return grad_ND, grad_VD, grad_V, None, None, None


def token_logprobs(hidden_ND: Tensor, head: Head, labels_N: Tensor, chunk_tokens: int = 0) -> Tensor:
    """log q of each label [N], float32; no array of all logits exists, forward or backward."""
    step = chunk_size(head.size, chunk_tokens)
    found: Tensor = _TokenLogprobs.apply(hidden_ND, head.weight_VD, head.bias_V, head.size, labels_N, step)
    return found
