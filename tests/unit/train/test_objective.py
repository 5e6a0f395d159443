"""The chunked objective gives the loss and the gradients of the plain dense formula."""

from __future__ import annotations

import pytest
import torch

from distill import plugins
from distill.config import Adapter
from distill.models import load_causal_lm
from distill.train.batches import collate, encode_rows
from distill.train.objective import Head, LiveTeacher, Recipe, StoredTeacher, chunked_loss, sample_targets
from distill.train.signal import Live
from distill.train.student import Objective, attach
from tests.unit.train.conftest import records

N, V, D, E = 23, 40, 8, 12
LOSSES = plugins.available("distill.losses")


def parts(seed: int = 0, teacher_vocab: int = V):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    hidden, weight = draw(N, D).requires_grad_(), draw(V, D).requires_grad_()
    labels = torch.randint(0, V, (N,), generator=generator)
    return hidden, weight, labels, draw(N, E), draw(teacher_vocab, E)


def recipe(name: str, **values) -> Recipe:
    module = plugins.load("distill.losses", name)
    return Recipe(module, module.Config(), **{"kd_weight": 0.7, "chunk_tokens": 5} | values)


def dense(hidden, weight, labels, teacher_logprobs, how: Recipe):
    """The formula, written out."""
    logits = hidden @ weight.T
    ce = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    student = torch.log_softmax(logits / how.temperature, -1)
    kd = how.loss.divergence(student, teacher_logprobs, how.config).sum()
    return (1 - how.kd_weight) * ce + how.kd_weight * how.temperature**2 * kd, ce, kd


def teacher_logprobs(teacher_hidden, teacher_weight, temperature: float = 1.0):
    return torch.log_softmax(teacher_hidden @ teacher_weight.T / temperature, -1)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("chunk", [1, 5, 1000])
def test_chunked_equals_dense_in_loss_and_gradients(name, temperature, chunk):
    hidden, weight, labels, t_hidden, t_weight = parts()
    how = recipe(name, temperature=temperature, chunk_tokens=chunk)
    wanted, ce, kd = dense(hidden, weight, labels, teacher_logprobs(t_hidden, t_weight, temperature), how)
    wanted_grads = torch.autograd.grad(wanted, (hidden, weight))
    teacher = LiveTeacher(t_hidden, Head(t_weight))
    loss, logged = chunked_loss(hidden, Head(weight), labels, teacher, how)
    grads = torch.autograd.grad(loss, (hidden, weight))
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-6)
    assert logged.ce.item() == pytest.approx(ce.item(), rel=1e-6)
    assert logged.kd.item() == pytest.approx(kd.item(), rel=1e-5)
    for mine, theirs in zip(grads, wanted_grads, strict=True):
        assert (mine - theirs).norm() <= 1e-6 * theirs.norm() + 1e-7


def test_text_alone_gives_plain_cross_entropy_and_its_gradients():
    hidden, weight, labels, *_ = parts()
    wanted = torch.nn.functional.cross_entropy(hidden @ weight.T, labels, reduction="sum")
    loss, logged = chunked_loss(hidden, Head(weight), labels, None, recipe("forward_kl"))
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-6)
    assert logged.kd.item() == 0
    for mine, theirs in zip(
        torch.autograd.grad(loss, (hidden, weight)), torch.autograd.grad(wanted, (hidden, weight)), strict=True
    ):
        assert torch.allclose(mine, theirs, atol=1e-5)


def test_a_frozen_head_gets_no_gradient_and_the_hidden_states_get_the_same():
    hidden, weight, labels, t_hidden, t_weight = parts()
    teacher, how = LiveTeacher(t_hidden, Head(t_weight)), recipe("jsd")
    loss, _ = chunked_loss(hidden, Head(weight), labels, teacher, how)
    (with_head,) = torch.autograd.grad(loss, hidden)
    frozen = weight.detach()
    loss, _ = chunked_loss(hidden, Head(frozen), labels, teacher, how)
    loss.backward()
    assert frozen.grad is None
    assert torch.equal(hidden.grad, with_head)


