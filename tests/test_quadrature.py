"""The judge of the closed forms, itself judged by integrals that are known by heart."""

import math

import mpmath as mp
import pytest
import torch

from gaussreg_lab.quadrature import expectation

CASES = [(0.0, 1.0), (0.8, 0.3), (-2.5, 4.0), (30.0, 1e-4), (-1e3, 2.0)]
cases = pytest.mark.parametrize(("mean", "var"), CASES)


@cases
def test_the_whole_probability_is_one(mean, var):
    assert expectation(torch.ones_like, mean, var).item() == pytest.approx(1, rel=1e-13, abs=0)


@cases
def test_the_identity_has_the_mean(mean, var):
    assert expectation(lambda z: z, mean, var).item() == pytest.approx(mean, rel=1e-13, abs=1e-13)


@cases
def test_the_square_has_mean_squared_plus_variance(mean, var):
    assert expectation(torch.square, mean, var).item() == pytest.approx(mean**2 + var, rel=1e-13, abs=0)


@cases
def test_the_squared_distance_from_the_mean_is_the_variance(mean, var):
    assert expectation(lambda z: (z - mean).square(), mean, var).item() == pytest.approx(var, rel=1e-9, abs=0)


@pytest.mark.parametrize(("mean", "var"), CASES[:3])
def test_the_exponential_has_the_lognormal_mean(mean, var):
    assert expectation(torch.exp, mean, var).item() == pytest.approx(
        math.exp(mean + var / 2), rel=1e-13, abs=0
    )


@pytest.mark.parametrize("var", [0.01, 1.0, 9.0])
def test_the_absolute_value_around_zero_has_mean_root_two_over_pi(var):
    assert expectation(torch.abs, 0.0, var).item() == pytest.approx(
        math.sqrt(2 * var / math.pi), rel=1e-13, abs=0
    )


@pytest.mark.parametrize("kink", [-3.0, -0.2, 0.0, 1.7, 4.0])
def test_a_step_at_the_kink_has_the_normal_probability(kink):
    step = expectation(lambda z: (z > kink).double(), mean=0.5, var=2.0, kink=kink)
    assert step.item() == pytest.approx(float(mp.ncdf((0.5 - kink) / mp.sqrt(2))), rel=1e-12, abs=0)


@pytest.mark.parametrize("kink", [-1e3, 1e3])
def test_a_kink_far_outside_changes_nothing(kink):
    assert expectation(torch.square, 0.5, 2.0, kink).item() == pytest.approx(2.25, rel=1e-13, abs=0)


def test_numbers_and_tensors_give_the_same():
    tensors = expectation(torch.square, torch.tensor(0.5), torch.tensor(2.0))
    assert tensors == expectation(torch.square, 0.5, 2.0)
    assert tensors.dtype == torch.float64


@pytest.mark.parametrize("var", [0.0, -1.0, math.nan, math.inf])
def test_a_variance_that_is_not_positive_and_finite_is_refused(var):
    with pytest.raises(ValueError, match=f"finite var > 0, got 0.0 and {var}"):
        expectation(torch.square, 0.0, var)


@pytest.mark.parametrize("mean", [math.nan, math.inf])
def test_a_mean_that_is_not_finite_is_refused(mean):
    with pytest.raises(ValueError, match=f"Expected a finite mean and .* got {mean} and 1.0"):
        expectation(torch.square, mean, 1.0)
