"""Expected softmax and cross entropy: against quadrature for two classes, against samples for ten."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gaussreg_lab.gaussian import Gaussian
from gaussreg_lab.logits import (
    class_probabilities,
    cross_entropy_of,
    curvature_trace,
    draw_logits,
    sampled_class_probabilities,
    sampled_cross_entropy,
    second_order_cross_entropy,
)


def ten_classes(scale: float, seed: int = 0) -> Gaussian:
    generator = torch.Generator().manual_seed(seed)
    factor = torch.randn(3, 10, 10, generator=generator, dtype=torch.float64) / math.sqrt(10)
    mean = 2 * torch.randn(3, 10, generator=generator, dtype=torch.float64)
    return Gaussian(mean, cov=scale**2 * factor @ factor.mT)


def two_classes_by_quadrature(function, lead: float, std: float) -> float:
    """E[function(d)] for the difference of two logits d ~ N(lead, std^2), by 200-point Gauss-Hermite."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(150)
    return float((weights * function(lead + std * nodes)).sum() / math.sqrt(2 * math.pi))


@pytest.mark.parametrize("lead", [-2.0, 0.0, 1.5])
@pytest.mark.parametrize("std", [0.3, 1.0])
def test_sampled_quantities_agree_with_quadrature_for_two_classes(lead, std):
    logits = Gaussian(
        torch.tensor([[lead, 0.0]]).double(), cov=torch.tensor([[[std**2, 0], [0, 0]]]).double()
    )
    count = 200_000
    probability = two_classes_by_quadrature(lambda d: 1 / (1 + np.exp(-d)), lead, std)
    loss = two_classes_by_quadrature(lambda d: np.log1p(np.exp(-d)), lead, std)
    drawn = draw_logits(logits, count)
    for exact, got, values in (
        (probability, sampled_class_probabilities(logits, count)[0, 0], drawn.softmax(-1)[:, 0, 0]),
        (loss, sampled_cross_entropy(logits, torch.tensor([0]), count)[0], -drawn.log_softmax(-1)[:, 0, 0]),
    ):
        assert abs(got - exact) / (values.std() / math.sqrt(count)) < 4.5


@pytest.mark.parametrize(("std", "tolerance"), [(0.1, 2e-5), (0.3, 1.5e-3)])
def test_the_second_order_misses_terms_of_fourth_order_only(std, tolerance):
    for lead in (-1.0, 0.0, 2.0):
        logits = Gaussian(
            torch.tensor([[lead, 0.0]]).double(), var=torch.tensor([[std**2 / 2, std**2 / 2]]).double()
        )
        exact = two_classes_by_quadrature(lambda d: np.log1p(np.exp(-d)), lead, std)
        assert abs(second_order_cross_entropy(logits, torch.tensor([0])).item() - exact) < tolerance


def test_the_error_of_the_second_order_falls_with_the_fourth_power_of_the_spread():
    errors = []
    for std in (0.4, 0.2, 0.1):
        logits = Gaussian(torch.tensor([[0.3, 0.0]]).double(), var=torch.tensor([[std**2, 0.0]]).double())
        exact = two_classes_by_quadrature(lambda d: np.log1p(np.exp(-d)), 0.3, std)
        errors.append(abs(second_order_cross_entropy(logits, torch.tensor([0])).item() - exact))
    assert 14 < errors[0] / errors[1] < 18
    assert 14 < errors[1] / errors[2] < 18


@pytest.mark.parametrize(("scale", "away"), [(0.25, 0.005), (0.5, 0.01), (1.0, 0.03)])
def test_second_order_and_probit_are_close_for_ten_classes(scale, away):
    logits, y = ten_classes(scale), torch.tensor([0, 3, 9])
    truth = sampled_cross_entropy(logits, y, 100_000)
    assert ((second_order_cross_entropy(logits, y) - truth).abs().mean() / truth.mean()) < away
    probabilities = sampled_class_probabilities(logits, 100_000)
    plain = logits.mean.softmax(-1)
    missed = (class_probabilities(logits) - probabilities).abs().sum(-1).mean()
    assert missed < (plain - probabilities).abs().sum(-1).mean()  # better than ignoring the spread