@pytest.mark.parametrize("name", LOSSES)
def test_top_k_with_k_equal_to_the_vocabulary_is_dense(name):
    hidden, weight, labels, t_hidden, t_weight = parts()
    how = recipe(name)
    logprobs = teacher_logprobs(t_hidden, t_weight)
    top, ids = logprobs.sort(-1, descending=True)
    wanted, _, _ = dense(hidden, weight, labels, logprobs, how)
    wanted_grads = torch.autograd.grad(wanted, (hidden, weight))
    loss, _ = chunked_loss(hidden, Head(weight), labels, StoredTeacher(ids, top), how)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    for mine, theirs in zip(torch.autograd.grad(loss, (hidden, weight)), wanted_grads, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-4)


def bucketed(logits, ids, teacher_top, how: Recipe):
    """The divergence over K + 1 buckets, written out in float64 with autograd."""
    student = torch.log_softmax(logits.double(), -1)
    inside = torch.zeros_like(student, dtype=torch.bool).scatter_(-1, ids, True)
    tail = student.masked_fill(inside, float("-inf")).logsumexp(-1, keepdim=True)
    teacher_tail = (1 - teacher_top.double().exp().sum(-1, keepdim=True)).log()
    return how.loss.divergence(
        torch.cat([student.gather(-1, ids), tail], -1), torch.cat([teacher_top.double(), teacher_tail], -1), how.config
    ).sum()


@pytest.mark.parametrize("name", LOSSES)
def test_the_tail_bucket_has_the_exact_loss_and_gradient(name):
    hidden, weight, labels, t_hidden, t_weight = parts()
    how = recipe(name, kd_weight=1.0)
    top, ids = teacher_logprobs(t_hidden, t_weight).topk(6, -1)
    wanted = bucketed(hidden @ weight.T, ids, top, how)
    wanted_grads = torch.autograd.grad(wanted, (hidden, weight))
    loss, _ = chunked_loss(hidden, Head(weight), labels, StoredTeacher(ids, top), how)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-4)
    for mine, theirs in zip(torch.autograd.grad(loss, (hidden, weight)), wanted_grads, strict=True):
        assert (mine - theirs).norm() <= 1e-3 * theirs.norm()


def test_padding_entries_of_stored_signals_change_nothing():
    hidden, weight, labels, t_hidden, t_weight = parts()
    how = recipe("forward_kl", kd_weight=1.0)
    top, ids = teacher_logprobs(t_hidden, t_weight).topk(6, -1)
    unused = teacher_logprobs(t_hidden, t_weight).topk(8, -1).indices[:, 6:]
    padded = StoredTeacher(torch.cat([ids, unused], -1), torch.cat([top, torch.full_like(top[:, :2], -torch.inf)], -1))
    one, _ = chunked_loss(hidden, Head(weight), labels, StoredTeacher(ids, top), how)
    two, _ = chunked_loss(hidden, Head(weight), labels, padded, how)
    assert one.item() == pytest.approx(two.item(), rel=1e-6)
    first, second = (torch.autograd.grad(loss, hidden)[0] for loss in (one, two))
    assert torch.allclose(first, second, atol=1e-5)


def test_the_tail_bucket_is_zero_at_equality_where_renormalising_is_not():
    hidden, weight, labels, *_ = parts()
    how = recipe("forward_kl", kd_weight=1.0)
    top, ids = torch.log_softmax((hidden @ weight.T).detach(), -1).topk(4, -1)
    _, tail = chunked_loss(hidden, Head(weight), labels, StoredTeacher(ids, top), how)
    _, renormalised = chunked_loss(hidden, Head(weight), labels, StoredTeacher(ids, top, "renormalise"), how)
    assert tail.kd.item() == pytest.approx(0, abs=1e-4)
    assert renormalised.kd.item() > 0.1


