r"""Mean and variance of a rectified Gaussian with all their derivatives, from one pass over the numbers.

For z ~ N(mean, std^2), t = mean / std, and the density phi and cdf Phi of N(0, 1):

    E   = E[relu(z)]         dE   = Phi(t) dmean + phi(t) dstd
    Var = Var[relu(z)]       dVar = 2 E Phi(-t) dmean + 2 (std Phi(t) - E phi(t)) dstd

and dPhi(t) = phi dt, dPhi(-t) = -phi dt, dphi = -t phi dt: five functions closed under differentiation. The
forward pass computes all five from one tail, so a derivative of any order only multiplies and adds.

No torch.where, which takes as long as ten multiplications. The tests hold this against the plain formulas.

Source: see module gaussian, which has the user's functions.
Lesson: notebooks/01_gaussian.ipynb
"""

import torch
from torch import Tensor

from gaussreg_lab.normal import FARTHEST, tail

STEEP = 1e37  # times a number, cut to [0, 1]: whether it is positive


def root(var: Tensor) -> Tensor:
    """sqrt(var), but the smallest std there is where var is 0, with derivative 0 there instead of infinity.

    >>> root(torch.tensor([4.0, 0.0])) > 0
    tensor([True, True])
    """
    return _Root.apply(var)


def rectified_moments(mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of max(z, 0) for z ~ N(mean, std^2), elementwise; mean and std > 0 of one shape.

    >>> rectified_moments(torch.tensor(0.0), torch.tensor(1.0))  # 1 / sqrt(2 pi), 1/2 - 1 / (2 pi)
    (tensor(0.3989), tensor(0.3408))
    """
    rectified, var, *_ = _Rectified.apply(mean, std)
    return rectified, var


class _Root(torch.autograd.Function):
    """sqrt(var), but the smallest std there is at 0, where its derivative, otherwise infinite, is 0."""

    generate_vmap_rule = True

    @staticmethod
    def forward(var: Tensor) -> Tensor:
        return var.sqrt().clamp(min=torch.finfo(var.dtype).tiny ** 0.5)

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(*inputs, output)
        ctx.save_for_forward(*inputs, output)

    @staticmethod
    def backward(ctx, by_std: Tensor) -> Tensor:
        return _slope_of_root(*ctx.saved_tensors, by_std)

    @staticmethod
    def jvp(ctx, var_tangent: Tensor) -> Tensor:
        return _slope_of_root(*ctx.saved_tensors, var_tangent)


class _Rectified(torch.autograd.Function):
    """(mean, std) -> mean and variance of the ReLU, Phi(t), Phi(-t), phi(t), with t = mean / std.

    The five are closed under differentiation, so all derivatives, of any order, come from what the forward
    pass has computed:  dE = Phi(t) dmean + phi dstd,  dVar = 2 E Phi(-t) dmean + 2 (std Phi(t) - E phi) dstd,
    dPhi(t) = phi dt,  dPhi(-t) = -phi dt,  dphi = -t phi dt.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(mean: Tensor, std: Tensor) -> tuple[Tensor, ...]:
        t = mean / std
        distance = t.abs().clamp(max=FARTHEST)
        density, mass, excess = tail(distance)
        positive = (t * STEEP).clamp(0, 1)  # a step; torch.where takes several times as long
        middle = 1 - 2 * mass
        above, below = torch.addcmul(mass, positive, middle), torch.addcmul(mass, 1 - positive, middle)
        rectified = torch.addcmul(mean.clamp(min=0), std, excess)
        share = above - excess * (distance + excess)  # of var; beyond 38 std its last bits may be below 0
        return rectified, share.clamp(min=0) * std * std, above, below, density

    @staticmethod
    def setup_context(ctx, inputs: tuple, outputs: tuple) -> None:
        rectified, _, above, below, density = outputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs, rectified, above, below, density)
        ctx.save_for_forward(*inputs, rectified, above, below, density)

    @staticmethod
    def backward(ctx, by_mean, by_var, by_above, by_below, by_density) -> tuple[Tensor | None, ...]:
        mean, std, rectified, above, below, density = ctx.saved_tensors
        to_mean, to_std = [], []
        if by_mean is not None:
            to_mean.append(by_mean * above)
            to_std.append(by_mean * density)
        if by_var is not None:
            twice = 2 * by_var
            to_mean.append(twice * rectified * below)
            to_std.append(twice * (std * above - rectified * density))
        if not (by_above is None and by_below is None and by_density is None):
            t = (mean / std).clamp(-FARTHEST, FARTHEST)
            by_t = density * _sum(by_above, _minus(by_below), _minus(by_density, t)) / std
            to_mean.append(by_t)
            to_std.append(-t * by_t)
        return _sum(*to_mean), _sum(*to_std)

    @staticmethod
    def jvp(ctx, mean_tangent: Tensor | None, std_tangent: Tensor | None) -> tuple[Tensor, ...]:
        mean, std, rectified, above, below, density = ctx.saved_tensors
        mean_tangent = torch.zeros_like(mean) if mean_tangent is None else mean_tangent
        std_tangent = torch.zeros_like(std) if std_tangent is None else std_tangent
        t = (mean / std).clamp(-FARTHEST, FARTHEST)
        t_tangent = (mean_tangent - t * std_tangent) / std
        return (
            above * mean_tangent + density * std_tangent,
            2 * rectified * below * mean_tangent + 2 * (std * above - rectified * density) * std_tangent,
            density * t_tangent,
            -density * t_tangent,
            -t * density * t_tangent,
        )


def _slope_of_root(var: Tensor, std: Tensor, by_std: Tensor) -> Tensor:
    return by_std * (var * STEEP).clamp(0, 1) / (2 * std)


def _sum(*terms: Tensor | None) -> Tensor | None:
    present = [term for term in terms if term is not None]
    return sum(present[1:], present[0]) if present else None


def _minus(term: Tensor | None, factor: Tensor | float = 1.0) -> Tensor | None:
    return None if term is None else -factor * term
