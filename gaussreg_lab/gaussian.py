r"""Moments of a Gaussian after one elementwise map, in closed form.

For z ~ N(mean, var), with std = sqrt(var), t = mean / std, and Phi, phi the cdf and
density of N(0, 1):

    E[relu(z)]   = relu(mean) + std * excess          excess = phi(t) - |t| Phi(-|t|)
    Var[relu(z)] = var * (Phi(t) - excess * (|t| + excess))

The textbook writes the mean as mean * Phi(t) + std * phi(t) and the variance as a second
moment minus a squared mean. Both are the same numbers, but in floating point both subtract
nearly equal quantities and lose their digits; the forms above do not.

Source: the moments of a rectified Gaussian, as used by Alfadly, Bibi, Ghanem, "Analytical Moment
Regularizer for Gaussian Robust Networks", arXiv 1904.11005 (2019); rewritten by the tail, see module normal.
Lesson: notebooks/01_gaussian.ipynb
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gaussreg_lab.normal import normal_density
from gaussreg_lab.rectified import rectified_moments, root


class Moments(NamedTuple):
    """Mean and variance, elementwise, of one shape."""

    mean: Tensor
    var: Tensor


@dataclass(frozen=True, eq=False)  # tensors have no single answer to ==
class Gaussian:
    """A Gaussian vector, image or batch: its mean with either variances or a covariance.

    mean: floating point, any shape, batch first, say (batch, n).
    var: variance of each component, components independent; any shape that broadcasts to
    the mean's, and is expanded to it. In squared units of the mean.
    cov: full covariance, shape (..., n, n) for a mean (..., n). For images (batch, c, h, w) it is
    (batch, n, n) with n = c h w, over the flattened pixels.

    Raises TypeError for tensors that are not floating point or of mixed dtypes, ValueError
    for wrong shapes, NaN, negative variances, a cov that is not symmetric and positive
    semi-definite up to rounding, or var and cov both or neither given.

    >>> g = Gaussian(torch.zeros(2, 3), var=torch.tensor(0.25))
    >>> g.std
    tensor([[0.5000, 0.5000, 0.5000],
            [0.5000, 0.5000, 0.5000]])
    """

    mean: Tensor
    var: Tensor | None = None
    cov: Tensor | None = None

    def __post_init__(self) -> None:
        if (self.var is None) == (self.cov is None):
            both = "neither" if self.var is None else "both"
            raise ValueError(f"Expected either var or cov, got {both}")
        name, spread = ("var", self.var) if self.cov is None else ("cov", self.cov)
        _expect_matching(self.mean, spread, "mean", name)
        for label, tensor in (("mean", self.mean), (name, spread)):
            if tensor.isnan().any():
                raise ValueError(f"Expected {label} without NaN, got {int(tensor.isnan().sum())} NaN")
        if self.cov is None:
            self._check_var()
        else:
            self._check_cov()

    def _check_var(self) -> None:
        try:
            expanded = self.var.expand(self.mean.shape)
        except RuntimeError:
            raise ValueError(
                f"Expected var of a shape that broadcasts to the mean's {tuple(self.mean.shape)}, "
                f"got {tuple(self.var.shape)}"
            ) from None
        if (expanded < 0).any():
            raise ValueError(f"Expected var >= 0, got a smallest value of {self.var.min().item():g}")
        object.__setattr__(self, "var", expanded)  # frozen for the user, not for its own checks

    def _check_cov(self) -> None:
        batch_dims = self.cov.dim() - 2
        n = math.prod(self.mean.shape[batch_dims:])
        if not 0 <= batch_dims < self.mean.dim() or self.cov.shape != (*self.mean.shape[:batch_dims], n, n):
            got = f"cov {tuple(self.cov.shape)} with mean {tuple(self.mean.shape)}"
            raise ValueError(f"Expected cov of shape (..., n, n) for a mean (..., n), got {got}")
        var = self.cov.diagonal(dim1=-2, dim2=-1)
        if (var < 0).any():
            raise ValueError(f"Expected cov with variances >= 0, got a smallest one of {var.min().item():g}")
        asymmetry = (self.cov - self.cov.mT).abs()
        if (asymmetry > 1e-5 * (var[..., :, None] * var[..., None, :]).sqrt()).any():
            raise ValueError(
                f"Expected a symmetric cov, got one {asymmetry.max().item():g} off its transpose"
            )
        _expect_semidefinite(self.cov.detach(), var.detach())

    @property
    def variances(self) -> Tensor:
        """Variance of each component, in the mean's shape: var, or the diagonal of cov."""
        return self.var if self.cov is None else self.cov.diagonal(dim1=-2, dim2=-1).reshape(self.mean.shape)

    @property
    def std(self) -> Tensor:
        """Standard deviation of each component, in the mean's shape and units."""
        return self.variances.sqrt()


def relu_mean(mean: Tensor, var: Tensor) -> Tensor:
    """Mean of max(z, 0) for z ~ N(mean, var), elementwise.

    mean, var: floating point, one dtype, any shapes that broadcast; var in squared units of
    the mean. Returns the broadcast shape in units of the mean. At var = 0 this is the plain
    ReLU, with gradient 0 with respect to var. Negative var and NaN give NaN.
    Relative error for mean / std down to -20: about 1e-12 in float64; in float32 below 1e-5, as
    much as a rounding of the inputs does there. Differentiable twice.
    Raises TypeError for other or mixed dtypes, ValueError for shapes that do not broadcast.

    >>> relu_mean(torch.tensor([-1.0, 0.0, 1.0]), torch.tensor(1.0))  # the middle: 1/sqrt(2 pi)
    tensor([0.0833, 0.3989, 1.0833])
    """
    return relu_mean_and_var(mean, var).mean


