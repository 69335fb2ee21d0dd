"""The closed forms against 50-digit references, numerical integrals and samples; and their derivatives."""

import math

import mpmath as mp
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gaussreg_lab.gaussian import (
    Gaussian,
    gelu_mean,
    leaky_relu_mean,
    leaky_relu_var,
    relu_mean,
    relu_var,
)
from gaussreg_lab.normal import normal_cdf, normal_density
from gaussreg_lab.quadrature import expectation

FUNCTIONS = [relu_mean, relu_var, leaky_relu_mean, leaky_relu_var, gelu_mean]
ODD_POSITIONS = [-19.37, -13.1, -7.77, -1.0 / 3, -1e-9, 1e-9, 0.1, math.e, 29.9]

every_function = pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
both_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)

positions = st.floats(-10, 10)  # mean / std
spreads = st.floats(1e-3, 1e3)


def double(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def standardized_grid(low: float, high: float, dtype: torch.dtype) -> Tensor:
    grid = torch.cat([torch.linspace(-40, 40, 81, dtype=torch.float64), double(ODD_POSITIONS)])
    return grid[(grid >= low) & (grid <= high)].to(dtype)


def exact_relu_mean(mean: float, var: float) -> mp.mpf:
    """The textbook formula, at the exact values of the floats; 50 digits survive its cancellation."""
    mean, std = mp.mpf(mean), mp.sqrt(mp.mpf(var))
    return mean * mp.ncdf(mean / std) + std * mp.npdf(mean / std)


def exact_relu_var(mean: float, var: float) -> mp.mpf:
    mean, std = mp.mpf(mean), mp.sqrt(mp.mpf(var))
    second = (mean**2 + std**2) * mp.ncdf(mean / std) + mean * std * mp.npdf(mean / std)
    return second - exact_relu_mean(mean, var) ** 2


def largest_relative_error(function, exact, mean: Tensor, var: Tensor) -> float:
    with mp.workdps(50):
        return max(
            float(abs(mp.mpf(value) / exact(m, v) - 1))
            for value, m, v in zip(
                function(mean, var).tolist(), mean.tolist(), var.expand(mean.shape).tolist(), strict=True
            )
        )


# against 50 digits


@pytest.mark.parametrize("std", [1e-12, 1e-6, 1e-3, 1.0, 37.0, 1e6])
def test_relu_mean_has_twelve_digits_in_float64(std):
    mean = std * standardized_grid(-20, 30, torch.float64)
    assert largest_relative_error(relu_mean, exact_relu_mean, mean, double(std * std)) < 1e-12


@pytest.mark.parametrize("std", [1e-12, 1e-6, 1e-3, 1.0, 37.0, 1e6])
def test_relu_var_has_nine_digits_in_float64(std):
    mean = std * standardized_grid(-20, 30, torch.float64)
    assert largest_relative_error(relu_var, exact_relu_var, mean, double(std * std)) < 1e-9


@pytest.mark.parametrize("std", [1e-12, 1e-3, 1.0, 37.0, 1e6])
def test_relu_mean_has_five_digits_in_float32(std):
    std = torch.tensor(std)
    mean = std * standardized_grid(-8, 8, torch.float32)
    assert largest_relative_error(relu_mean, exact_relu_mean, mean, std * std) < 5e-6


@pytest.mark.parametrize("std", [1e-12, 1e-3, 1.0, 37.0, 1e6])
def test_relu_var_has_five_digits_in_float32(std):
    std = torch.tensor(std)
    mean = std * standardized_grid(-4, 8, torch.float32)
    assert largest_relative_error(relu_var, exact_relu_var, mean, std * std) < 5e-6


@pytest.mark.parametrize("function", [relu_mean, relu_var], ids=lambda function: function.__name__)
@pytest.mark.parametrize("std", [1e-12, 1e-3, 1.0, 37.0, 1e6])
def test_relu_moments_in_float32_are_never_negative_and_never_nan(function, std):
    std = torch.tensor(std)
    assert (function(std * torch.linspace(-40, 40, 80_001), std * std) >= 0).all()


@pytest.mark.parametrize("function", [relu_mean, relu_var], ids=lambda function: function.__name__)
def test_relu_moments_end_in_zero_far_to_the_left(function):
    assert function(double([-40.0, -45.0, -1e6, -1e300]), double(1.0)).tolist() == [0, 0, 0, 0]


def test_relu_mean_in_float64_is_never_negative_and_never_nan():
    assert (relu_mean(torch.linspace(-45, 45, 90_001, dtype=torch.float64), double(1.0)) >= 0).all()


def test_relu_var_in_float64_is_never_negative_and_never_nan():
    mean = 1e6 * torch.linspace(-45, 45, 90_001, dtype=torch.float64)
    assert (relu_var(mean, double(1e12)) >= 0).all()


@pytest.mark.parametrize("t", [-30.0, -15.1, -6.0, -0.7, 0.0, 2.2, 9.0])
def test_relu_mean_has_the_cdf_and_half_the_density_over_std_for_slopes(t):
    mean, var = double(1.7 * t).requires_grad_(), double(1.7 * 1.7).requires_grad_()
    relu_mean(mean, var).backward()
    with mp.workdps(50):
        std = mp.sqrt(mp.mpf(var.item()))
        by_mean, by_var = mp.ncdf(mean.item() / std), mp.npdf(mean.item() / std) / (2 * std)
    assert mean.grad.item() == pytest.approx(float(by_mean), rel=1e-12, abs=0)
    assert var.grad.item() == pytest.approx(float(by_var), rel=1e-12, abs=0)


@pytest.mark.parametrize("t", [-15.1, -6.0, -0.7, 0.0, 2.2, 9.0])
def test_relu_var_keeps_the_digits_of_its_slopes_in_the_tails(t):
    mean, var = double(1.7 * t).requires_grad_(), double(1.7 * 1.7).requires_grad_()
    relu_var(mean, var).backward()
    with mp.workdps(60):
        by_mean = mp.diff(lambda m: exact_relu_var(m, var.item()), mean.item())
        by_var = mp.diff(lambda v: exact_relu_var(mean.item(), v), var.item())
    assert mean.grad.item() == pytest.approx(float(by_mean), rel=1e-10, abs=0)
    assert var.grad.item() == pytest.approx(float(by_var), rel=1e-10, abs=0)


def test_textbook_variance_loses_everything_where_ours_keeps_all_digits():
    mean, var = torch.tensor(1000.0), torch.tensor(0.01)
    t = mean / var.sqrt()
    first = mean * normal_cdf(t) + var.sqrt() * normal_density(t)
    textbook = (mean**2 + var) * normal_cdf(t) + mean * var.sqrt() * normal_density(t) - first**2
    with mp.workdps(50):
        exact = float(exact_relu_var(mean.item(), var.item()))
    assert abs(textbook.item() / exact - 1) > 0.9
    assert relu_var(mean, var).item() == pytest.approx(exact, rel=1e-6, abs=0)


@pytest.mark.parametrize(("mean", "var"), [(-12.0, 1.0), (-5.5, 0.01), (-3.0, 2.0), (0.3, 50.0), (40.0, 9.0)])
def test_gelu_mean_keeps_its_digits_in_the_left_tail(mean, var):
    with mp.workdps(50):  # by Stein's lemma: E[z Phi(z)] = mean E[Phi(z)] + var E[phi(z)]
        spread = mp.sqrt(1 + mp.mpf(var))
        exact = mean * mp.ncdf(mean / spread) + var * mp.npdf(mean / spread) / spread
    assert gelu_mean(double(mean), double(var)).item() == pytest.approx(float(exact), rel=1e-11, abs=0)


# against numerical integration


CASES = [(0.0, 1.0), (0.7, 2.0), (-1.3, 0.25), (3.0, 0.5), (-2.0, 7.0)]


@pytest.mark.parametrize("slope", [-1.0, 0.01, 0.3, 2.0])
@pytest.mark.parametrize(("mean", "var"), CASES)
def test_leaky_relu_mean_agrees_with_the_integral(mean, var, slope):
    integral = expectation(lambda z: torch.where(z > 0, z, slope * z), mean, var)
    torch.testing.assert_close(
        leaky_relu_mean(double(mean), double(var), slope), integral, rtol=1e-12, atol=1e-13
    )


@pytest.mark.parametrize("slope", [-1.0, 0.01, 0.3, 2.0])
@pytest.mark.parametrize(("mean", "var"), CASES)
def test_leaky_relu_var_agrees_with_the_integral(mean, var, slope):
    centre = expectation(lambda z: torch.where(z > 0, z, slope * z), mean, var)
    integral = expectation(lambda z: (torch.where(z > 0, z, slope * z) - centre).square(), mean, var)
    torch.testing.assert_close(leaky_relu_var(double(mean), double(var), slope), integral, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("mean", "var"), CASES)
def test_gelu_mean_agrees_with_the_integral(mean, var):
    integral = expectation(torch.nn.functional.gelu, mean, var)
    torch.testing.assert_close(gelu_mean(double(mean), double(var)), integral, rtol=1e-11, atol=1e-13)


def test_the_default_slope_is_pytorchs():
    mean, var = torch.linspace(-2, 2, 9, dtype=torch.float64), double(0.0)
    torch.testing.assert_close(
        leaky_relu_mean(mean, var), torch.nn.functional.leaky_relu(mean), rtol=0, atol=1e-100
    )
    assert leaky_relu_var(double(0.4), double(1.0)) == leaky_relu_var(double(0.4), double(1.0), slope=0.01)


# against samples


def samples(mean: float, var: float) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return mean + math.sqrt(var) * torch.randn(400_000, generator=generator, dtype=torch.float64)


def z_score_of_mean(values: Tensor, claimed: Tensor) -> float:
    return ((values.mean() - claimed) / (values.std() / math.sqrt(len(values)))).item()


@pytest.mark.parametrize(("mean", "var"), CASES)
def test_relu_moments_agree_with_samples(mean, var):
    values, claimed = samples(mean, var).relu(), relu_mean(double(mean), double(var))
    assert abs(z_score_of_mean(values, claimed)) < 4.5
    squares = (values - claimed).square()
    assert abs(z_score_of_mean(squares, relu_var(double(mean), double(var)))) < 4.5


@pytest.mark.parametrize(("mean", "var"), CASES)
def test_leaky_relu_moments_agree_with_samples(mean, var):
    values = torch.nn.functional.leaky_relu(samples(mean, var), 0.2)
    claimed = leaky_relu_mean(double(mean), double(var), slope=0.2)
    assert abs(z_score_of_mean(values, claimed)) < 4.5
    squares = (values - claimed).square()
    assert abs(z_score_of_mean(squares, leaky_relu_var(double(mean), double(var), slope=0.2))) < 4.5


# derivatives


@every_function
@pytest.mark.parametrize(
    ("mean_shape", "var_shape"), [((3,), (3,)), ((3, 1), (4,)), ((), (2,)), ((2, 2), ())]
)
def test_first_derivatives_agree_with_finite_differences(function, mean_shape, var_shape):
    mean = (2 * torch.randn(mean_shape, dtype=torch.float64)).requires_grad_()
    var = (0.2 + 2 * torch.rand(var_shape, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(function, (mean, var), check_forward_ad=True, check_batched_grad=True)


@every_function
@pytest.mark.parametrize(("mean_shape", "var_shape"), [((3,), (3,)), ((2, 1), (2,))])
def test_second_derivatives_agree_with_finite_differences(function, mean_shape, var_shape):
    mean = (2 * torch.randn(mean_shape, dtype=torch.float64)).requires_grad_()
    var = (0.2 + 2 * torch.rand(var_shape, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradgradcheck(function, (mean, var), check_fwd_over_rev=True)


@every_function
def test_forward_mode_gives_the_same_derivative_as_reverse_mode(function):
    mean, var = torch.linspace(-3, 3, 7, dtype=torch.float64), double([0.1, 0.5, 1, 2, 0.3, 0.7, 4])
    by_mean, by_var = torch.randn(7, dtype=torch.float64), torch.randn(7, dtype=torch.float64)
    _, forward = torch.func.jvp(function, (mean, var), (by_mean, by_var))
    slopes = torch.func.grad(lambda m, v: function(m, v).sum(), argnums=(0, 1))(mean, var)
    torch.testing.assert_close(forward, slopes[0] * by_mean + slopes[1] * by_var)


@every_function
def test_jacrev_gives_a_diagonal_of_the_plain_derivatives(function):
    mean, var = torch.linspace(-3, 3, 5, dtype=torch.float64), double([0.1, 0.5, 1, 2, 4])
    jacobians = torch.func.jacrev(function, argnums=(0, 1))(mean, var)
    mean.requires_grad_(), var.requires_grad_()
    plain = torch.autograd.grad(function(mean, var).sum(), (mean, var))
    torch.testing.assert_close(jacobians, tuple(slope.diag() for slope in plain))


@every_function
def test_vmap_gives_the_same_as_the_plain_call(function):
    mean, var = torch.randn(4, 3), torch.rand(4, 3)
    torch.testing.assert_close(torch.vmap(function)(mean, var), function(mean, var), rtol=0, atol=0)


@every_function
def test_vmap_may_share_one_variance(function):
    mean, var = torch.randn(4, 3), torch.rand(3)
    shared = torch.vmap(function, in_dims=(0, None))(mean, var)
    torch.testing.assert_close(shared, function(mean, var), rtol=0, atol=0)


# the edge of the domain


@every_function
@both_dtypes
def test_value_and_slopes_are_finite_without_variance(function, dtype):
    mean = torch.tensor([-1e4, -1.0, -0.0, 0.0, 1.0, 1e4], dtype=dtype, requires_grad=True)
    var = torch.zeros(6, dtype=dtype, requires_grad=True)
    value = function(mean, var)
    value.sum().backward()
    for tensor in (value, mean.grad, var.grad):
        assert tensor.isfinite().all()


@every_function
@both_dtypes
def test_value_and_slopes_are_finite_around_mean_zero(function, dtype):
    mean = torch.zeros(3, dtype=dtype, requires_grad=True)
    var = torch.tensor([1e-12, 1.0, 1e12], dtype=dtype, requires_grad=True)
    value = function(mean, var)
    value.sum().backward()
    for tensor in (value, mean.grad, var.grad):
        assert tensor.isfinite().all()


@both_dtypes
def test_relu_mean_without_variance_is_the_plain_relu(dtype):
    mean = torch.tensor([-3.0, -1e-3, 0.0, 1e-3, 3.0], dtype=dtype)
    torch.testing.assert_close(relu_mean(mean, torch.zeros(5, dtype=dtype)), mean.relu(), rtol=0, atol=1e-18)


@both_dtypes
def test_relu_mean_without_variance_has_the_slopes_of_the_plain_relu(dtype):
    mean = torch.tensor([-3.0, 0.0, 3.0], dtype=dtype, requires_grad=True)
    var = torch.zeros(3, dtype=dtype, requires_grad=True)
    relu_mean(mean, var).sum().backward()
    assert mean.grad.tolist() == [0, 0.5, 1]
    assert var.grad.tolist() == [0, 0, 0]


@both_dtypes
def test_relu_var_without_variance_is_at_most_the_smallest_number(dtype):
    value = relu_var(torch.tensor([-3.0, 0.0, 3.0], dtype=dtype), torch.zeros(3, dtype=dtype))
    assert ((value >= 0) & (value <= 1.001 * torch.finfo(dtype).tiny)).all()


def test_gelu_mean_without_variance_is_the_plain_gelu():
    mean = torch.linspace(-4, 4, 17, dtype=torch.float64)
    torch.testing.assert_close(
        gelu_mean(mean, double(0.0)), torch.nn.functional.gelu(mean), rtol=1e-12, atol=1e-15
    )


@pytest.mark.parametrize("var", [-1e-3, -0.5, -2.0, math.nan])
@pytest.mark.parametrize("function", FUNCTIONS[:-1], ids=lambda function: function.__name__)
def test_negative_or_nan_variance_gives_nan(function, var):
    assert function(torch.tensor([-1.0, 0.0, 1.0]), torch.tensor(var)).isnan().all()


@pytest.mark.parametrize("var", [-2.0, math.nan])
def test_negative_or_nan_variance_gives_nan_in_gelu_mean(var):
    assert gelu_mean(torch.tensor([-1.0, 0.0, 1.0]), torch.tensor(var)).isnan().all()


@pytest.mark.parametrize("var", [-1e-3, -0.5])
def test_small_negative_variance_gives_nan_in_gelu_mean(var):
    assert gelu_mean(torch.tensor([-1.0, 0.0, 1.0]), torch.tensor(var)).isnan().all()


@every_function
def test_nan_mean_gives_nan(function):
    assert function(torch.tensor(math.nan), torch.tensor(1.0)).isnan()


@every_function
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_the_result_has_the_broadcast_shape_and_the_dtype_of_the_arguments(function, dtype):
    result = function(torch.zeros(3, 1, dtype=dtype), torch.ones(1, 4, dtype=dtype))
    assert result.shape == (3, 4)
    assert result.dtype == dtype


# properties


@given(positions, spreads, st.floats(1e-3, 1e3))
def test_a_scale_goes_through_relu_mean_and_its_square_through_relu_var(t, std, scale):
    mean, var = double(t * std), double(std * std)
    rescaled = scale * mean, scale**2 * var
    torch.testing.assert_close(relu_mean(*rescaled), scale * relu_mean(mean, var), rtol=1e-11, atol=0)
    torch.testing.assert_close(relu_var(*rescaled), scale**2 * relu_var(mean, var), rtol=1e-10, atol=0)


@given(positions, spreads)
def test_positive_part_less_negative_part_is_the_mean(t, std):
    mean, var = double(t * std), double(std * std)
    torch.testing.assert_close(
        relu_mean(mean, var) - relu_mean(-mean, var), mean, rtol=1e-14, atol=1e-15 * std
    )


@given(positions, spreads, st.floats(0.01, 5))
def test_relu_mean_grows_with_the_mean(t, std, step):
    mean, var = double(t * std), double(std * std)
    assert relu_mean(mean + step * std, var) > relu_mean(mean, var)


@given(positions, spreads, st.floats(1.01, 5))
def test_relu_mean_grows_with_the_variance(t, std, factor):
    mean, var = double(min(t, 5.0) * std), double(std * std)  # beyond 5 deviations the growth is rounded away
    assert relu_mean(mean, factor * var) > relu_mean(mean, var)


@given(positions, spreads)
def test_relu_never_adds_variance(t, std):
    assert 0 < relu_var(double(t * std), double(std * std)) <= std * std * (1 + 1e-15)


@given(positions, spreads)
def test_relu_mean_is_never_below_the_relu_of_the_mean(t, std):
    assert relu_mean(double(t * std), double(std * std)) >= max(t * std, 0)


@given(positions, spreads)
def test_leaky_relu_of_slope_one_changes_nothing(t, std):
    mean, var = double(t * std), double(std * std)
    torch.testing.assert_close(leaky_relu_mean(mean, var, slope=1.0), mean, rtol=1e-14, atol=1e-15 * std)
    torch.testing.assert_close(leaky_relu_var(mean, var, slope=1.0), var, rtol=1e-13, atol=0)


@given(positions, spreads)
def test_leaky_relu_of_slope_zero_is_the_relu(t, std):
    mean, var = double(t * std), double(std * std)
    assert leaky_relu_mean(mean, var, slope=0.0) == relu_mean(mean, var)
    assert leaky_relu_var(mean, var, slope=0.0) == relu_var(mean, var)


@given(st.floats(-8, 8), st.floats(0, 100))
def test_gelu_mean_is_odd_about_half_the_identity(mean, var):
    # z Phi(z) + (-z) Phi(-z) = z (2 Phi(z) - 1) is even, and z Phi(z) - (-z) Phi(-z) = z
    mean, var = double(mean), double(var)
    torch.testing.assert_close(gelu_mean(mean, var) - gelu_mean(-mean, var), mean, rtol=1e-13, atol=1e-13)


# errors


@every_function
@pytest.mark.parametrize(
    ("mean", "var", "message"),
    [
        (torch.arange(3), torch.ones(3), "Expected mean to be a floating-point tensor, got torch.int64"),
        (torch.ones(3), torch.arange(3), "Expected var to be a floating-point tensor, got torch.int64"),
        (1.0, torch.ones(3), "Expected mean to be a floating-point tensor, got float"),
        (torch.ones(3), 1.0, "Expected var to be a floating-point tensor, got float"),
        (torch.ones(3), double(1.0), "mean and var of one dtype, got torch.float32 and torch.float64"),
    ],
)
def test_other_types_are_refused_by_name(function, mean, var, message):
    with pytest.raises(TypeError, match=message):
        function(mean, var)


@every_function
def test_shapes_that_do_not_broadcast_are_refused_by_name(function):
    with pytest.raises(ValueError, match=r"mean and var of shapes that broadcast, got \(2, 3\) and \(2,\)"):
        function(torch.zeros(2, 3), torch.ones(2))


# the Gaussian itself


def test_gaussian_expands_its_variance_to_the_shape_of_its_mean():
    g = Gaussian(torch.zeros(2, 3), var=torch.tensor([1.0, 4.0, 9.0]))
    assert g.var.tolist() == [[1, 4, 9], [1, 4, 9]]


def test_std_is_the_root_of_the_variance():
    assert Gaussian(torch.zeros(2), var=torch.tensor([0.25, 9.0])).std.tolist() == [0.5, 3.0]


def test_std_is_the_root_of_the_diagonal_of_the_covariance():
    cov = torch.tensor([[[0.25, 0.1], [0.1, 9.0]], [[4.0, -1.0], [-1.0, 1.0]]])
    assert Gaussian(torch.zeros(2, 2), cov=cov).std.tolist() == [[0.5, 3.0], [2.0, 1.0]]


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_gaussian_accepts_the_asymmetry_of_rounding_at_every_scale(scale):
    cov = scale * torch.tensor([[1.0, 0.5], [0.5 * (1 + 1e-6), 1.0]])
    assert Gaussian(torch.zeros(2), cov=cov).cov is cov


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_gaussian_refuses_a_real_asymmetry_at_every_scale(scale):
    with pytest.raises(ValueError, match="Expected a symmetric cov"):
        Gaussian(torch.zeros(2), cov=scale * torch.tensor([[1.0, 0.5], [0.5 * (1 + 1e-3), 1.0]]))


def test_gaussian_cannot_be_changed():
    g = Gaussian(torch.zeros(2), var=torch.ones(2))
    with pytest.raises(AttributeError, match="cannot assign to field 'mean'"):
        g.mean = torch.ones(2)


@pytest.mark.parametrize(
    ("mean", "spread", "error", "message"),
    [
        (torch.zeros(2), {}, ValueError, "either var or cov, got neither"),
        (
            torch.zeros(2),
            {"var": torch.ones(2), "cov": torch.eye(2)},
            ValueError,
            "either var or cov, got both",
        ),
        (torch.tensor([0, math.nan]), {"var": torch.ones(2)}, ValueError, "mean without NaN, got 1 NaN"),
        (torch.zeros(2), {"var": torch.tensor([math.nan] * 2)}, ValueError, "var without NaN, got 2 NaN"),
        (torch.zeros(2), {"cov": torch.full((2, 2), math.nan)}, ValueError, "cov without NaN, got 4 NaN"),
        (
            torch.zeros(2),
            {"var": torch.tensor([1, -0.5])},
            ValueError,
            "var >= 0, got a smallest value of -0.5",
        ),
        (torch.zeros(2), {"var": torch.ones(3)}, ValueError, r"broadcasts to the mean's \(2,\), got \(3,\)"),
        (
            torch.zeros(2),
            {"var": torch.ones(5, 2)},
            ValueError,
            r"broadcasts to the mean's \(2,\), got \(5, 2\)",
        ),
        (torch.zeros(2), {"cov": torch.eye(3)}, ValueError, r"got cov \(3, 3\) with mean \(2,\)"),
        (torch.zeros(5, 2), {"cov": torch.eye(2)}, ValueError, r"got cov \(2, 2\) with mean \(5, 2\)"),
        (torch.tensor(0.0), {"cov": torch.tensor(1.0)}, ValueError, r"got cov \(\) with mean \(\)"),
        (
            torch.zeros(2),
            {"cov": torch.diag(torch.tensor([1, -2.0]))},
            ValueError,
            "variances >= 0, got .* -2",
        ),
        (
            torch.zeros(2),
            {"cov": torch.tensor([[1, 0.5], [0, 1]])},
            ValueError,
            "symmetric cov, got one 0.5 off",
        ),
        (
            torch.zeros(2),
            {"cov": torch.tensor([[1, 1e-4], [0, 1]])},
            ValueError,
            "symmetric cov, got one 0.0001",
        ),
        (torch.zeros(2), {"var": double([1.0, 1.0])}, TypeError, "mean and var of one dtype"),
        (torch.zeros(2), {"cov": torch.eye(2).double()}, TypeError, "mean and cov of one dtype"),
        (torch.zeros(2), {"var": torch.ones(2, dtype=torch.int64)}, TypeError, "var to be a floating-point"),
        (torch.zeros(2), {"var": 1.0}, TypeError, "var to be a floating-point tensor, got float"),
        (torch.zeros(2, dtype=torch.int64), {"var": torch.ones(2)}, TypeError, "mean to be a floating-point"),
        ([0.0, 0.0], {"cov": torch.eye(2)}, TypeError, "mean to be a floating-point tensor, got list"),
    ],
)
def test_gaussian_refuses_what_it_cannot_be(mean, spread, error, message):
    with pytest.raises(error, match=message):
        Gaussian(mean, **spread)
