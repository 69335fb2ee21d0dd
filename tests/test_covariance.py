"""Pairs of rectified Gaussians: against 50 digits by two routes, 100,000 pairs, samples; their slopes."""

import math
from itertools import pairwise

import mpmath as mp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gaussreg_lab.covariance import (
    bivariate_normal_cdf,
    larger_of_two,
    relu_covariance,
    relu_covariance_centred,
    relu_covariance_gate,
    relu_covariance_hermite,
)
from gaussreg_lab.gaussian import relu_mean, relu_var
from gaussreg_lab.normal import normal_cdf, normal_density

MATRIX_RULES = [relu_covariance, relu_covariance_gate, relu_covariance_hermite]
every_rule = pytest.mark.parametrize("rule", MATRIX_RULES, ids=lambda rule: rule.__name__)

CORRELATIONS = [0.0, 1e-10, 0.5, -0.5, 0.99, -0.99, 0.999999, -0.999999, 1 - 1e-12, -1 + 1e-12]
POSITIONS = [
    (0.0, 0.0),
    (1.3, -0.4),
    (-2.0, -2.0),
    (3.0, 3.0),
    (2.5, -2.5),
    (-6.0, 1.0),
    (8.0, 0.3),
    (-20.0, 30.0),
]

positions, correlations = st.floats(-6, 6), st.floats(-1, 1)


def double(value) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def pair(a1: float, a2: float, r: float) -> tuple[Tensor, Tensor]:
    return double([a1, a2]), double([[1.0, r], [r, 1.0]])


def covariance_of_pairs(a1: Tensor, a2: Tensor, r: Tensor) -> Tensor:
    one = torch.ones_like(r)
    cov = torch.stack([torch.stack([one, r], -1), torch.stack([r, one], -1)], -2)
    return relu_covariance(torch.stack([a1, a2], -1), cov)[..., 0, 1]


