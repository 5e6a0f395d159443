"""On-policy distillation: the student answers, the teacher scores, and the gradient is the right one."""

from __future__ import annotations

import json

import pytest
import torch
from pydantic import ValidationError

from distill import plugins
from distill.config import Train
from distill.models import end_ids, load_causal_lm
from distill.train import rollout, run
from distill.train.batches import encode_rows
from distill.train.likelihood import token_logprobs
from distill.train.objective import Head, Recipe, chunked_loss
from distill.train.rollout import SampledTeacher, is_on_policy, roll_out, until_end
from distill.train.schedule import seed_micro
from distill.train.student import Loaded
from tests.tiny import tiny_tokenizer
from tests.unit.train.conftest import WORDS, make_config, metrics, records
from tests.unit.train.test_run import FULL, teacher_of


def test_answers_stop_at_the_first_end_of_turn():
    assert until_end([5, 6, 2, 7, 2], [2]) == (5, 6, 2)
    assert until_end([5, 6], [2]) == (5, 6)
    assert until_end([2], [2, 9]) == (2,)


def test_answers_are_the_students_own_and_depend_on_the_seed_alone(taught_teacher):
    model, tokenizer = load_causal_lm(taught_teacher)
    student = Loaded(model, tokenizer)
    rows = encode_rows(records(6), tokenizer, 256).rows

    def draw(seed: int, temperature: float = 1.0):
        seed_micro(seed, 3, -1)
        return roll_out(student, rows, 12, temperature)

    first = draw(1)
    assert first == draw(1)
    assert first != draw(2)
    assert all(row.own and row.prompt == old.prompt for row, old in zip(first, rows, strict=True))
    assert all(len(row.completion) <= 12 for row in first)
    cold = [tokenizer.decode(row.completion[:-1]) for row in draw(1, 0.05)]
    assert sum(text in WORDS[:4] for text in cold) >= 4, "a taught model says what it was taught"
    ended = [row for row in first if row.completion[-1] in end_ids(tokenizer)]
    assert all(not set(row.completion[:-1]) & set(end_ids(tokenizer)) for row in ended)


def test_padding_on_the_left_does_not_change_greedy_answers(taught_teacher):
    model, tokenizer = load_causal_lm(taught_teacher)
    student, rows = Loaded(model, tokenizer), encode_rows(records(5), tokenizer, 256).rows
    together = roll_out(student, rows, 8, 1e-4)
    alone = [roll_out(student, [row], 8, 1e-4)[0] for row in rows]
    assert together == alone


def test_the_share_of_on_policy_steps_is_what_was_asked():
    for share in (0.0, 0.3, 1.0):
        found = sum(is_on_policy(7, step, share) for step in range(3000)) / 3000
        assert found == pytest.approx(share, abs=0.03)


def test_the_sampled_objective_has_the_gradient_of_reverse_kl_on_average_and_another_teacher_has_not():
    generator = torch.Generator().manual_seed(0)
    vocab, draws = 12, 40_000
    hidden, weight, t_hidden, t_weight, o_hidden = (
        torch.randn(*shape, generator=generator) for shape in ((1, 6), (vocab, 6), (1, 5), (vocab, 5), (1, 5))
    )
    hidden.requires_grad_()
    student, teacher = torch.log_softmax(hidden @ weight.T, -1), torch.log_softmax(t_hidden @ t_weight.T, -1)
    reverse = (student.exp() * (student - teacher)).sum()
    wanted = torch.autograd.grad(reverse, hidden)[0]
    labels = torch.multinomial(student.detach().exp()[0], draws, replacement=True, generator=generator)
    loss = plugins.load("distill.losses", "reverse_kl")
    recipe = Recipe(loss, loss.Config(), kd_weight=1.0)

    def sampled(teacher_hidden) -> tuple[torch.Tensor, float]:
        many = hidden.detach().expand(draws, -1).contiguous().requires_grad_()
        source = SampledTeacher(token_logprobs(teacher_hidden.expand(draws, -1), Head(t_weight), labels), labels)
        total, parts = chunked_loss(many, Head(weight), labels, source, recipe)
        total.backward()
        return many.grad, float(parts.kd) / draws

    grads, value = sampled(t_hidden)
    error = grads.std(0) / draws**0.5
    assert ((grads.mean(0) - wanted[0]).abs() < 4.5 * error).all()
    assert value == pytest.approx(reverse.item(), rel=0.05)
    other, _ = sampled(o_hidden)
    assert ((other.mean(0) - wanted[0]).abs() > 4.5 * error).any()


