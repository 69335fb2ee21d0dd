r"""Two correlated Gaussians after a ReLU, and the larger of the two, in closed form.

For a pair with means and standard deviations mean_i, std_i and correlation r, let a_i = mean_i / std_i,
Phi2 the cdf and phi2 the density of two standard normals with correlation t. Then

    Cov[relu(x1), relu(x2)] = std1 std2 C        C = integral of Phi2(a1, a2; t) over t from 0 to r
                                                   = r Phi(a1) Phi(a2) + integral of (r - t) phi2(a1, a2; t)

because a covariance of 0 gives 0, and its derivative by r is Phi2 (Price), whose derivative is phi2
(Plackett). The first term is the soft gates'; the integral is never negative and has no closed
form, but is smooth in the angle t = sin(theta): 24 nodes give 16 digits unless r is close to 1.
The expected product minus the product of means, as in most papers, is the same number and loses its
digits where the two are nearly equal. For the larger of two, with d^2 the variance of x1 - x2,

    E[max]   = mean2 + E[relu(x1 - x2)]
    Var[max] = Phi var1 + (1 - Phi) var2 - E[relu(x1 - x2)] E[relu(x2 - x1)]    Phi at (mean1 - mean2) / d

Source: Price, IRE Trans. Information Theory 4 (1958); Plackett, Biometrika 41 (1954). Centred case: Cho,
Saul, "Kernel Methods for Deep Learning", NIPS (2009). Maximum: Clark, Operations Research 9 (1961).
Lesson: notebooks/01_gaussian.ipynb
"""

import functools
import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gaussreg_lab.gaussian import Gaussian, _expect_matching, relu_mean, relu_var
from gaussreg_lab.normal import FARTHEST, normal_cdf, normal_density

NODES = 24, 48  # for |r| below MODERATE, and above it
MODERATE = 0.95


def relu_covariance(mean: Tensor, cov: Tensor) -> Tensor:
    """Exact covariance matrix of relu(z) for z ~ N(mean, cov).

    mean: (..., n); cov: (..., n, n), symmetric and positive semi-definite, in squared units of the
    mean. Returns (..., n, n): symmetric, positive semi-definite up to rounding, its diagonal the numbers
    of `relu_var`. Correlations of 1 or -1 and variances of 0 are fine. Error in float64 below 1e-11
    std_i std_j, and below 1e-14 of it for correlations up to 0.95; computed in float64 for any dtype.
    Differentiable twice, but only once at correlations of 1 or -1. Time and memory grow with n^2.
    Raises TypeError and ValueError as `Gaussian` does.

    >>> cov = torch.tensor([[1.0, 0.5], [0.5, 1.0]])
    >>> relu_covariance(torch.zeros(2), cov)  # 0.3408 = 1/2 - 1/(2 pi)
    tensor([[0.3408, 0.1453],
            [0.1453, 0.3408]])
    """
    x = _checked(mean, cov)
    first, second = torch.triu_indices(*cov.shape[-2:], offset=1)
    means, between = mean.double(), cov.double()
    std = _root(between.diagonal(dim1=-2, dim2=-1))
    pairs, _ = _Pair.apply(
        means[..., first], std[..., first], means[..., second], std[..., second],
        (between[..., first, second] + between[..., second, first]) / 2,
    )  # fmt: skip
    upper = torch.zeros_like(cov)
    upper[..., first, second] = pairs.to(cov.dtype)
    return _with_diagonal(upper + upper.mT, relu_var(mean, x.variances))


def relu_covariance_gate(mean: Tensor, cov: Tensor) -> Tensor:
    """First-order covariance of relu(z): cov_ij Phi(a_i) Phi(a_j), with the exact diagonal of `relu_var`.

    Each ReLU passes noise as often as it is on. The error is of order r^2, and the result is
    positive semi-definite, as each true variance is at least that of the gate. Arguments and
    errors as in `relu_covariance`; differentiable any number of times.

    >>> relu_covariance_gate(torch.zeros(2), torch.tensor([[1.0, 0.5], [0.5, 1.0]]))  # 0.5 / 4
    tensor([[0.3408, 0.1250],
            [0.1250, 0.3408]])
    """
    return relu_covariance_hermite(mean, cov, order=1)