def relu_var(mean: Tensor, var: Tensor) -> Tensor:
    """Variance of max(z, 0) for z ~ N(mean, var), elementwise.

    Arguments, limits and errors as in `relu_mean`; the result is in squared units of the mean and
    never negative; at var = 0 it is 0 or the smallest number of the dtype. Relative error in
    float64 about 1e-12 for mean / std down to -8, and 3e-11 down to -20.

    >>> relu_var(torch.tensor([-1.0, 0.0, 1.0]), torch.tensor(1.0))  # the middle: 1/2 - 1/(2 pi)
    tensor([0.0684, 0.3408, 0.7511])
    >>> relu_var(torch.tensor(1000.0), torch.tensor(0.01))  # where the textbook formula gives 0
    tensor(0.0100)
    """
    return relu_mean_and_var(mean, var).var


def relu_mean_and_var(mean: Tensor, var: Tensor) -> Moments:
    """`relu_mean` and `relu_var` at the price of one of them.

    >>> relu_mean_and_var(torch.tensor(0.0), torch.tensor(1.0)).mean
    tensor(0.3989)
    """
    return Moments(*rectified_moments(*_mean_and_std(mean, var)))


def leaky_relu_mean(mean: Tensor, var: Tensor, slope: float = 0.01) -> Tensor:
    """Mean of leaky ReLU, z for z > 0 and slope * z else, for z ~ N(mean, var), elementwise.

    Leaky ReLU is relu(z) - slope * relu(-z). slope: any number; -1 gives |z|.
    Otherwise as `relu_mean`.

    >>> leaky_relu_mean(torch.tensor(0.0), torch.tensor(1.0), slope=-1.0)  # E|z| = sqrt(2/pi)
    tensor(0.7979)
    """
    return relu_mean(mean, var) - slope * relu_mean(-mean, var)


def leaky_relu_var(mean: Tensor, var: Tensor, slope: float = 0.01) -> Tensor:
    """Variance of leaky ReLU, z for z > 0 and slope * z else, for z ~ N(mean, var), elementwise.

    relu(z) and relu(-z) are never positive together, so their covariance is minus the product
    of their means. Otherwise as `relu_var`.

    >>> leaky_relu_var(torch.tensor(0.0), torch.tensor(1.0), slope=-1.0)  # Var|z| = 1 - 2/pi
    tensor(0.3634)
    """
    above, below = relu_mean_and_var(mean, var), relu_mean_and_var(-mean, var)
    return above.var + slope**2 * below.var + 2 * slope * above.mean * below.mean


def gelu_mean(mean: Tensor, var: Tensor) -> Tensor:
    """Mean of GELU, z * Phi(z), for z ~ N(mean, var), elementwise.

    GELU is the mean of a ReLU under one unit of noise of its own, less a bell:
    E[gelu(z)] = E[relu(z')] - phi(mean / s) / s with z' ~ N(mean, s^2) and s^2 = 1 + var.
    Otherwise as `relu_mean`.

    >>> gelu_mean(torch.tensor([-1.0, 0.0, 1.0]), torch.tensor(1.0))
    tensor([-0.0201,  0.2821,  0.9799])
    """
    _expect_matching(mean, var, "mean", "var")
    both = torch.where(var < 0, torch.nan, 1 + var)  # the variance of the input, and one unit of its own
    return relu_mean(mean, both) - normal_density(mean / both.sqrt()) / both.sqrt()


def _expect_semidefinite(cov: Tensor, var: Tensor) -> None:
    # a Cholesky factor exists if the smallest eigenvalue is above minus the lift, which rounding may need
    info = torch.finfo(cov.dtype)
    lift = info.eps**0.5 * var.amax(dim=-1).clamp(min=info.tiny**0.5)
    _, failed = torch.linalg.cholesky_ex(cov + torch.diag_embed(lift[..., None].expand_as(var)))
    if failed.any():
        smallest = torch.linalg.eigvalsh(cov).min().item()
        raise ValueError(f"Expected a positive semi-definite cov, got one with an eigenvalue of {smallest:g}")


def _mean_and_std(mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
    _expect_matching(mean, var, "mean", "var")
    try:
        return torch.broadcast_tensors(mean, root(var))
    except RuntimeError:
        raise ValueError(
            f"Expected mean and var of shapes that broadcast, got {tuple(mean.shape)} and {tuple(var.shape)}"
        ) from None


def _expect_matching(first: Tensor, second: Tensor, first_name: str, second_name: str) -> None:
    for name, value in ((first_name, first), (second_name, second)):
        if not isinstance(value, Tensor) or not value.is_floating_point():
            got = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(f"Expected {name} to be a floating-point tensor, got {got}")
    if first.dtype != second.dtype:
        raise TypeError(
            f"Expected {first_name} and {second_name} of one dtype, got {first.dtype} and {second.dtype}"
        )