def test_sampled_targets_have_the_dense_gradient_on_average_and_top_k_does_not():
    hidden, weight, labels, t_hidden, t_weight = parts(2)
    t_hidden = t_hidden * 0.3  # a flat teacher: the tail matters
    how = recipe("forward_kl", kd_weight=1.0, chunk_tokens=1000)
    logprobs = teacher_logprobs(t_hidden, t_weight)

    def gradient(teacher) -> torch.Tensor:
        loss, _ = chunked_loss(hidden, Head(weight.detach()), labels, teacher, how)
        return torch.autograd.grad(loss, hidden)[0]

    wanted = gradient(LiveTeacher(t_hidden, Head(t_weight)))
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([gradient(sample_targets(logprobs, 12, generator)) for _ in range(2000)])
    mean, error = draws.mean(0), draws.std(0) / len(draws) ** 0.5
    far = ((mean - wanted).abs() > 4 * error).float().mean()
    assert far < 0.01, "4 standard errors are passed by 0.006 % of unbiased entries"
    top, ids = logprobs.topk(12, -1)
    biased = gradient(StoredTeacher(ids, top, "renormalise"))
    assert ((biased - wanted).abs() > 4 * error).float().mean() > 0.5


def test_padded_vocabularies_of_one_family_are_cut_to_what_both_share():
    hidden, weight, labels, t_hidden, t_weight = parts(teacher_vocab=V + 24)
    how = recipe("forward_kl")
    wanted, _, _ = dense(hidden, weight, labels, teacher_logprobs(t_hidden, t_weight[:V]), how)
    loss, _ = chunked_loss(hidden, Head(weight), labels, LiveTeacher(t_hidden, Head(t_weight)), how)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    labels = labels.clamp(max=V - 11)
    wide = chunked_loss(hidden, Head(weight, vocab=V - 10), labels, LiveTeacher(t_hidden, Head(t_weight)), how)[0]
    narrow_head = weight[: V - 10].detach().requires_grad_()
    narrow = chunked_loss(hidden, Head(narrow_head), labels, LiveTeacher(t_hidden, Head(t_weight[: V - 10])), how)[0]
    assert wide.item() == pytest.approx(narrow.item(), rel=1e-6)
    wide.backward()
    assert weight.grad[V - 10 :].abs().max() == 0


def test_a_bias_of_the_head_is_part_of_the_loss_and_gets_its_gradient():
    hidden, weight, labels, *_ = parts()
    bias = torch.randn(V, generator=torch.Generator().manual_seed(5)).requires_grad_()
    wanted = torch.nn.functional.cross_entropy(hidden @ weight.T + bias, labels, reduction="sum")
    loss, _ = chunked_loss(hidden, Head(weight, bias), labels, None, recipe("forward_kl"))
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-6)
    assert torch.allclose(torch.autograd.grad(loss, bias)[0], torch.autograd.grad(wanted, bias)[0], atol=1e-5)


def test_a_nan_is_not_hidden():
    hidden, weight, labels, t_hidden, t_weight = parts()
    with torch.no_grad():
        hidden[3, 2] = torch.nan
    for name in LOSSES:
        loss, _ = chunked_loss(hidden, Head(weight), labels, LiveTeacher(t_hidden, Head(t_weight)), recipe(name))
        assert loss.isnan(), name


def test_accumulated_micro_batches_give_the_gradient_of_the_whole_batch():
    hidden, weight, labels, t_hidden, t_weight = parts()
    how = recipe("forward_kl")
    loss, _ = chunked_loss(hidden, Head(weight), labels, LiveTeacher(t_hidden, Head(t_weight)), how)
    whole = torch.autograd.grad(loss / N, weight)[0]
    pieces = torch.zeros_like(weight)
    for rows in (slice(0, 3), slice(3, 17), slice(17, N)):  # uneven on purpose: a mean of means would differ
        loss, _ = chunked_loss(
            hidden[rows], Head(weight), labels[rows], LiveTeacher(t_hidden[rows], Head(t_weight)), how
        )
        pieces += torch.autograd.grad(loss / N, weight)[0]
    assert (whole - pieces).norm() <= 1e-6 * whole.norm()


