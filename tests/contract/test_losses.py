"""Every file in distill/losses keeps the contract: written once, run over the folder."""

from __future__ import annotations

import pytest
import torch

from distill import plugins
from distill.losses._base import Distribution

NAMES = plugins.available("distill.losses")
N, V = 6, 11


def pair(seed: int = 0, scale: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    draw = [torch.randn(N, V, generator=generator, dtype=torch.float64) * scale for _ in range(2)]
    return torch.log_softmax(draw[0], -1), torch.log_softmax(draw[1], -1)


def load(name: str):
    module = plugins.load("distill.losses", name)
    return module, module.Config()


WITH_GRADIENT = [name for name in NAMES if hasattr(load(name)[0], "gradient")]


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_is_least_when_student_equals_teacher(name):
    module, config = load(name)
    for seed in range(20):
        student, teacher = pair(seed)
        here = module.divergence(student, teacher, config)
        least = module.divergence(teacher, teacher, config)
        assert here.shape == (N,)
        assert (here > least + 1e-6).all(), name


@pytest.mark.parametrize("name", [name for name in NAMES if name != "cross_entropy"])
def test_a_divergence_is_zero_at_equality_and_never_negative(name):
    module, config = load(name)
    for seed in range(20):
        student, teacher = pair(seed)
        assert module.divergence(teacher, teacher, config).abs().max() < 1e-12
        assert (module.divergence(student, teacher, config) >= 0).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0, 1000.0])
def test_a_loss_and_its_gradient_are_finite_under_extreme_logits(name, scale):
    module, config = load(name)
    generator = torch.Generator().manual_seed(1)
    logits = (torch.randn(N, V, generator=generator) * scale).requires_grad_()
    teacher = torch.log_softmax(torch.randn(N, V, generator=generator) * scale, -1).clamp(min=-1e4)
    value = module.divergence(torch.log_softmax(logits, -1), teacher, config)
    value.sum().backward()
    assert value.isfinite().all()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_matches_finite_differences_in_float64(name):
    module, config = load(name)
    student, teacher = pair(3, scale=1.0)
    logits = student.clone().requires_grad_()

    def value(z: torch.Tensor) -> torch.Tensor:
        return module.divergence(torch.log_softmax(z, -1), teacher, config)

    assert torch.autograd.gradcheck(value, (logits,), eps=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", WITH_GRADIENT)
def test_a_hand_written_gradient_is_the_automatic_one(name):
    module, config = load(name)
    student, teacher = pair(5)
    logits = student.clone().requires_grad_()
    module.divergence(torch.log_softmax(logits, -1), teacher, config).sum().backward()
    given = Distribution(student, student.exp()), Distribution(teacher, teacher.exp())
    before = [t.clone() for d in given for t in d]
    value, slope = module.gradient(*given, config)
    assert torch.allclose(slope, logits.grad, atol=1e-12)
    assert torch.allclose(value, module.divergence(student, teacher, config), atol=1e-12)
    after = [t for d in given for t in d]
    assert all(map(torch.equal, before, after)), "the arguments are not the loss's to change"


@pytest.mark.parametrize("name", WITH_GRADIENT)
def test_a_hand_written_gradient_matches_finite_differences_in_float64_at_other_settings(name):
    module, default = load(name)
    settings = [
        {},
        *({field: value} for field in ("alpha", "beta") if hasattr(default, field) for value in (0.02, 0.9)),
    ]
    for values in settings:
        config = module.Config(**values)
        student, teacher = pair(11, scale=1.0)
        given = [Distribution(t, t.exp()) for t in (student, teacher)]
        _, slope = module.gradient(*given, config)
        for at in range(V):
            step = torch.zeros(V, dtype=torch.float64)
            step[at] = 1e-5
            up, down = (
                module.divergence(torch.log_softmax(student + sign * step, -1), teacher, config) for sign in (1, -1)
            )
            assert torch.allclose(slope[:, at], (up - down) / 2e-5, atol=1e-8), (name, values, at)


@pytest.mark.parametrize("name", WITH_GRADIENT)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0, 1000.0])
def test_a_hand_written_gradient_is_finite_and_the_automatic_one_under_extreme_logits(name, scale):
    module, config = load(name)
    generator = torch.Generator().manual_seed(1)
    draws = [torch.log_softmax(torch.randn(N, V, generator=generator) * scale, -1) for _ in range(2)]
    student, teacher = (t.clamp(min=-1e4) for t in draws)
    value, slope = module.gradient(Distribution(student, student.exp()), Distribution(teacher, teacher.exp()), config)
    leaf = student.double().requires_grad_()
    wanted = module.divergence(torch.log_softmax(leaf, -1), teacher.double(), config)
    wanted.sum().backward()
    assert slope.isfinite().all()
    assert torch.allclose(value.double(), wanted, rtol=1e-4, atol=1e-5)
    assert torch.allclose(slope.double(), leaf.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_rows_do_not_touch_each_other(name):
    module, config = load(name)
    student, teacher = pair(7)
    alone = torch.cat([module.divergence(student[i : i + 1], teacher[i : i + 1], config) for i in range(N)])
    assert torch.allclose(alone, module.divergence(student, teacher, config), atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_module_says_what_it_is_and_imports_no_torch(name):
    import subprocess
    import sys

    module, _ = load(name)
    assert module.__doc__.strip()
    code = f"import sys, distill.losses.{name} as m; m.Config(); assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
