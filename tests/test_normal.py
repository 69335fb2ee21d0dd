"""Density, cdf and tail of the normal distribution against 50-digit values."""

import mpmath as mp
import pytest
import torch
from torch import Tensor

from gaussreg_lab.normal import normal_cdf, normal_density, tail


def double(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize("t", [-37.0, -20.3, -8.0, -1.1, 0.0, 0.4, 6.0])
def test_normal_cdf_and_density_keep_their_digits_far_out(t):
    with mp.workdps(50):
        cdf, density = float(mp.ncdf(mp.mpf(t))), float(mp.npdf(mp.mpf(t)))
    assert normal_cdf(double(t)).item() == pytest.approx(cdf, rel=1e-12, abs=0)
    assert normal_density(double(t)).item() == pytest.approx(density, rel=1e-12, abs=0)


def test_normal_cdf_in_float32_keeps_five_digits_eight_deviations_out():
    assert normal_cdf(torch.tensor(-8.0)).item() == pytest.approx(float(mp.ncdf(-8)), rel=1e-5, abs=0)


def exact_tail(x: float) -> tuple[mp.mpf, mp.mpf, mp.mpf]:
    x = mp.mpf(x)
    density, mass = mp.npdf(x), mp.erfc(x / mp.sqrt(2)) / 2
    return density, mass, density - x * mass


def worst_errors(x: Tensor) -> list[float]:
    """The largest relative error of density, mass and excess over the distances x."""
    with mp.workdps(50):
        exact = [exact_tail(it) for it in x.tolist()]
        return [
            max(float(abs(mp.mpf(got) / true[part] - 1)) for got, true in zip(values, exact, strict=True))
            for part, values in enumerate(it.tolist() for it in tail(x))
        ]


def test_a_tail_in_float64_keeps_its_digits():
    """The excess loses x^2 roundings of the scaled erfc, no more."""
    density, mass, excess = worst_errors(torch.linspace(0, 37, 200, dtype=torch.float64))
    assert density < 1e-12
    assert mass < 1e-12
    assert excess < 1e-11


@pytest.mark.parametrize(("low", "high", "digits"), [(0, 1, 7e-7), (1, 4, 1e-6), (4, 8, 4e-6), (8, 12, 9e-6)])
def test_a_tail_in_float32_is_good_to_the_rounding_of_its_exponent(low, high, digits):
    """x^2 / 2 is rounded to a share 6e-8 of itself, which is what the density loses; nothing else does."""
    assert max(worst_errors(torch.linspace(low, high, 400))) < digits


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_the_rounding_of_single(dtype):
    x = torch.linspace(0, 3, 20).to(dtype)
    for half, single in zip(tail(x), tail(x.float()), strict=True):
        assert torch.equal(half, single.to(dtype))


def test_beyond_all_numbers_the_tail_is_zero_and_nan_stays_nan():
    assert [it.item() for it in tail(torch.tensor(40.0))] == [0, 0, 0]
    assert all(it.isnan() for it in tail(torch.tensor(torch.nan)))