def test_tokens_that_another_engine_drew_are_weighted_back_to_the_students_own_gradient():
    """An engine whose logits are a little off draws from another distribution: uncorrected, that is learnt."""
    generator = torch.Generator().manual_seed(1)
    vocab, draws = 12, 40_000
    hidden, weight, target, off = (
        torch.randn(*s, generator=generator) for s in ((1, 6), (vocab, 6), (1, vocab), (vocab,))
    )
    hidden.requires_grad_()
    student, teacher = torch.log_softmax(hidden @ weight.T, -1), torch.log_softmax(target, -1)
    wanted = torch.autograd.grad((student.exp() * (student - teacher)).sum(), hidden)[0]
    engine = torch.log_softmax((hidden @ weight.T).detach()[0] + off.clamp(-0.3, 0.3), -1)
    labels = torch.multinomial(engine.exp(), draws, replacement=True, generator=generator)
    loss = plugins.load("distill.losses", "reverse_kl")
    recipe = Recipe(loss, loss.Config(), kd_weight=1.0)

    def gradient(drawn_N) -> torch.Tensor:
        many = hidden.detach().expand(draws, -1).contiguous().requires_grad_()
        source = SampledTeacher(teacher[0, labels].detach(), labels, drawn_N)
        chunked_loss(many, Head(weight), labels, source, recipe)[0].backward()
        return many.grad

    weighted, plain = gradient(engine[labels]), gradient(None)
    error = weighted.std(0) / draws**0.5
    assert ((weighted.mean(0) - wanted[0]).abs() < 4.5 * error).all()
    assert ((plain.mean(0) - wanted[0]).abs() > 4.5 * error).any()
    far = gradient(torch.full((draws,), -30.0))
    assert torch.allclose(far, rollout.IMPORTANCE * plain, rtol=1e-4), "a token never counts more than that"


@pytest.mark.parametrize("objective", ["full", "sampled"])
def test_on_policy_brings_the_student_closer_to_the_teacher(tiny_student, taught_teacher, run_folder, objective):
    config = make_config(
        tiny_student,
        method="on_policy",
        loss="reverse_kl",
        teacher=teacher_of(taught_teacher),
        rollout_share=0.5,
        rollout_objective=objective,
        rollout_max_new_tokens=8,
        kd_weight=0.5,
        **FULL,
    )
    run.run(config, run_folder)
    lines = [line for line in metrics(run_folder) if "holdout_kd" in line]
    assert lines[-1]["holdout_kd"] < 0.7 * lines[0]["holdout_kd"]
    assert json.loads((run_folder.student / "student.json").read_text())["method"] == "on_policy"


def test_an_on_policy_run_resumes_to_the_same_bytes(tiny_student, taught_teacher, tmp_path, monkeypatch):
    from tests.unit.train.test_resume import Killed, digest, kill_at, new_folder

    config = make_config(
        tiny_student,
        method="on_policy",
        teacher=teacher_of(taught_teacher),
        rollout_max_new_tokens=6,
        rollout_share=0.7,
    )
    whole, broken = new_folder(tmp_path / "whole"), new_folder(tmp_path / "broken")
    run.run(config, whole)
    with monkeypatch.context() as patch:
        kill_at(patch, 13)
        with pytest.raises(Killed):
            run.run(config, broken)
    run.run(config, broken)
    assert digest(broken) == digest(whole)


def test_a_biased_sampled_objective_is_refused_as_a_contradiction():
    with pytest.raises(ValidationError, match="needs rollout_temperature 1"):
        Train(method="on_policy", rollout_objective="sampled", rollout_temperature=0.7)


def test_without_rollouts_nothing_is_generated(tiny_student, taught_teacher, run_folder, monkeypatch):
    monkeypatch.setattr(rollout, "roll_out", lambda *_: pytest.fail("no answer was to be drawn"))
    config = make_config(
        tiny_student, method="on_policy", rollout_share=0.0, teacher=teacher_of(taught_teacher), max_steps=2
    )
    run.run(config, run_folder)
    assert tiny_tokenizer().decode([2]) == "<|im_end|>"
