"""The closed family against autograd through the plain formulas."""

import math

import pytest
import torch
from torch import Tensor

from gaussreg_lab.rectified import rectified_moments, root


def plain(mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """The textbook's formulas; in float64 and near the kink their cancellation does no harm."""
    t = mean / std
    cdf, density = torch.special.ndtr(t), torch.exp(-t.square() / 2) / math.sqrt(2 * math.pi)
    first = mean * cdf + std * density
    return first, (mean.square() + std.square()) * cdf + mean * std * density - first.square()


def inputs(*shape: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    mean = 2 * torch.randn(shape, generator=generator, dtype=torch.float64)
    std = 0.3 + torch.rand(shape, generator=generator, dtype=torch.float64)
    return [mean.requires_grad_(), std.requires_grad_()]


def derivatives(function, output: int, order: int) -> list[Tensor]:
    """Of the sum of one output, again and again by both inputs."""
    at = inputs(50)
    value = function(*at)[output].sum()
    for _ in range(order):
        value = sum((it * (2 + it)).sum() for it in torch.autograd.grad(value, at, create_graph=True))
    return torch.autograd.grad(value, at)


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("output", [0, 1], ids=["mean", "variance"])
def test_derivatives_of_any_order_are_those_of_the_plain_formulas(output, order):
    for ours, plains in zip(
        derivatives(rectified_moments, output, order), derivatives(plain, output, order), strict=True
    ):
        torch.testing.assert_close(ours, plains, rtol=1e-8, atol=1e-8)


def test_a_root_is_differentiable_at_zero():
    var = torch.tensor([0.0, 4.0], requires_grad=True)
    std = root(var)
    assert 0 < std[0] < 1e-18
    assert std[1] == 2
    std.sum().backward()
    assert var.grad.tolist() == [0.0, 0.25]
    assert root(torch.tensor([-1.0, torch.nan])).isnan().all()
