"""Each loss against its formula worked out by hand on two tokens, and against its neighbours at the ends."""

from __future__ import annotations

from math import log

import pytest
import torch

from distill import plugins

P, Q = 0.8, 0.3  # teacher and student probability of the first of two tokens


def value(name: str, **settings) -> float:
    module = plugins.load("distill.losses", name)
    teacher, student = (torch.tensor([[x, 1 - x]], dtype=torch.float64).log() for x in (P, Q))
    return float(module.divergence(student, teacher, module.Config(**settings)))


def kl(a: float, b: float) -> float:
    return a * log(a / b) + (1 - a) * log((1 - a) / (1 - b))


def test_two_token_values():
    assert value("forward_kl") == pytest.approx(kl(P, Q))
    assert value("reverse_kl") == pytest.approx(kl(Q, P))
    assert value("cross_entropy") == pytest.approx(-P * log(Q) - (1 - P) * log(1 - Q))
    assert value("tvd") == pytest.approx(P - Q)
    assert value("uld") == pytest.approx(2 * (0.8 - 0.7)), "sorted: 0.8 against 0.7"
    mixed = 0.25 * P + 0.75 * Q
    assert value("jsd", beta=0.25) == pytest.approx(0.25 * kl(P, mixed) + 0.75 * kl(Q, mixed))
    assert value("skew_kl", alpha=0.25) == pytest.approx(kl(P, 0.25 * P + 0.75 * Q))
    assert value("skew_rkl", alpha=0.25) == pytest.approx(kl(Q, 0.25 * Q + 0.75 * P))


def test_the_ends_of_jsd_are_forward_and_reverse_kl():
    assert value("jsd", beta=1e-6) / 1e-6 == pytest.approx(value("forward_kl"), rel=1e-3)
    assert value("jsd", beta=1 - 1e-6) / 1e-6 == pytest.approx(value("reverse_kl"), rel=1e-3)


def test_jsd_with_equal_weights_is_symmetric_and_at_most_log_2():
    module = plugins.load("distill.losses", "jsd")
    far, near = (torch.tensor([[x, 1 - x]], dtype=torch.float64).log() for x in (1 - 1e-12, 1e-12))
    config = module.Config(beta=0.5)
    assert float(module.divergence(far, near, config)) == pytest.approx(float(module.divergence(near, far, config)))
    assert float(module.divergence(far, near, config)) == pytest.approx(log(2), rel=1e-6)


def test_cross_entropy_with_a_one_hot_teacher_is_the_likelihood_of_that_token():
    module = plugins.load("distill.losses", "cross_entropy")
    student = torch.log_softmax(torch.randn(4, 9, generator=torch.Generator().manual_seed(0)), -1)
    one_hot = torch.full((4, 9), -1e4)
    one_hot[:, 3] = 0
    assert torch.allclose(module.divergence(student, one_hot, module.Config()), -student[:, 3])


def test_uld_compares_vocabularies_of_unlike_size():
    module = plugins.load("distill.losses", "uld")
    student, teacher = (torch.tensor([p]).log() for p in ([0.5, 0.5], [0.25, 0.5, 0.125, 0.125]))
    wanted = abs(0.5 - 0.5) + abs(0.5 - 0.25) + 0.125 + 0.125
    assert float(module.divergence(student, teacher, module.Config())) == pytest.approx(wanted)
    assert float(module.divergence(teacher, student, module.Config())) == pytest.approx(wanted)