def relu_covariance_hermite(mean: Tensor, cov: Tensor, order: int = 3) -> Tensor:
    """Covariance of relu(z) up to the power `order` of the correlations, with the exact diagonal.

    The Taylor series of C at r = 0, whose coefficients are Hermite polynomials:
    C = r Phi(a1) Phi(a2) + phi(a1) phi(a2) sum_k He_k(a1) He_k(a2) r^(k+2) / (k+2)!
    Cheap, and good where correlations are moderate; slow to converge near r = 1. order=1 is
    `relu_covariance_gate`. Otherwise as `relu_covariance`; raises ValueError for order < 1.

    >>> relu_covariance_hermite(torch.zeros(2), torch.tensor([[1.0, 0.5], [0.5, 1.0]]))
    tensor([[0.3408, 0.1449],
            [0.1449, 0.3408]])
    """
    if not isinstance(order, int) or order < 1:
        raise ValueError(f"Expected a whole order >= 1, got {order}")
    x = _checked(mean, cov)
    std = _root(x.variances)
    a = (mean / std).clamp(-FARTHEST, FARTHEST)
    r = (cov / std[..., :, None] / std[..., None, :]).clamp(-1, 1)
    on = normal_cdf(a)
    beyond = torch.zeros_like(r)  # the terms after the first, in units of std_i std_j
    side, before = normal_density(a), torch.zeros_like(a)  # phi He_k / sqrt(k!), which never overflows
    for k in range(order - 1):
        beyond = beyond + side[..., :, None] * side[..., None, :] * r ** (k + 2) / ((k + 1) * (k + 2))
        side, before = (a * side - math.sqrt(k) * before) / math.sqrt(k + 1), side
    gate = cov * on[..., :, None] * on[..., None, :]
    return _with_diagonal(gate + std[..., :, None] * std[..., None, :] * beyond, relu_var(mean, x.variances))


def relu_covariance_centred(cov: Tensor) -> Tensor:
    """Covariance of relu(z) for z ~ N(0, cov): the arc-cosine kernel, less the product of the means.

    C = ( r arccos(-r) + sqrt(1 - r^2) - 1 ) / (2 pi), exact, for mean 0 only. Some code uses it for any
    mean; its result is then neither right nor a covariance. Otherwise as `relu_covariance`.

    >>> relu_covariance_centred(torch.tensor([[1.0, 0.5], [0.5, 1.0]]))
    tensor([[0.3408, 0.1453],
            [0.1453, 0.3408]])
    """
    _expect_matching(cov, cov, "cov", "cov")
    zero = cov.new_zeros(cov.shape[:-1])
    x = _checked(zero, cov)
    std = _root(x.variances)
    r = cov / std[..., :, None] / std[..., None, :]
    # at |r| = 1 the slopes of the two terms are infinite and cancel: there the tangent takes over
    inner = torch.where(r.abs() < 1, r, 0)
    kernel = inner * torch.arccos(-inner) - inner.square() / (1 + (1 - inner.square()).sqrt())
    tangent = torch.where(r > 0, math.pi * r - 1, -1)
    kernel = torch.where(r.abs() < 1, kernel, tangent) / (2 * math.pi)
    return _with_diagonal(std[..., :, None] * std[..., None, :] * kernel, relu_var(zero, x.variances))


class MaxMoments(NamedTuple):
    """Mean and variance of the larger of two Gaussians."""

    mean: Tensor
    var: Tensor


def larger_of_two(mean1: Tensor, var1: Tensor, mean2: Tensor, var2: Tensor, cov: Tensor) -> MaxMoments:
    """Mean and variance of max(x1, x2) for two Gaussians with covariance `cov`, elementwise.

    All of one floating dtype and of shapes that broadcast. The variance is never negative; where x1 and
    x2 are the same variable, it is theirs. Differentiable twice. Raises TypeError for other dtypes,
    ValueError for NaN, other shapes, negative variances and cov^2 > var1 var2 beyond rounding.

    >>> zero, one = torch.tensor(0.0), torch.tensor(1.0)
    >>> larger_of_two(zero, one, zero, one, cov=zero)  # 1/sqrt(pi) and 1 - 1/pi
    MaxMoments(mean=tensor(0.5642), var=tensor(0.6817))
    """
    mean1, var1, mean2, var2, cov = _broadcast(mean1=mean1, var1=var1, mean2=mean2, var2=var2, cov=cov)
    _expect_covariance(var1, var2, cov)
    lead = mean1 - mean2
    var = (var1 + var2 - 2 * cov).clamp(min=0)  # of x1 - x2; below 0 by rounding only
    wins, loses = relu_mean(lead, var), relu_mean(-lead, var)
    # a spread below the rounding of var is none: dividing by it would make slopes out of rounding
    spread = torch.maximum(_root(var), torch.finfo(var.dtype).eps * _root(var1 + var2))
    share = normal_cdf(lead / spread)
    return MaxMoments(mean2 + wins, (share * var1 + (1 - share) * var2 - wins * loses).clamp(min=0))


