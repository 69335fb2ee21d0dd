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

from gaussreg_lab.gaussian import Gaussian, normal_cdf, normal_density, relu_mean, relu_var

NODES = 24, 48  # for |r| below MODERATE, and above it
MODERATE = 0.95
FARTHEST = 40.0  # standard deviations; further out phi is 0 even in float64


def relu_covariance(mean: Tensor, cov: Tensor) -> Tensor:
    """Exact covariance matrix of relu(z) for z ~ N(mean, cov).

    mean: (..., n); cov: (..., n, n), symmetric and positive semi-definite, in squared units of the
    mean. Returns (..., n, n): symmetric, positive semi-definite up to rounding, its diagonal the numbers
    of `relu_var`. Correlations of 1 or -1 and variances of 0 are fine. Error in float64 below 1e-9
    std_i std_j, and below 1e-12 of it for correlations up to 0.95; computed in float64 for any dtype.
    Differentiable once. Time and memory grow with n^2; half a second for n = 512.
    Raises TypeError and ValueError as `Gaussian` does.

    >>> cov = torch.tensor([[1.0, 0.5], [0.5, 1.0]])
    >>> relu_covariance(torch.zeros(2), cov)  # 0.3408 = 1/2 - 1/(2 pi)
    tensor([[0.3408, 0.1453],
            [0.1453, 0.3408]])
    """
    x = Gaussian(mean, cov=cov)
    first, second = torch.triu_indices(*cov.shape[-2:], offset=1)
    var = x.variances
    pairs = _PairCovariance.apply(
        mean[..., first], mean[..., second], var[..., first], var[..., second],
        (cov[..., first, second] + cov[..., second, first]) / 2,
    )  # fmt: skip
    return _symmetric(pairs, relu_var(mean, var), first, second)


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
    if order < 1:
        raise ValueError(f"Expected order >= 1, got {order}")
    x = Gaussian(mean, cov=cov)
    std = _root(x.variances)
    a = (mean / std).clamp(-FARTHEST, FARTHEST)
    r = cov / std[..., :, None] / std[..., None, :]
    on, density = normal_cdf(a), normal_density(a)
    series = r * on[..., :, None] * on[..., None, :]
    before, hermite = torch.zeros_like(a), torch.ones_like(a)
    for k in range(order - 1):
        side = density * hermite
        series = series + side[..., :, None] * side[..., None, :] * r ** (k + 2) / float(
            math.factorial(k + 2)
        )
        before, hermite = hermite, a * hermite - k * before
    return _with_diagonal(std[..., :, None] * std[..., None, :] * series, relu_var(mean, x.variances))


def relu_covariance_centred(cov: Tensor) -> Tensor:
    """Covariance of relu(z) for z ~ N(0, cov): the arc-cosine kernel, less the product of the means.

    C = ( r arccos(-r) + sqrt(1 - r^2) - 1 ) / (2 pi), exact, for mean 0 only. Some code uses it for any
    mean; its result is then neither right nor a covariance. Otherwise as `relu_covariance`.

    >>> relu_covariance_centred(torch.tensor([[1.0, 0.5], [0.5, 1.0]]))
    tensor([[0.3408, 0.1453],
            [0.1453, 0.3408]])
    """
    zero = torch.zeros_like(cov[..., 0])
    x = Gaussian(zero, cov=cov)
    std = _root(x.variances)
    r = cov / std[..., :, None] / std[..., None, :]
    fixed = r.detach().clamp(-1, 1)
    slope = torch.arccos(-fixed)
    # the slopes of the two terms by r are infinite at r = 1, their sum is not: so it is given here
    kernel = fixed * slope + (1 - fixed.square()).sqrt() - 1 + slope * (r - r.detach())
    kernel = kernel * std[..., :, None] * std[..., None, :] / (2 * math.pi)
    return _with_diagonal(kernel, relu_var(zero, x.variances))


class MaxMoments(NamedTuple):
    """Mean and variance of the larger of two Gaussians."""

    mean: Tensor
    var: Tensor


def larger_of_two(mean1: Tensor, var1: Tensor, mean2: Tensor, var2: Tensor, cov: Tensor) -> MaxMoments:
    """Mean and variance of max(x1, x2) for two Gaussians with covariance `cov`, elementwise.

    All of one floating dtype and of shapes that broadcast. The variance is never negative; where
    x1 and x2 are the same variable, it is theirs. Differentiable twice.
    Raises TypeError for other dtypes, ValueError for cov^2 > var1 var2 beyond rounding.

    >>> zero, one = torch.tensor(0.0), torch.tensor(1.0)
    >>> larger_of_two(zero, one, zero, one, cov=zero)  # 1/sqrt(pi) and 1 - 1/pi
    MaxMoments(mean=tensor(0.5642), var=tensor(0.6817))
    """
    slack = 1 + 8 * torch.finfo(cov.dtype).eps ** 0.5
    if (cov.square() > slack * var1 * var2).any():
        raise ValueError(f"Expected cov^2 <= var1 var2, got a largest cov of {cov.abs().max().item():g}")
    lead = mean1 - mean2
    var = (var1 + var2 - 2 * cov).clamp(min=0)  # of x1 - x2; below 0 by rounding only
    wins, loses = relu_mean(lead, var), relu_mean(-lead, var)
    share = normal_cdf(lead / _root(var))
    return MaxMoments(mean2 + wins, (share * var1 + (1 - share) * var2 - wins * loses).clamp(min=0))


