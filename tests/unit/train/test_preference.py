"""Preference distillation (DPO): the teacher's answer gains on the student's first one."""

from __future__ import annotations

import pytest
import torch

from distill.errors import ConfigError
from distill.losses import forward_kl
from distill.train import run
from distill.train.objective import Head, Recipe
from distill.train.preference import Reference, preference_loss
from tests.unit.train.conftest import make_config, metrics


def test_the_loss_is_the_written_formula_and_so_is_its_gradient():
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(7, 6, generator=generator).requires_grad_()
    weight, labels = torch.randn(9, 6, generator=generator), torch.randint(0, 9, (7,), generator=generator)
    rows = torch.tensor([0, 0, 1, 2, 2, 3, 3])  # two chosen, two rejected
    reference = torch.tensor([-3.0, -2.0, -4.0, -1.0], dtype=torch.float64)
    recipe = Recipe(forward_kl, forward_kl.Config(), kd_weight=0.8, chunk_tokens=3)
    loss, _ = preference_loss(hidden, Head(weight), labels, Reference(reference, rows, 0.5), recipe)
    each = torch.log_softmax(hidden @ weight.T, -1).gather(-1, labels[:, None])[:, 0].double()
    q = [each[:2].sum(), each[2:3].sum(), each[3:5].sum(), each[5:].sum()]
    wanted = 0
    for chosen, rejected in ((0, 2), (1, 3)):
        margin = 0.5 * ((q[chosen] - reference[chosen]) - (q[rejected] - reference[rejected]))
        wanted = wanted - 0.8 * torch.log(torch.sigmoid(margin))
    wanted = wanted + 0.2 * -(q[0] / 2 + q[1])
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    mine, dense = (torch.autograd.grad(x, hidden, retain_graph=True)[0] for x in (loss, wanted))
    assert torch.allclose(mine, dense, atol=1e-5)


def test_it_starts_at_log_2_and_falls_and_the_teachers_text_gets_likelier(tiny_student, run_folder):
    config = make_config(
        tiny_student, method="preference", kd_weight=1.0, rollout_max_new_tokens=6, epochs=4, preference_beta=0.5
    )
    run.run(config, run_folder)
    lines = [line for line in metrics(run_folder) if "loss" in line]
    assert lines[0]["kd"] == pytest.approx(0.6931, abs=1e-3), "at first, student and reference are one"
    assert lines[-1]["kd"] < 0.5 * lines[0]["kd"]


def test_it_resumes_to_the_same_bytes(tiny_student, tmp_path, monkeypatch):
    from tests.unit.train.test_resume import Killed, digest, kill_at, new_folder

    config = make_config(tiny_student, method="preference", rollout_max_new_tokens=5, max_steps=4)
    whole, broken = new_folder(tmp_path / "whole"), new_folder(tmp_path / "broken")
    run.run(config, whole)
    with monkeypatch.context() as patch:
        kill_at(patch, 7)
        with pytest.raises(Killed):
            run.run(config, broken)
    run.run(config, broken)
    assert digest(broken) == digest(whole)


def test_without_an_adapter_there_is_no_reference(tiny_student, run_folder):
    with pytest.raises(ConfigError, match="needs an adapter"):
        run.run(make_config(tiny_student, method="preference", adapter={"kind": "none"}), run_folder)