def bivariate_normal_cdf(first: Tensor, second: Tensor, correlation: Tensor) -> Tensor:
    """Probability Phi2 that two standard normals lie below `first` and `second`, elementwise.

    One floating dtype, shapes that broadcast, correlation in [-1, 1]. Error in float64 below 1e-13 up to
    |correlation| = 0.999, and 1e-6 at worst, beside 1 and -1. Differentiable twice; the slope by the
    correlation is phi2, which has no bound where the correlation is 1 and the two are equal.
    Raises TypeError for other dtypes, ValueError for NaN, other shapes or correlations.

    >>> zero = torch.tensor(0.0)
    >>> bivariate_normal_cdf(zero, zero, torch.tensor(0.5))  # 1/4 + arcsin(1/2) / (2 pi)
    tensor(0.3333)
    """
    a1, a2, r = _broadcast(first=first, second=second, correlation=correlation)
    if (r.abs() > 1).any():
        raise ValueError(f"Expected correlation in [-1, 1], got {r.abs().max().item():g} in size")
    one = torch.ones_like(r, dtype=torch.float64)
    _, cdf = _Pair.apply(a1.double(), one, a2.double(), one, r.double())
    return cdf.to(first.dtype)


def _integrals(a1: Tensor, a2: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """C and Phi2 for float64 tensors of one shape; |r| at most 1, |a1| and |a2| at most FARTHEST."""
    c, cdf = _by_nodes(a1, a2, r, NODES[0])
    hard = r.abs() > MODERATE
    if hard.any():
        c[hard], cdf[hard] = _by_nodes(a1[hard], a2[hard], r[hard], NODES[1])
    return c, cdf


def _by_nodes(a1: Tensor, a2: Tensor, r: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre in v, with the angle theta = arcsin(r) - sign(r) arcsin(|r|) v^2, node by node.

    The square crowds the nodes where theta is near pi/2 and the integrand nearly singular. All
    differences there are written as products of sines: 1 - sin(theta) = 2 sin(d / 2)^2 and so on.
    """
    sign, size = torch.where(r < 0, -1.0, 1.0), r.abs()
    width, gap = torch.asin(size), torch.acos(size)
    apart, product = (a1 - sign * a2).square() / 2, sign * a1 * a2
    for_c, for_cdf = torch.zeros_like(r), torch.zeros_like(r)
    for v, weight in zip(*_unit_nodes(count), strict=True):
        inward = width * v**2
        short = 2 * ((gap + inward) / 2).sin().square()  # 1 - |sin(theta)|
        density = torch.exp(-(apart + product * short) / (short * (2 - short))) * (2 * v * weight)
        for_cdf += density
        for_c += density * (width - inward / 2).cos() * (inward / 2).sin()
    on = normal_cdf(a1) * normal_cdf(a2)
    return r * on + width * for_c / math.pi, (on + sign * width * for_cdf / (2 * math.pi)).clamp(min=0)


class _Pair(torch.autograd.Function):
    """Covariance of two ReLUs and the probability Phi2 that both are on, elementwise, in float64.

    Derivatives need no second integral: that of the covariance by cov is Phi2 (Price), those by a mean
    and a std are covariances with a gate and with a spike at 0, in closed form. All are plain torch,
    and Phi2 has slopes of its own, so a second derivative comes by itself.
    """

    @staticmethod
    def forward(ctx, *pair: Tensor) -> tuple[Tensor, Tensor]:
        _, std1, _, std2, _ = pair
        c, cdf = _integrals(*_standardized(*pair))
        ctx.save_for_backward(*pair, cdf)
        ctx.set_materialize_grads(False)
        return std1 * std2 * c, cdf

    @staticmethod
    def backward(ctx, *grads: Tensor | None) -> tuple:
        *pair, cdf = ctx.saved_tensors
        _, std1, _, std2, _ = pair
        a1, a2, r = _standardized(*pair)
        of_c1, of_cdf1, by_cov = _slopes(a1, a2, r, std1, std2, cdf)
        of_c2, of_cdf2, _ = _slopes(a2, a1, r, std2, std1, cdf)
        slopes = (*of_c1, *of_c2, cdf), (*of_cdf1, *of_cdf2, by_cov)
        terms = [[g * it for it in row] for g, row in zip(grads, slopes, strict=True) if g is not None]
        return tuple(map(sum, zip(*terms, strict=True))) or (None,) * 5


def _standardized(mean1: Tensor, std1: Tensor, mean2: Tensor, std2: Tensor, cov: Tensor) -> tuple:
    a1, a2 = ((mean / std).clamp(-FARTHEST, FARTHEST) for mean, std in ((mean1, std1), (mean2, std2)))
    return a1, a2, (cov / std1 / std2).clamp(-1, 1)


def _slopes(a1: Tensor, a2: Tensor, r: Tensor, std1: Tensor, std2: Tensor, cdf: Tensor) -> tuple:
    """Derivatives by mean1 and std1 of the covariance; of Phi2; and that of Phi2 by cov."""
    rest = (1 - r) * (1 + r)  # variance of x2 / std2 once x1 is known
    given1, given2, q = a2 - r * a1, a1 - r * a2, _root(rest)
    on1, on2, density1, density2 = normal_cdf(a1), normal_cdf(a2), normal_density(a1), normal_density(a2)
    by_a1, by_a2 = density1 * normal_cdf(given1 / q), density2 * normal_cdf(given2 / q)
    by_r = density1 * normal_density(given1 / q) / q
    by_mean = std2 * (a2 * (cdf - on1 * on2) + by_a2 - density2 * on1 + r * by_a1)
    by_std = std2 * density1 * (relu_mean(given1, rest) - relu_mean(a2, torch.ones_like(a2)))
    return (by_mean, by_std), (by_a1 / std1, -(a1 * by_a1 + r * by_r) / std1), by_r / std1 / std2


def _root(var: Tensor) -> Tensor:
    """sqrt(var), but never 0: at the smallest number of the dtype a spread is none."""
    return torch.where(var <= 0, torch.finfo(var.dtype).tiny, var).sqrt()


def _with_diagonal(matrix: Tensor, diagonal: Tensor) -> Tensor:
    symmetric = (matrix + matrix.mT) / 2
    return torch.diagonal_scatter(symmetric, diagonal, dim1=-2, dim2=-1)


def _checked(mean: Tensor, cov: Tensor) -> Gaussian:
    x = Gaussian(mean, cov=cov)
    if mean.shape != cov.shape[:-1]:
        got = f"{tuple(mean.shape)} with cov {tuple(cov.shape)}"
        raise ValueError(f"Expected mean of shape (..., n), flattened as cov is, got {got}")
    return x


def _broadcast(**named: Tensor) -> list[Tensor]:
    first = next(iter(named))
    for name, value in named.items():
        _expect_matching(named[first], value, first, name)
        if value.isnan().any():
            raise ValueError(f"Expected {name} without NaN, got {int(value.isnan().sum())} NaN")
    try:
        return torch.broadcast_tensors(*named.values())
    except RuntimeError:
        got = ", ".join(f"{name} {tuple(value.shape)}" for name, value in named.items())
        raise ValueError(f"Expected shapes that broadcast, got {got}") from None


def _expect_covariance(var1: Tensor, var2: Tensor, cov: Tensor) -> None:
    for name, var in (("var1", var1), ("var2", var2)):
        if (var < 0).any():
            raise ValueError(f"Expected {name} >= 0, got a smallest value of {var.min().item():g}")
    lift = 4 * torch.finfo(cov.dtype).eps ** 0.5 * torch.maximum(var1, var2)  # what rounding may need
    over = cov.abs() > (var1 + lift).sqrt() * (var2 + lift).sqrt()
    if over.any():
        worst = ", ".join(f"{it[over][0].item():g}" for it in (cov, var1, var2))
        raise ValueError(f"Expected cov^2 <= var1 var2, got cov, var1 and var2 of {worst}")


@functools.cache
def _unit_nodes(count: int) -> tuple[list[float], list[float]]:
    """Gauss-Legendre nodes and weights on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return ((nodes + 1) / 2).tolist(), (weights / 2).tolist()