def test_cross_entropy_at_the_mean_is_a_lower_bound():
    for scale in (0.3, 1.0, 3.0):
        logits, y = ten_classes(scale), torch.tensor([1, 2, 3])
        assert (cross_entropy_of(logits.mean, y) < sampled_cross_entropy(logits, y, 20_000)).all()


def test_the_trace_is_that_of_the_covariance_times_the_hessian():
    logits, y = ten_classes(1.0), torch.tensor([4, 5, 6])
    for number in range(3):
        hessian = torch.func.hessian(lambda z, n=number: cross_entropy_of(z, y[n]))(logits.mean[number])
        expected = torch.trace(logits.cov[number] @ hessian)
        torch.testing.assert_close(curvature_trace(logits)[number], expected, rtol=1e-10, atol=0)


def test_var_is_a_diagonal_cov():
    var = torch.rand(2, 5, generator=torch.Generator().manual_seed(0)).double()
    mean = torch.randn(2, 5, generator=torch.Generator().manual_seed(1)).double()
    by_var, by_cov = Gaussian(mean, var=var), Gaussian(mean, cov=torch.diag_embed(var))
    torch.testing.assert_close(curvature_trace(by_var), curvature_trace(by_cov))
    torch.testing.assert_close(class_probabilities(by_var), class_probabilities(by_cov))


@pytest.mark.parametrize("kind", ["var", "cov"])
def test_drawn_logits_have_the_moments_asked_for(kind):
    logits = ten_classes(1.0)
    if kind == "var":
        logits = Gaussian(logits.mean, var=logits.variances)
    count = 50_000
    drawn = draw_logits(logits, count)
    z = (drawn.mean(dim=0) - logits.mean) / (logits.std / math.sqrt(count))
    assert z.abs().max() < 4.5
    wanted = logits.cov if kind == "cov" else torch.diag_embed(logits.var)
    got = torch.einsum("dbi,dbj->bij", drawn - logits.mean, drawn - logits.mean) / count
    error = ((logits.variances[:, :, None] * logits.variances[:, None, :] + wanted**2) / count).sqrt()
    assert ((got - wanted) / error).abs().max() < 4.5


def test_the_same_call_gives_the_same_draws_and_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    logits = ten_classes(1.0)
    assert torch.equal(draw_logits(logits, 10), draw_logits(logits, 10))
    assert torch.equal(torch.get_rng_state(), state)
    other = draw_logits(logits, 10, torch.Generator().manual_seed(5))
    assert not torch.equal(draw_logits(logits, 10), other)


@given(st.floats(-5, 5), st.floats(0, 3))
def test_a_common_shift_of_all_logits_changes_nothing(shift, spread):
    logits = ten_classes(1.0)
    moved = Gaussian(logits.mean + shift, cov=logits.cov + spread**2)  # adds the same noise to all
    torch.testing.assert_close(curvature_trace(moved), curvature_trace(logits), rtol=1e-8, atol=1e-10)
    y = torch.tensor([0, 1, 2])
    torch.testing.assert_close(
        cross_entropy_of(moved.mean, y), cross_entropy_of(logits.mean, y), rtol=1e-9, atol=1e-10
    )


def test_cross_entropy_is_pytorchs():
    logits, y = ten_classes(1.0), torch.tensor([0, 1, 2])
    expected = torch.nn.functional.cross_entropy(logits.mean, y, reduction="none")
    torch.testing.assert_close(cross_entropy_of(logits.mean, y), expected)


def test_gradients_reach_mean_and_covariance():
    logits = ten_classes(0.5)
    mean, cov = logits.mean.requires_grad_(), logits.cov.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda m, c: second_order_cross_entropy(Gaussian(m, cov=(c + c.mT) / 2), torch.tensor([0, 1, 2])),
        (mean, cov),
    )