def test_the_real_padded_vocabularies_of_one_family_are_cut_to_the_smaller():
    small, large = 151_936, 152_064
    generator = torch.Generator().manual_seed(4)
    hidden, t_hidden = (torch.randn(6, 4, generator=generator) for _ in range(2))
    weight, t_weight = (torch.randn(vocab, 4, generator=generator) for vocab in (small, large))
    labels = torch.randint(0, small, (6,), generator=generator)
    hidden.requires_grad_()
    how = recipe("jsd", chunk_tokens=4)
    wanted, _, _ = dense(hidden, weight, labels, teacher_logprobs(t_hidden, t_weight[:small]), how)
    loss, _ = chunked_loss(hidden, Head(weight), labels, LiveTeacher(t_hidden, Head(t_weight)), how)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-6)
    mine, theirs = (torch.autograd.grad(value, hidden)[0] for value in (loss, wanted))
    assert (mine - theirs).norm() <= 1e-5 * theirs.norm()
    uncut, _, _ = dense(
        hidden, torch.cat([weight, weight[:128]]), labels, teacher_logprobs(t_hidden, t_weight), recipe("jsd")
    )
    assert uncut.item() != pytest.approx(wanted.item(), rel=1e-6), "the padding is not without effect"


@pytest.mark.parametrize("kind", ["lora", "none"])
def test_every_parameter_gets_the_dense_gradient_over_uneven_micro_batches(tiny_student, tiny_teacher, kind):
    student, tokenizer = load_causal_lm(tiny_student, dtype="float32")
    teacher, _ = load_causal_lm(tiny_teacher, dtype="float32")
    torch.manual_seed(0)
    if kind == "lora":
        student = attach(student, Adapter(r=4, alpha=8))
        for name, parameter in student.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)  # at zero, half of the gradients would be zero
    rows = encode_rows(records(7), tokenizer, 256).rows
    valid = sum(len(row.completion) for row in rows)
    how = recipe("skew_rkl", chunk_tokens=3, temperature=1.5)
    parameters = [p for p in student.parameters() if p.requires_grad]

    def gradients(loss_of) -> tuple[float, list[torch.Tensor]]:
        total = 0.0
        for some in (rows[:1], rows[1:5], rows[5:]):
            loss = loss_of(some) / valid
            loss.backward()
            total += loss.item()
        found = [p.grad.clone() for p in parameters]
        student.zero_grad()
        return total, found

    def chunked(some) -> torch.Tensor:
        batch = collate(some, pad=0)
        return Objective(student, how)(batch, Live(teacher).teacher(batch))[0]

    def whole(some) -> torch.Tensor:
        total = torch.zeros(())
        for row in some:
            ids, span = torch.tensor([[*row.prompt, *row.completion]]), slice(len(row.prompt) - 1, -1)
            logits, theirs = (m(input_ids=ids).logits[0, span] for m in (student, teacher))
            ce = torch.nn.functional.cross_entropy(logits, torch.tensor(row.completion), reduction="sum")
            pair = (torch.log_softmax(z / how.temperature, -1) for z in (logits, theirs.detach()))
            kd = how.loss.divergence(*pair, how.config).sum()
            total = total + (1 - how.kd_weight) * ce + how.kd_weight * how.temperature**2 * kd
        return total

    (loss, mine), (wanted, theirs) = gradients(chunked), gradients(whole)
    assert loss == pytest.approx(wanted, rel=1e-6)
    for one, two in zip(mine, theirs, strict=True):
        assert (one - two).norm() <= 2e-5 * two.norm() + 1e-7
    (_, other) = gradients(lambda some: chunked(some) / len(some))
    assert any((one - two).norm() > 1e-2 * two.norm() for one, two in zip(other, theirs, strict=True)), (
        "a mean of means"
    )
