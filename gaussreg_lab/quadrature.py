"""Expectation under a Gaussian by numerical integration: the judge of every closed form.

    E[f(z)] = integral f(mean + std t) phi(t) dt

on both sides of a kink separately, each by Gauss-Legendre, which is exact to rounding for
functions that are smooth there. Slow and one-dimensional, but it knows no formula of ours, and
that is what a judge is for.

Lesson: notebooks/01_gaussian.ipynb
"""

import functools
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

NODES = 200
FARTHEST = 12.0  # standard deviations; what lies beyond has probability 1e-33


def expectation(function: Callable[[Tensor], Tensor], mean: float, var: float, kink: float = 0.0) -> Tensor:
    """E[function(z)] for z ~ N(mean, var), in float64.

    function: maps a 1-D float64 tensor to one of the same shape; smooth but for a possible kink
    or jump at z = kink. mean, var: numbers or 0-d tensors, var > 0 in squared units of the mean.
    Raises ValueError for var <= 0, and for a mean or var that is NaN or infinite.

    >>> expectation(torch.square, mean=3.0, var=4.0)  # mean^2 + var
    tensor(13.0000, dtype=torch.float64)
    """
    mean, var = float(mean), float(var)
    if not (0 < var < math.inf and math.isfinite(mean)):
        raise ValueError(f"Expected a finite mean and a finite var > 0, got {mean} and {var}")
    std = math.sqrt(var)
    middle = min(max((kink - mean) / std, -FARTHEST), FARTHEST)
    nodes, weights = _gauss_legendre()
    total = torch.zeros((), dtype=torch.float64)
    for low, high in ((-FARTHEST, middle), (middle, FARTHEST)):
        t = (low + high) / 2 + (high - low) / 2 * nodes
        density = torch.exp(-t.square() / 2) / math.sqrt(2 * math.pi)
        total += (high - low) / 2 * (weights * function(mean + std * t) * density).sum()
    return total


@functools.cache  # they take longer to find than everything else here
def _gauss_legendre() -> tuple[Tensor, Tensor]:
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    return torch.from_numpy(nodes), torch.from_numpy(weights)