def bivariate_normal_cdf(first: Tensor, second: Tensor, correlation: Tensor) -> Tensor:
    """Probability Phi2 that two standard normals lie below `first` and `second`, elementwise.

    One floating dtype, shapes that broadcast, correlation in [-1, 1]. Error in float64 1e-12 up to
    |correlation| = 0.999, 1e-5 in the corner beside 1. Not differentiable: this is a quantity to look at.
    Raises ValueError for a correlation outside of [-1, 1].

    >>> zero = torch.tensor(0.0)
    >>> bivariate_normal_cdf(zero, zero, torch.tensor(0.5))  # 1/4 + arcsin(1/2) / (2 pi)
    tensor(0.3333)
    """
    if not (correlation.abs() <= 1).all():
        raise ValueError(f"Expected correlation in [-1, 1], got {correlation.abs().max().item():g}")
    arguments = torch.broadcast_tensors(first, second, correlation)
    _, cdf = _integrals(*(it.detach().double() for it in arguments))
    return cdf.to(first.dtype)


def _integrals(a1: Tensor, a2: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """C and Phi2 for float64 tensors of one shape, |r| <= 1."""
    a1, a2 = a1.clamp(-FARTHEST, FARTHEST), a2.clamp(-FARTHEST, FARTHEST)
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


class _PairCovariance(torch.autograd.Function):
    """Covariance of two ReLUs, elementwise over pairs; in float64, whatever comes in.

    Its derivatives need no second integral. By Price's theorem that by cov is Phi2; those by a mean
    and a variance are covariances with a gate and with a spike at 0, known in closed form.
    """

    @staticmethod
    def forward(ctx, mean1: Tensor, mean2: Tensor, var1: Tensor, var2: Tensor, cov: Tensor) -> Tensor:
        mean1d, mean2d, var1d, var2d, covd = (it.double() for it in (mean1, mean2, var1, var2, cov))
        std1, std2 = _root(var1d), _root(var2d)
        a1, a2, r = mean1d / std1, mean2d / std2, (covd / std1 / std2).clamp(-1, 1)
        c, cdf = _integrals(a1, a2, r)
        ctx.save_for_backward(a1, a2, r, std1, std2, cdf)
        return (std1 * std2 * c).to(mean1.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple:
        a1, a2, r, std1, std2, cdf = ctx.saved_tensors
        a1, a2 = a1.clamp(-FARTHEST, FARTHEST), a2.clamp(-FARTHEST, FARTHEST)
        by_mean1, by_var1 = _slopes(a1, a2, r, std1, std2, cdf)
        by_mean2, by_var2 = _slopes(a2, a1, r, std2, std1, cdf)
        return tuple((grad * slope).to(grad.dtype) for slope in (by_mean1, by_mean2, by_var1, by_var2, cdf))


def _slopes(
    a1: Tensor, a2: Tensor, r: Tensor, std1: Tensor, std2: Tensor, cdf: Tensor
) -> tuple[Tensor, Tensor]:
    """Derivatives of std1 std2 C by mean1 and by var1, the covariance held fixed."""
    rest = (1 - r) * (1 + r)  # variance of x2 / std2 once x1 is known
    density1, density2, on1 = normal_density(a1), normal_density(a2), normal_cdf(a1)
    given1, given2 = a2 - r * a1, a1 - r * a2
    by_mean = (
        a2 * (cdf - on1 * normal_cdf(a2))
        + density2 * (normal_cdf(given2 / _root(rest)) - on1)
        + r * density1 * normal_cdf(given1 / _root(rest))
    )
    by_var = density1 * (relu_mean(given1, rest) - relu_mean(a2, torch.ones_like(a2))) / (2 * std1)
    return std2 * by_mean, std2 * by_var


def _root(var: Tensor) -> Tensor:
    """sqrt(var), but never 0: at the smallest number of the dtype a spread is none."""
    return torch.where(var <= 0, torch.finfo(var.dtype).tiny, var).sqrt()


def _symmetric(pairs: Tensor, diagonal: Tensor, first: Tensor, second: Tensor) -> Tensor:
    n = diagonal.shape[-1]
    upper = pairs.new_zeros(*diagonal.shape, n)
    upper[..., first, second] = pairs
    return upper + upper.mT + torch.diag_embed(diagonal)


def _with_diagonal(matrix: Tensor, diagonal: Tensor) -> Tensor:
    symmetric = (matrix + matrix.mT) / 2
    return torch.diagonal_scatter(symmetric, diagonal, dim1=-2, dim2=-1)


@functools.cache
def _unit_nodes(count: int) -> tuple[list[float], list[float]]:
    """Gauss-Legendre nodes and weights on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return ((nodes + 1) / 2).tolist(), (weights / 2).tolist()
