r"""The curvature of the loss in weight space: the largest eigenvalue of its Hessian, never written down.

    H v  =  gradient by w of <gradient of the loss, v>       one more backward pass for each product
    loss(w + d) - loss(w)  ~  d'H d / 2  <=  top |d|^2 / 2   where the gradient is zero, for short jolts d

Products are all that Lanczos needs. It finds the eigenvalue of largest size, s, by the same iteration as for
a layer's norm. Where that one is negative, as it may be at a saddle, H + s I has the same eigenvectors in the
same order, and no eigenvalue below zero.

Source: Pearlmutter, "Fast Exact Multiplication by the Hessian", Neural Computation 6 (1994).
Lesson: notebooks/06_perturbation.ipynb
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gaussreg_lab.datasets import expect_pairs
from gaussreg_lab.linear_map import LinearMap, lanczos, random_start
from gaussreg_lab.losses import Loss, cross_entropy
from gaussreg_lab.models import in_eval_mode
from gaussreg_lab.sharpness import expect_finite, trained_weights


class TopEigenvalue(NamedTuple):
    """The algebraically largest eigenvalue of a symmetric map, and where it is reached.

    direction: (n,), of length 1. residual: |A direction - value direction|; some eigenvalue is at least as
    near to `value` as that. products: how many times the map was applied.
    """

    value: float
    direction: Tensor
    residual: float
    products: int


def hessian_map(model: nn.Module, x: Tensor, y: Tensor, loss: Loss = cross_entropy) -> LinearMap:
    """The Hessian of the loss by all trained weights, as a symmetric map on vectors (batch, n).

    One pass forward and back serves all products: H v is the derivative of <gradient, v>. The weights must
    stay as they are while the map is in use. Raises as `sharpness`.

    >>> model = nn.Linear(2, 1, bias=False)
    >>> height = lambda model, x, y: model.weight.pow(4).sum()
    >>> _ = nn.init.ones_(model.weight)
    >>> hessian_map(model, torch.zeros(1, 2), torch.zeros(1), height).forward(torch.eye(2))
    tensor([[12.,  0.],
            [ 0., 12.]])
    """
    weights = trained_weights(model)
    expect_pairs(x, y)
    with in_eval_mode(model), torch.enable_grad():
        value = expect_finite(loss(model, x, y))
        parts = torch.autograd.grad(value, weights, create_graph=True, materialize_grads=True)
        gradient = _flat(parts)

    def product(v: Tensor) -> Tensor:
        if not gradient.requires_grad:  # a loss that is linear in the weights
            return torch.zeros_like(v)
        rows = [
            torch.autograd.grad(gradient, weights, row, retain_graph=True, materialize_grads=True)
            for row in v
        ]
        return torch.stack([_flat(row) for row in rows])

    return LinearMap(product, product, (gradient.numel(),))


def top_eigenvalue(
    symmetric: LinearMap, start: Tensor, tolerance: float = 1e-4, most: int = 100
) -> TopEigenvalue:
    """The algebraically largest eigenvalue of a symmetric map, also where a negative one is larger in size.

    start: (1, n), not zero. Lanczos finds the largest in size, s. If that is no positive one, the eigenvalues
    of A + s I are all positive, in the same order, and Lanczos is sent there. tolerance, most: its own.

    >>> diagonal = torch.tensor([-5.0, 1.0, 2.0])
    >>> symmetric = LinearMap(lambda v: v * diagonal, lambda v: v * diagonal, (3,))
    >>> round(top_eigenvalue(symmetric, torch.ones(1, 3)).value, 4)
    2.0
    """
    found = lanczos(symmetric, start, tolerance, most)
    answer = _with_residual(symmetric, found.direction, 2 * found.steps + 1)
    size = found.value.item()
    # A'A does not tell s from -s; were both there, the direction would be a mixture with a large residual
    if answer.value >= 0 and answer.residual <= 2 * size * max(tolerance, found.residual.item()):
        return answer
    shift = size * (1 + found.residual.item())  # what Lanczos finds is a lower bound
    shifted = LinearMap(*[lambda v: symmetric.forward(v) + shift * v] * 2, symmetric.input_shape)
    again = lanczos(shifted, start, tolerance, most)
    return _with_residual(symmetric, again.direction, answer.products + 2 * again.steps + 1)


def curvature(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    loss: Loss = cross_entropy,
    tolerance: float = 1e-3,
    most: int = 50,
) -> TopEigenvalue:
    """The largest eigenvalue of the Hessian of the loss: twice the rise per squared length, for short jolts.

    Arguments as in `sharpness` and `top_eigenvalue`, errors as in `hessian_map`.

    >>> model = nn.Linear(2, 1, bias=False)
    >>> saddle = lambda model, x, y: (torch.tensor([[-5.0, 3.0]]) * model.weight.square()).sum() / 2
    >>> round(curvature(model, torch.zeros(1, 2), torch.zeros(1), saddle).value, 4)
    3.0
    """
    symmetric = hessian_map(model, x, y, loss)
    return top_eigenvalue(symmetric, random_start(symmetric, trained_weights(model)[0]), tolerance, most)


def _with_residual(symmetric: LinearMap, direction: Tensor, products: int) -> TopEigenvalue:
    image = symmetric.forward(direction)
    value = (direction * image).sum()  # Rayleigh's quotient: of all numbers the one with least residual
    residual = torch.linalg.vector_norm(image - value * direction)
    return TopEigenvalue(value.item(), direction[0], residual.item(), products)


def _flat(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([part.flatten() for part in parts])