def wishart(n: int, extra: int, seed: int) -> Tensor:
    factor = torch.randn(n, n + extra, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return factor @ factor.T / n


# two routes to fifty digits


def lifted(a: mp.mpf, std=1) -> mp.mpf:
    """E[relu(z)] for z ~ N(a, std^2)."""
    return a * mp.ncdf(a / std) + std * mp.npdf(a / std)


def by_conditioning(a1: float, a2: float, r: float) -> mp.mpf:
    """E[relu(x1) relu(x2)] with the inner mean in closed form, the outer by quadrature."""
    a1, a2, r = mp.mpf(a1), mp.mpf(a2), mp.mpf(r)
    q = mp.sqrt((1 - r) * (1 + r))
    begin = -a1
    end = max(begin, mp.mpf(0)) + 16
    cuts = {begin, end, *(begin + k for k in range(1, int(end - begin), 2))}
    if r:  # x2's kink passes here, within some q of it
        kink = -a2 / r
        cuts |= {kink + k * q / abs(r) for k in (-30, -10, -3, 0, 3, 10, 30)}
    cuts = sorted(cut for cut in cuts if begin <= cut <= end)
    product = mp.quad(lambda t: (a1 + t) * lifted(a2 + r * t, q) * mp.npdf(t), cuts)
    return product - lifted(a1) * lifted(a2)


def by_price_and_plackett(a1: float, a2: float, r: float) -> mp.mpf:
    """The closed form of E[relu(x1) relu(x2)], with Phi2 by integrating its density over r."""
    a1, a2, r = mp.mpf(a1), mp.mpf(a2), mp.mpf(r)
    q = mp.sqrt((1 - r) * (1 + r))

    def density(angle):  # of the pair at correlation sin(angle), times d sin / d angle
        s, c = mp.sin(angle), mp.cos(angle)
        return mp.exp(-(a1 * a1 - 2 * s * a1 * a2 + a2 * a2) / (2 * c * c)) / (2 * mp.pi)

    end = mp.asin(r)
    cuts = [end * (1 - mp.mpf(2) ** -k) for k in range(40)] + [end]
    cdf = mp.ncdf(a1) * mp.ncdf(a2) + (mp.quad(density, cuts) if r else 0)
    peak = q / (2 * mp.pi) * mp.exp(-(a1 * a1 - 2 * r * a1 * a2 + a2 * a2) / (2 * q * q))
    product = (a1 * a2 + r) * cdf + peak
    product += a1 * mp.npdf(a2) * mp.ncdf((a1 - r * a2) / q) + a2 * mp.npdf(a1) * mp.ncdf((a2 - r * a1) / q)
    return product - lifted(a1) * lifted(a2)


@pytest.mark.parametrize(("a1", "a2"), POSITIONS)
@pytest.mark.parametrize("r", CORRELATIONS)
def test_relu_covariance_agrees_with_fifty_digits_by_two_routes(a1, a2, r):
    with mp.workdps(50):
        exact = by_conditioning(a1, a2, r)
        assert abs(exact - by_price_and_plackett(a1, a2, r)) < mp.mpf("1e-25")
        got = relu_covariance(*pair(a1, a2, r))[0, 1].item()
        assert abs(got - exact) < (1e-9 if abs(r) > 0.95 else 1e-12)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(("a1", "a2"), POSITIONS)
def test_relu_covariance_has_its_limits_at_perfect_correlation(a1, a2, sign):
    with mp.workdps(50):
        low = min(a1, a2) if sign > 0 else a1  # x2 = a2 + sign (x1 - a1)
        if sign > 0:
            low, high = mp.mpf(low), mp.mpf(max(a1, a2))
            product = (1 + low * high) * mp.ncdf(low) + high * mp.npdf(low)
        else:
            b1, b2 = mp.mpf(a1), mp.mpf(a2)
            product = (b1 * b2 - 1) * (mp.ncdf(b1) + mp.ncdf(b2) - 1) + b2 * mp.npdf(b1) + b1 * mp.npdf(b2)
            product = product if b1 + b2 > 0 else mp.mpf(0)
        exact = product - lifted(mp.mpf(a1)) * lifted(mp.mpf(a2))
        assert abs(relu_covariance(*pair(a1, a2, sign))[0, 1].item() - exact) < 1e-9


@pytest.mark.parametrize("std", [1e-12, 1e-3, 1e6])
def test_a_scale_of_each_component_goes_through(std):
    scale = double([std, 3.0])
    mean, cov = pair(0.4, -1.1, 0.7)
    scaled = relu_covariance(mean * scale, cov * scale[:, None] * scale)
    torch.testing.assert_close(
        scaled / (scale[:, None] * scale), relu_covariance(mean, cov), rtol=1e-12, atol=0
    )


def many_pairs(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Positions in [-8, 8], three in ten nearly equal; correlations everywhere, and piled up at +-1."""
    generator = torch.Generator().manual_seed(0)

    def uniform() -> Tensor:
        return torch.rand(count, generator=generator, dtype=torch.float64)

    a1, a2 = 16 * uniform() - 8, 16 * uniform() - 8
    near = uniform() < 0.3
    a2 = torch.where(near, a1 + 1e-3 * (uniform() - 0.5), a2)
    r = 2 * uniform() - 1
    piled = uniform() < 0.5
    r = torch.where(piled, r.sign() * (1 - 10 ** (-12 * uniform())), r)
    return a1, a2, r


def by_adaptive_panels(a1: np.ndarray, a2: np.ndarray, r: np.ndarray) -> np.ndarray:
    """The integral of Phi2's excess over the gates, in r itself, by panels that shrink towards |r| = 1.

    Another variable, another rule and far more nodes than the package's: 60 panels, each half as far
    from |r| = 1 as the one before, 12 nodes in each. In the variable gap = 1 - |t|, so no digits are
    lost near 1.
    """
    nodes, weights = np.polynomial.legendre.leggauss(12)
    sign, size = np.where(r < 0, -1.0, 1.0), np.abs(r)
    total, gap_end = np.zeros_like(r), 1 - size
    edges = [np.maximum(2.0**-k, gap_end) for k in range(61)]
    for high, low in pairwise(edges):  # gaps, from 1 down to that of r
        for node, weight in zip(nodes, weights, strict=True):
            gap = (high + low) / 2 + (high - low) / 2 * node
            q2 = gap * (2 - gap)
            exponent = -((a1 - sign * a2) ** 2 + 2 * sign * a1 * a2 * gap) / (2 * q2)
            density = np.exp(exponent) / (2 * np.pi * np.sqrt(q2))
            total += weight * (high - low) / 2 * (gap - gap_end) * density
    return total


def test_relu_covariance_of_a_hundred_thousand_pairs():
    a1, a2, r = many_pairs(100_000)
    integral = torch.from_numpy(by_adaptive_panels(a1.numpy(), a2.numpy(), r.numpy()))
    error = (covariance_of_pairs(a1, a2, r) - r * normal_cdf(a1) * normal_cdf(a2) - integral).abs()
    assert error.max() < 1e-9
    assert error[r.abs() < 0.95].max() < 1e-12


def test_the_judge_of_the_hundred_thousand_agrees_with_fifty_digits():
    a1, a2, r = (it[:20].numpy() for it in many_pairs(100_000))
    panels = by_adaptive_panels(a1, a2, r)
    with mp.workdps(50):
        for position in range(20):
            x, y, c = (float(it[position]) for it in (a1, a2, r))
            exact = by_conditioning(x, y, c) - mp.mpf(c) * mp.ncdf(x) * mp.ncdf(y)
            assert abs(panels[position] - exact) < 1e-13


# slopes


def test_all_derivatives_agree_with_finite_differences():
    mean, cov = torch.linspace(-1.5, 1.5, 5).double(), wishart(5, 3, 0)
    for rule in MATRIX_RULES:
        assert torch.autograd.gradcheck(
            lambda m, c, rule=rule: rule(m, (c + c.T) / 2), (mean.requires_grad_(), cov.requires_grad_())
        )
    assert torch.autograd.gradcheck(lambda c: relu_covariance_centred((c + c.T) / 2), cov.requires_grad_())


def test_batches_have_the_derivatives_of_their_members():
    mean = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1)).double().requires_grad_()
    cov = torch.stack([wishart(4, 2, seed) for seed in range(6)]).view(2, 3, 4, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda m, c: relu_covariance(m, (c + c.mT) / 2), (mean, cov))


def exact_slopes(a1: float, a2: float, r: float) -> list[mp.mpf]:
    """Differences of the fifty-digit covariance by mean1, mean2, var1, var2 and cov, at var1 = var2 = 1."""

    def covariance(mean1, mean2, var1, var2, cov):
        std1, std2 = mp.sqrt(var1), mp.sqrt(var2)
        return std1 * std2 * by_conditioning(mean1 / std1, mean2 / std2, cov / (std1 * std2))

    at, step = [mp.mpf(a1), mp.mpf(a2), mp.mpf(1), mp.mpf(1), mp.mpf(r)], mp.mpf("1e-17")
    slopes = []
    for position in range(5):
        up, down = (
            covariance(*(x + sign * step * (k == position) for k, x in enumerate(at))) for sign in (1, -1)
        )
        slopes.append((up - down) / (2 * step))
    return slopes


@pytest.mark.parametrize(
    ("a1", "a2", "r"),
    [
        (0.0, 0.0, 0.0),
        (1.3, -0.4, 0.5),
        (-3.0, -2.5, -0.5),
        (8.0, 0.3, -0.99),
        (3.0, 3.0, 0.99),
        (1.0, 1.0 + 1e-6, 1 - 1e-12),
        (-1.0, 1.0, -1 + 1e-12),
        (-20.0, 30.0, 0.5),
    ],
)
def test_slopes_agree_with_fifty_digits_at_the_corners(a1, a2, r):
    mean, cov = pair(a1, a2, r)
    mean.requires_grad_()
    cov.requires_grad_()
    relu_covariance(mean, cov)[0, 1].backward()
    got = [*mean.grad.tolist(), *cov.grad.diagonal().tolist(), 2 * cov.grad[0, 1].item()]
    with mp.workdps(40):
        errors = [abs(g - e) for g, e in zip(got, exact_slopes(a1, a2, r), strict=True)]
    assert cov.grad[0, 1] == cov.grad[1, 0]
    assert max(errors) < (1e-6 if abs(r) > 0.999 else 1e-14)


def test_second_derivatives_agree_with_finite_differences():
    mean, cov = torch.linspace(-1, 1.5, 3).double().requires_grad_(), wishart(3, 3, 4).requires_grad_()
    for rule in MATRIX_RULES:
        assert torch.autograd.gradgradcheck(lambda m, c, rule=rule: rule(m, (c + c.T) / 2), (mean, cov))
    assert torch.autograd.gradgradcheck(lambda c: relu_covariance_centred((c + c.T) / 2), cov)


@pytest.mark.parametrize("rule", [relu_covariance_gate, relu_covariance_hermite])
def test_rounding_in_a_covariance_without_variance_stays_rounding(rule):
    mean, cov = torch.zeros(2), torch.tensor([[0.0, 1e-9], [1e-9, 1.0]]).requires_grad_()
    result = rule(mean, cov)
    result.sum().backward()
    assert result[0, 1].abs() < 1e-9
    assert cov.grad.abs().max() < 1


def test_no_variance_has_no_slope_even_beside_rounding():
    mean, cov = torch.zeros(2), torch.tensor([[0.0, 1e-9], [1e-9, 1.0]]).requires_grad_()
    relu_covariance(mean, cov).sum().backward()
    assert cov.grad[0, 0] == 0
    assert cov.grad.isfinite().all()


@given(positions, positions, st.floats(-0.999, 0.999))
def test_the_slope_by_the_covariance_is_the_probability_of_both(a1, a2, r):
    mean, cov = pair(a1, a2, r)
    cov.requires_grad_()
    relu_covariance(mean, cov)[0, 1].backward()
    both = bivariate_normal_cdf(mean[0], mean[1], double(r))
    assert cov.grad.sum() - cov.grad.diagonal().sum() == pytest.approx(both.item(), abs=1e-11)


@pytest.mark.parametrize("r", [1.0, -1.0, 1 - 1e-9])
@pytest.mark.parametrize(("a1", "a2"), [(0.7, -0.2), (1.0, 1.0), (-1.0, 1.0), (30.0, -30.0)])
def test_slopes_at_perfect_correlation_are_finite_and_right(a1, a2, r):
    mean, cov = pair(a1, a2, r)
    mean.requires_grad_()
    cov.requires_grad_()
    relu_covariance(mean, cov)[0, 1].backward()
    assert mean.grad.isfinite().all()
    assert cov.grad.isfinite().all()
    step = 1e-5
    for position in range(2):
        if abs(a1 - math.copysign(a2, r * a2)) > 0.1:  # no kink within a step
            shift = double([step * (position == 0), step * (position == 1)])
            up, down = (relu_covariance(mean.detach() + s * shift, cov.detach())[0, 1] for s in (1, -1))
            expected = (up - down).item() / (2 * step)
            assert mean.grad[position].item() == pytest.approx(expected, abs=2e-6)


@every_rule
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_values_and_slopes_are_finite_without_variance_and_far_out(rule, dtype):
    mean = torch.tensor([[0.0, 0.0, 1.0], [30.0, -30.0, 0.0], [1e8, 1e8, -1e8]], dtype=dtype).requires_grad_()
    full = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]], dtype=dtype)
    none = torch.zeros(3, 3, dtype=dtype)
    cov = torch.stack([none, full, full]).requires_grad_()
    result = rule(mean, cov)
    result.sum().backward()
    for tensor in (result, mean.grad, cov.grad):
        assert tensor.isfinite().all()


def test_the_centred_rule_is_finite_at_perfect_correlation():
    cov = torch.ones(3, 3).double().requires_grad_()
    relu_covariance_centred(cov).sum().backward()
    assert cov.grad.isfinite().all()
    off = cov.grad[0, 1]
    assert off.item() == pytest.approx(0.5)  # arccos(-1) / (2 pi): both on, half of the time


# what a covariance has to be


@every_rule
@pytest.mark.parametrize("rank", [1, 5, 60])
def test_the_result_is_symmetric_and_positive_semi_definite(rule, rank):
    factor = torch.randn(40, rank, generator=torch.Generator().manual_seed(rank)).double()
    cov = factor @ factor.T
    mean = cov.diagonal().sqrt() * torch.linspace(-2, 2, 40).double()
    result = rule(mean, cov)
    assert torch.equal(result, result.T)
    values = torch.linalg.eigvalsh(result)
    series = rule is relu_covariance_hermite  # cut off, it may be off a little near r = 1
    assert values.min() > (-0.01 if series else -1e-10) * values.max()
    torch.testing.assert_close(result.diagonal(), relu_var(mean, cov.diagonal()), rtol=0, atol=0)


def test_the_centred_rule_at_other_means_is_no_covariance():
    """Off-diagonals for mean 0 beside the true variances, as some code has it: an eigenvalue below 0."""
    cov, mean = wishart(60, 5, 0), torch.full((60,), -1.5).double()
    mixed = relu_covariance_centred(cov).diagonal_scatter(relu_var(mean, cov.diagonal()))
    assert torch.linalg.eigvalsh(mixed).min() < -1e-3
    assert torch.linalg.eigvalsh(relu_covariance(mean, cov)).min() > -1e-12


@every_rule
def test_an_order_of_the_components_does_not_matter(rule):
    cov, mean = wishart(6, 1, 3), torch.linspace(-1, 2, 6).double()
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    expected = rule(mean, cov)[order][:, order]
    torch.testing.assert_close(rule(mean[order], cov[order][:, order]), expected, rtol=1e-13, atol=1e-15)


def test_equal_components_all_have_the_variance_of_one():
    mean, cov = double([0.3] * 4), double([[2.0] * 4] * 4)
    expected = relu_var(double(0.3), double(2.0)).expand(4, 4)
    torch.testing.assert_close(relu_covariance(mean, cov), expected, rtol=1e-12, atol=0)


@given(positions, positions, correlations)
def test_the_sign_of_a_covariance_survives_and_its_size_shrinks(a1, a2, r):
    got = relu_covariance(*pair(a1, a2, r))[0, 1].item()
    assert got * r >= 0 if abs(got) > 1e-13 else True
    assert abs(got) <= abs(r) + 1e-12


@given(positions, positions, correlations)
def test_the_exact_covariance_is_never_below_the_gates(a1, a2, r):
    exact, gates = (rule(*pair(a1, a2, r))[0, 1].item() for rule in (relu_covariance, relu_covariance_gate))
    assert exact >= gates - 1e-13


@given(positions, positions, correlations)
def test_parts_above_and_below_zero_add_up(a1, a2, r):
    """z = relu(z) - relu(-z), so the four covariances of the parts give back that of the pair."""
    total = 0.0
    for s1 in (1, -1):
        for s2 in (1, -1):
            total += s1 * s2 * relu_covariance(*pair(s1 * a1, s2 * a2, s1 * s2 * r))[0, 1].item()
    assert total == pytest.approx(r, abs=1e-10)


def test_far_above_nothing_changes_and_far_below_nothing_passes():
    cov = wishart(5, 2, 1)
    far = torch.full((5,), 1e3).double()
    torch.testing.assert_close(relu_covariance(far, cov), cov, rtol=1e-12, atol=1e-15)
    assert relu_covariance(-far, cov).abs().max() == 0


@pytest.mark.parametrize("rule", [relu_covariance, relu_covariance_centred], ids=["exact", "centred"])
def test_at_mean_zero_both_have_the_arc_cosine(rule):
    r = torch.linspace(-1, 1, 21).double()
    cov = torch.stack(
        [torch.stack([torch.ones_like(r), r], -1), torch.stack([r, torch.ones_like(r)], -1)], -2
    )
    got = (
        rule(cov)[:, 0, 1]
        if rule is relu_covariance_centred
        else rule(torch.zeros(21, 2).double(), cov)[:, 0, 1]
    )
    with mp.workdps(30):
        for value, c in zip(got.tolist(), r.tolist(), strict=True):
            c = mp.mpf(c)
            exact = (c * mp.acos(-c) + mp.sqrt(1 - c * c) - 1) / (2 * mp.pi)
            assert abs(value - exact) < 1e-12


@every_rule
def test_rules_agree_with_samples(rule):
    """A hundred pairs at once; gate and Hermite at correlations where they are good to three digits."""
    size = 0.9 if rule is relu_covariance else 0.05
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(100, 2, generator=generator).double()
    r = size * (2 * torch.rand(100, generator=generator).double() - 1)
    cov = torch.stack(
        [torch.stack([torch.ones(100), r], -1), torch.stack([r, torch.ones(100)], -1)], -2
    ).double()
    count = 20_000
    noise = torch.randn(count, 100, 2, generator=generator).double()
    second = r * noise[..., 0] + (1 - r**2).sqrt() * noise[..., 1]
    x = (mean + torch.stack([noise[..., 0], second], -1)).relu()
    away = x - relu_mean(mean, torch.ones(1).double())
    products = away[..., 0] * away[..., 1]
    z = (products.mean(0) - rule(mean, cov)[:, 0, 1]) / (products.std(0) / math.sqrt(count))
    assert z.abs().max() < 4.5


# the series


@given(st.floats(-4, 4), st.floats(-4, 4), st.floats(-0.9, 0.9), st.integers(1, 6))
def test_what_a_series_leaves_out_is_bounded_by_the_next_power(a1, a2, r, order):
    """Cramer: |He_n(t)| phi(t) <= 1.0865 sqrt(n! / (2 pi)); summed over what is left out."""
    mean, cov = pair(a1, a2, r)
    left_out = (relu_covariance_hermite(mean, cov, order) - relu_covariance(mean, cov))[0, 1].abs().item()
    largest_term = 1.0865**2 / (2 * math.pi) / (order * (order + 1))
    assert left_out <= largest_term * abs(r) ** (order + 1) / (1 - abs(r)) + 1e-12


def test_a_long_series_reaches_the_exact_covariance():
    mean, cov = pair(0.8, -0.3, 0.6)
    got = relu_covariance_hermite(mean, cov, order=60)
    torch.testing.assert_close(got, relu_covariance(mean, cov), rtol=0, atol=1e-13)


def test_a_very_long_series_does_not_overflow():
    mean, cov = pair(-1.2, 0.7, 0.9)
    got = relu_covariance_hermite(mean, cov, order=400)
    torch.testing.assert_close(got, relu_covariance(mean, cov), rtol=0, atol=1e-14)


def test_the_gate_is_the_series_of_order_one():
    mean, cov = torch.linspace(-1, 1, 5).double(), wishart(5, 1, 2)
    on = normal_cdf(mean / cov.diagonal().sqrt())
    expected = (cov * on * on[:, None]).diagonal_scatter(relu_var(mean, cov.diagonal()))
    torch.testing.assert_close(relu_covariance_gate(mean, cov), expected, rtol=1e-14, atol=1e-16)


@pytest.mark.parametrize("order", [0, -1, 2.5])
def test_an_order_that_is_none_is_refused(order):
    with pytest.raises(ValueError, match=f"whole order >= 1, got {order}"):
        relu_covariance_hermite(*pair(0, 0, 0.5), order=order)


# shapes, dtypes, bad input


def test_float32_has_the_digits_of_float64():
    mean, cov = torch.linspace(-2, 2, 8).double(), wishart(8, 2, 5)
    single = relu_covariance(mean.float(), cov.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), relu_covariance(mean, cov), rtol=2e-6, atol=2e-7)


BAD = [
    (torch.zeros(2), torch.ones(2, 3), ValueError, r"cov of shape \(\.\.\., n, n\)"),
    (torch.zeros(3), torch.eye(2), ValueError, r"got cov \(2, 2\) with mean \(3,\)"),
    (torch.zeros(2), double([[1.0, 0.0], [0.0, 1.0]]), TypeError, "one dtype"),
    (torch.zeros(2), torch.tensor([[1.0, 0.5], [0.4, 1.0]]), ValueError, "a symmetric cov"),
    (torch.zeros(2), torch.tensor([[1.0, 1.5], [1.5, 1.0]]), ValueError, "semi-definite cov.*-0.5"),
    (torch.zeros(2), torch.tensor([[1.0, 0.0], [0.0, -1.0]]), ValueError, "variances >= 0"),
    (torch.zeros(2), torch.tensor([[1.0, math.nan], [math.nan, 1.0]]), ValueError, "cov without NaN"),
    (torch.zeros(2, dtype=torch.long), torch.eye(2), TypeError, "mean to be a floating-point tensor"),
    (torch.zeros(1, 1, 2, 2), torch.eye(4)[None], ValueError, r"flattened as cov is, got \(1, 1, 2, 2\)"),
    (torch.zeros(1, 1, 1, 4), torch.eye(4)[None], ValueError, r"flattened as cov is, got \(1, 1, 1, 4\)"),
]


@every_rule
@pytest.mark.parametrize(("mean", "cov", "error", "message"), BAD)
def test_what_is_no_gaussian_is_refused_by_name(rule, mean, cov, error, message):
    with pytest.raises(error, match=message):
        rule(mean, cov)


@pytest.mark.parametrize(
    ("cov", "error", "message"),
    [
        (torch.tensor(1.0), ValueError, r"cov of shape \(\.\.\., n, n\)"),
        (torch.ones(2, 3), ValueError, r"got cov \(2, 3\)"),
        (torch.eye(2).long(), TypeError, "cov to be a floating-point tensor"),
    ],
)
def test_the_centred_rule_names_its_one_argument(cov, error, message):
    with pytest.raises(error, match=message):
        relu_covariance_centred(cov)


# the bivariate cdf


@pytest.mark.parametrize("r", [0.0, 0.3, -0.8, 0.99, -0.99])
@pytest.mark.parametrize(("a", "b"), [(0.0, 0.0), (1.0, -0.5), (-3.0, 2.0), (4.0, 4.0)])
def test_the_bivariate_cdf_agrees_with_conditioning(a, b, r):
    with mp.workdps(30):
        q = mp.sqrt(1 - mp.mpf(r) ** 2)
        cuts = sorted({mp.mpf(-14), *(mp.mpf(k) for k in range(-12, int(a) + 1)), mp.mpf(a)})
        exact = mp.quad(lambda t: mp.npdf(t) * mp.ncdf((b - r * t) / q), [c for c in cuts if c <= a])
    got = bivariate_normal_cdf(double(a), double(b), double(r)).item()
    assert abs(got - exact) < 1e-12


def test_the_bivariate_cdf_at_perfect_correlation():
    a, b = double([0.3, -1.0, 2.0]), double([0.9, 0.5, -1.0])
    both = bivariate_normal_cdf(a, b, double(1.0))
    torch.testing.assert_close(both, normal_cdf(torch.minimum(a, b)), rtol=0, atol=1e-5)
    opposite = bivariate_normal_cdf(a, b, double(-1.0))
    torch.testing.assert_close(opposite, (normal_cdf(a) + normal_cdf(b) - 1).clamp(min=0), rtol=0, atol=1e-5)


def test_the_bivariate_cdf_beside_perfect_correlation_is_as_good_as_promised():
    """At correlation 1 it is Phi of the smaller; the layer of width |a - b| is where nodes are scarce."""
    a = torch.linspace(-6, 6, 121).double()[:, None]
    apart = torch.logspace(-14, 1, 200).double()
    upper = (bivariate_normal_cdf(a, a + apart, double(1.0)) - normal_cdf(a)).abs()
    lower = bivariate_normal_cdf(a, -a - apart, double(-1.0))
    assert upper.max() < 1e-6
    assert lower.max() < 1e-6
    assert lower.min() >= 0


def test_derivatives_of_the_bivariate_cdf():
    a = double([0.3, -1.0, 2.0, 0.0]).requires_grad_()
    b = double([0.9, 0.5, -1.0, 0.0]).requires_grad_()
    r = double([0.2, -0.9, 0.97, 0.0]).requires_grad_()
    assert torch.autograd.gradcheck(bivariate_normal_cdf, (a, b, r))
    assert torch.autograd.gradgradcheck(bivariate_normal_cdf, (a, b, r))


def test_the_bivariate_cdf_has_slopes_of_its_inputs_dtype_and_shape():
    a, r = torch.zeros(3, requires_grad=True), torch.tensor(0.5, requires_grad=True)
    both = bivariate_normal_cdf(a, torch.zeros(2, 1), r)
    both.sum().backward()
    assert both.shape == (2, 3)
    assert both.dtype == a.grad.dtype == torch.float32
    torch.testing.assert_close(
        a.grad, torch.full((3,), 2 * 0.5 / math.sqrt(2 * math.pi))
    )  # phi(0) / 2, twice
    torch.testing.assert_close(r.grad, torch.tensor(6 / (2 * math.pi * math.sqrt(0.75))))  # phi2(0, 0; r)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            (torch.zeros(2), torch.zeros(3), torch.zeros(2)),
            ValueError,
            r"broadcast, got first \(2,\), second",
        ),
        (
            (torch.zeros(2), torch.zeros(2), torch.zeros(2).double()),
            TypeError,
            "first and correlation of one",
        ),
        ((0.0, torch.zeros(2), torch.zeros(2)), TypeError, "first to be a floating-point tensor, got float"),
        ((torch.zeros(2), torch.tensor(math.nan), torch.zeros(2)), ValueError, "second without NaN, got 1"),
    ],
)
def test_the_bivariate_cdf_refuses_bad_input_by_name(arguments, error, message):
    with pytest.raises(error, match=message):
        bivariate_normal_cdf(*arguments)


def test_the_bivariate_cdf_refuses_a_correlation_that_is_none():
    with pytest.raises(ValueError, match=r"correlation in \[-1, 1\], got 1.5"):
        bivariate_normal_cdf(double(0.0), double(0.0), double([0.2, 1.5]))


# the larger of two


def max_by_integration(m1: float, v1: float, m2: float, v2: float, c: float) -> tuple[float, float]:
    """Moments of max(x1, x2) = x2 + relu(x1 - x2) from the density of the maximum, on a fine grid."""
    sd1, sd2 = math.sqrt(v1), math.sqrt(v2)
    r = c / (sd1 * sd2)
    low, high = min(m1 - 12 * sd1, m2 - 12 * sd2), max(m1 + 12 * sd1, m2 + 12 * sd2)
    t = torch.linspace(low, high, 200_001, dtype=torch.float64)
    u1, u2, q = (t - m1) / sd1, (t - m2) / sd2, math.sqrt(1 - r * r)
    density = normal_density(u1) / sd1 * normal_cdf((u2 - r * u1) / q)
    density = density + normal_density(u2) / sd2 * normal_cdf((u1 - r * u2) / q)
    mean = torch.trapezoid(t * density, t).item()
    return mean, torch.trapezoid((t - mean) ** 2 * density, t).item()


@pytest.mark.parametrize("r", [0.0, 0.7, -0.9, 0.99])
@pytest.mark.parametrize(
    ("m1", "v1", "m2", "v2"), [(0, 1, 0, 1), (1, 4, 0.5, 0.25), (-3, 1, 3, 1), (2, 0.01, 0, 9)]
)
def test_the_larger_of_two_agrees_with_its_density(m1, v1, m2, v2, r):
    c = r * math.sqrt(v1 * v2)
    got = larger_of_two(*(double(float(it)) for it in (m1, v1, m2, v2, c)))
    mean, var = max_by_integration(m1, v1, m2, v2, c)
    assert got.mean.item() == pytest.approx(mean, abs=1e-9)
    assert got.var.item() == pytest.approx(var, abs=1e-9)


def test_who_comes_first_does_not_matter():
    first = larger_of_two(*(double(it) for it in (0.3, 1.0, -0.2, 2.0, 0.5)))
    second = larger_of_two(*(double(it) for it in (-0.2, 2.0, 0.3, 1.0, 0.5)))
    torch.testing.assert_close(first, second, rtol=1e-14, atol=0)


def test_the_same_variable_twice_is_itself():
    mean, var = double(0.7).requires_grad_(), double(2.0).requires_grad_()
    got = larger_of_two(mean, var, mean, var, var)
    assert got.mean.item() == pytest.approx(0.7, abs=1e-12)
    assert got.var.item() == pytest.approx(2.0, rel=1e-12)
    (got.mean + got.var).backward()
    assert mean.grad.isfinite()
    assert var.grad.isfinite()


def test_zero_and_a_gaussian_give_a_relu():
    mean, var, zero = torch.linspace(-3, 3, 13).double(), double(0.8), double(0.0)
    got = larger_of_two(mean, var, zero, zero, zero)
    torch.testing.assert_close(got.mean, relu_mean(mean, var), rtol=1e-12, atol=0)
    torch.testing.assert_close(got.var, relu_var(mean, var), rtol=1e-8, atol=1e-15)


def test_slopes_of_the_larger_of_two():
    arguments = [
        double([0.3, 0.0]),
        double([1.0, 1.0]),
        double([-0.2, 0.1]),
        double([2.0, 0.5]),
        double([0.5, -0.3]),
    ]
    arguments = [it.requires_grad_() for it in arguments]
    assert torch.autograd.gradcheck(larger_of_two, arguments)
    assert torch.autograd.gradgradcheck(larger_of_two, arguments)


def test_a_covariance_too_large_for_its_variances_is_refused():
    with pytest.raises(ValueError, match=r"cov\^2 <= var1 var2"):
        larger_of_two(*(double(it) for it in (0.0, 1.0, 0.0, 1.0, 1.1)))


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"var1": double(-1.0)}, ValueError, "var1 >= 0, got a smallest value of -1"),
        ({"var2": double(-2.0)}, ValueError, "var2 >= 0, got a smallest value of -2"),
        ({"cov": double(math.nan)}, ValueError, "cov without NaN"),
        ({"mean2": torch.tensor(0.0)}, TypeError, "mean1 and mean2 of one dtype"),
        ({"mean1": torch.tensor(0)}, TypeError, "mean1 to be a floating-point tensor"),
        (
            {"mean1": double([0.0, 0.0]), "cov": double([0.0, 0.0, 0.0])},
            ValueError,
            r"broadcast, got mean1 \(2,\)",
        ),
    ],
)
def test_the_larger_of_two_refuses_bad_input_by_name(changed, error, message):
    good = {"mean1": double(0.0), "var1": double(1.0), "mean2": double(0.0), "var2": double(1.0)}
    with pytest.raises(error, match=message):
        larger_of_two(**{**good, "cov": double(0.5), **changed})


def test_rounding_in_the_covariance_of_two_is_forgiven():
    zero, var = torch.tensor(0.0), torch.tensor(1.0)
    got = larger_of_two(zero, var, zero, var, var * (1 + 1e-6))
    assert got.var.item() == pytest.approx(1, rel=1e-5)
    assert larger_of_two(zero, var, zero, zero, torch.tensor(1e-9)).var.isfinite()


def test_slopes_for_nearly_the_same_variable_are_not_made_of_rounding():
    """Variances that differ in their last bits, while that of the difference has rounded to 0."""
    given = [torch.tensor(it).requires_grad_() for it in (0.5, 1.0, 0.5, 1 + 2.4e-7, 1 + 1.2e-7)]
    mean, var = larger_of_two(*given)
    (mean + var).backward()
    assert max(it.grad.abs().item() for it in given) < 2


@given(positions, positions, st.floats(0.1, 3), st.floats(0.1, 3), correlations)
def test_the_larger_and_the_smaller_share_what_there_is(mean1, mean2, std1, std2, r):
    """max + min = x1 + x2 and max^2 + min^2 = x1^2 + x2^2, where min = -max(-x1, -x2)."""
    m1, m2, v1, v2, c = (double(it) for it in (mean1, mean2, std1**2, std2**2, r * std1 * std2))
    large, small = larger_of_two(m1, v1, m2, v2, c), larger_of_two(-m1, v1, -m2, v2, c)
    assert (large.mean - small.mean).item() == pytest.approx(mean1 + mean2, abs=1e-12)
    squares = large.var + large.mean**2 + small.var + small.mean**2
    assert squares.item() == pytest.approx((m1**2 + v1 + m2**2 + v2).item(), rel=1e-12)
    assert min(large.var.item(), small.var.item()) >= 0
