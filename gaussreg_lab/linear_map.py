r"""A linear map and its adjoint, as two functions; its singular values, one by iteration or all of them.

    <A x, y> = <x, A' y>        the adjoint A' is what a backward pass computes

A layer of thousands by thousands is never written down as a matrix. Two functions are enough to find how
far it can move its output:

    power iteration   u <- A'A u / |A'A u|, forgetting each u; |A u| climbs to the largest singular value
    Lanczos           the same products, all u kept: the best vector in their span, far sooner

and a layer, a network's Jacobian at a point, a Hessian are all the same to it. Inputs come in batches: of
one for a layer, of as many maps as points for a Jacobian.

Source: Golub, Kahan, "Calculating the Singular Values and Pseudo-Inverse of a Matrix", SIAM J. Numer. Anal. 2
(1965).
Lesson: notebooks/05_spectral.ipynb
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class LinearMap(NamedTuple):
    """x -> A x and y -> A' y, on batches.

    forward: (batch, *input_shape) -> (batch, *output_shape); adjoint: the other way. input_shape: of one
    input, without the batch.
    """

    forward: Callable[[Tensor], Tensor]
    adjoint: Callable[[Tensor], Tensor]
    input_shape: tuple[int, ...]


class TopSingular(NamedTuple):
    """The largest singular value of each map of a batch, and where it is reached.

    value: (batch,). direction: (batch, *input_shape), of length 1, stretched by `value`. residual: (batch,),
    |A'A u - value^2 u| / value^2; `value` is then within a share residual / 2 of a singular value.
    steps: how often A and A' were applied.
    """

    value: Tensor
    direction: Tensor
    residual: Tensor
    steps: int


def affine_map(function: Callable[[Tensor], Tensor], input_shape: Sequence[int], like: Tensor) -> LinearMap:
    """The linear part of any affine function on batches, x -> f(x) - f(0), its adjoint by a backward pass.

    like: a tensor of the dtype and on the device that the function works in.

    >>> halve = affine_map(torch.nn.AvgPool1d(2), (1, 4), like=torch.zeros(1))
    >>> halve.adjoint(torch.ones(1, 1, 2))
    tensor([[[0.5000, 0.5000, 0.5000, 0.5000]]])
    """
    shape = tuple(input_shape)
    with torch.no_grad():
        offset = function(like.new_zeros(1, *shape))
    return LinearMap(
        lambda x: function(x) - offset,
        lambda y: backward_through(function, like.new_zeros(len(y), *shape), y),
        shape,
    )


def jacobian_map(function: Callable[[Tensor], Tensor], x: Tensor) -> LinearMap:
    """The Jacobian of the function at each x of a batch: forward is J u (jvp), adjoint J' v (vjp).

    x: (batch, ...). No image may look at another. One forward pass of the function serves all products:
    J' v is linear in v, so J u is the derivative of <J' v, u> by v.

    >>> square = jacobian_map(torch.square, torch.tensor([[1.0, 2.0]]))
    >>> square.forward(torch.ones(1, 2)), square.adjoint(torch.ones(1, 2))
    (tensor([[2., 4.]]), tensor([[2., 4.]]))
    """
    with torch.enable_grad():
        at = x.detach().requires_grad_()
        output = function(at)
        slot = torch.zeros_like(output, requires_grad=True)
        (pulled,) = torch.autograd.grad(output, at, slot, create_graph=True)

    def push(u: Tensor) -> Tensor:
        return torch.autograd.grad(pulled, slot, u, retain_graph=True)[0]

    def pull(v: Tensor) -> Tensor:
        return torch.autograd.grad(output, at, v, retain_graph=True)[0]

    return LinearMap(push, pull, tuple(x.shape[1:]))


def power_iteration(
    linear_map: LinearMap, start: Tensor, tolerance: float = 1e-3, most: int = 1000
) -> TopSingular:
    """Apply A'A again and again until the direction stands still, or `most` times.

    start: (batch, *input_shape), not zero. tolerance: of the residual, at least 0; the value is good to far
    more digits than that, its error being of the order of the residual's square over the gap to the next one.
    The value is a lower bound. Raises ValueError for a start of another shape, most < 1, or a tolerance < 0.

    >>> diagonal = LinearMap(*[lambda x: x * torch.tensor([3.0, 1.0])] * 2, (2,))
    >>> power_iteration(diagonal, torch.ones(1, 2)).value.round(decimals=3)
    tensor([3.])
    """
    _expect_start(linear_map, start)
    _expect_limits(tolerance, most)
    u = unit(start)
    for step in range(1, most + 1):
        image = linear_map.forward(u)
        value, back = length(image), linear_map.adjoint(image)
        residual = length(back - _each(value.square(), u) * u) / _positive(value.square())
        if (residual <= tolerance).all():
            break
        u = unit(back) if step < most else u
    return TopSingular(value, u, residual, step)


def lanczos(linear_map: LinearMap, start: Tensor, tolerance: float = 1e-7, most: int = 200) -> TopSingular:
    """The largest singular value, from the span of all that a power iteration passes through.

    Arguments as in `power_iteration`. Each product A'A u is made orthogonal to those before it, and the best
    combination of them is found by a small dense decomposition. Memory: `most` inputs and outputs.

    >>> diagonal = LinearMap(*[lambda x: x * torch.tensor([3.0, 2.9, 1.0])] * 2, (3,))
    >>> lanczos(diagonal, torch.ones(1, 3)).value.round(decimals=5)
    tensor([3.])
    """
    _expect_start(linear_map, start)
    _expect_limits(tolerance, most)
    basis = unit(start).flatten(1)[:, None]  # (batch, steps, n)
    images = []
    for step in range(1, most + 1):
        image = linear_map.forward(basis[:, -1].reshape(start.shape))
        images.append(image.flatten(1))
        stack = torch.stack(images, dim=1)
        squares, mixes = torch.linalg.eigh(stack @ stack.mT)
        value, mix = squares[:, -1].clamp(min=0).sqrt(), mixes[:, :, -1]
        once = _beside(linear_map.adjoint(image).flatten(1), basis)
        new = _beside(once, basis)  # twice is enough against rounding
        # what a second time still shortens is rounding alone: nothing new is left in this direction
        new = torch.where(_each(length(new) > length(once) / 2, new), new, torch.zeros_like(new))
        residual = length(new) * mix[:, -1].abs() / _positive(value.square())
        if (residual <= tolerance).all() or step == most:
            break
        basis = torch.cat([basis, unit(new)[:, None]], dim=1)
    direction = (mix[:, None] @ basis).reshape(start.shape)
    return TopSingular(value, unit(direction), residual, step)


def subspace_step(linear_map: LinearMap, basis: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One step of power iteration with several directions of one map at once.

    basis: (count, *input_shape), orthonormal. Returns the gains of the best directions in its span, largest
    first; these directions, orthonormal as well; and the basis for the next step, A'A times them. Values that
    lie close together, or cross, are no trouble as long as there are fewer of them than directions.

    >>> diagonal = LinearMap(*[lambda x: x * torch.tensor([3.0, 2.0, 1.0])] * 2, (3,))
    >>> values, directions, _ = subspace_step(diagonal, torch.eye(3)[:2])
    >>> values, directions.abs()
    (tensor([3., 2.]), tensor([[1., 0., 0.],
            [0., 1., 0.]]))
    """
    images = linear_map.forward(basis)
    mixes = best_mixes(images)
    flat = mixes @ images.flatten(1)
    directions = (mixes @ basis.flatten(1)).reshape(basis.shape)
    pulled = linear_map.adjoint(flat.reshape(images.shape))
    return length(flat), directions, orthonormal(pulled)


def best_mixes(images: Tensor) -> Tensor:
    """How to mix orthonormal directions with these images: orthogonal (count, count), longest image first.

    >>> best_mixes(torch.tensor([[1.0, 0.0], [0.0, 2.0]])).abs()
    tensor([[0., 1.],
            [1., 0.]])
    """
    flat = images.flatten(1)
    return torch.linalg.eigh(flat @ flat.mT).eigenvectors.flip(1).mT


def orthonormal(basis: Tensor) -> Tensor:
    """Directions (count, ...) of length 1, at right angles to each other, that span what these do.

    >>> orthonormal(torch.tensor([[2.0, 0.0], [1.0, 1.0]])).abs()
    tensor([[1., 0.],
            [0., 1.]])
    """
    return torch.linalg.qr(basis.flatten(1).mT).Q.mT.reshape(basis.shape)


def matrix_of(linear_map: LinearMap, like: Tensor) -> Tensor:
    """The map as a matrix (outputs, inputs), by pushing the identity through it. For small maps.

    >>> matrix_of(LinearMap(lambda x: 2 * x, lambda y: 2 * y, (2,)), torch.zeros(1))
    tensor([[2., 0.],
            [0., 2.]])
    """
    n = math.prod(linear_map.input_shape)
    identity = torch.eye(n, dtype=like.dtype, device=like.device).reshape(n, *linear_map.input_shape)
    return linear_map.forward(identity).flatten(1).mT


def backward_through(function: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    """J' y for the Jacobian J of the function at x: one backward pass.

    >>> backward_through(torch.square, torch.tensor([3.0]), torch.tensor([1.0]))
    tensor([6.])
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return torch.autograd.grad(function(x), x, y)[0]


def length(x: Tensor) -> Tensor:
    """Euclidean length of each element of a batch, shape (batch,).

    >>> length(torch.tensor([[3.0, 4.0]]))
    tensor([5.])
    """
    return torch.linalg.vector_norm(x.flatten(1), dim=1)


def inner(x: Tensor, y: Tensor) -> Tensor:
    """Inner product of each element of a batch with its partner, shape (batch,).

    >>> inner(torch.tensor([[3.0, 4.0]]), torch.ones(1, 2))
    tensor([7.])
    """
    return (x * y).flatten(1).sum(dim=1)


def unit(x: Tensor) -> Tensor:
    """Each element of a batch at length 1; zeros stay zeros.

    >>> unit(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    return x / _each(_positive(length(x)), x)


def random_start(linear_map: LinearMap, like: Tensor, batch: int = 1, seed: int = 0) -> Tensor:
    """Where an iteration may begin: N(0, 1) inputs of the map, by a generator of their own.

    >>> random_start(LinearMap(torch.square, torch.square, (3,)), torch.zeros(1)).shape
    torch.Size([1, 3])
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, *linear_map.input_shape, generator=generator, dtype=torch.float64).to(like)


def _beside(x: Tensor, basis: Tensor) -> Tensor:
    """x (batch, n) less its part along the directions of a basis (batch, count, n)."""
    return x - ((x[:, None] @ basis.mT) @ basis)[:, 0]


def _each(values: Tensor, like: Tensor) -> Tensor:
    """One number for each element of a batch, in a shape that multiplies it."""
    return values.reshape(-1, *[1] * (like.dim() - 1))


def _positive(values: Tensor) -> Tensor:
    return values.clamp(min=torch.finfo(values.dtype).tiny)


def _expect_start(linear_map: LinearMap, start: Tensor) -> None:
    if tuple(start.shape[1:]) != tuple(linear_map.input_shape) or len(start) == 0:
        raise ValueError(
            f"Expected start of shape (batch, *{linear_map.input_shape}), got {tuple(start.shape)}"
        )
    if not (length(start) > 0).all():
        raise ValueError("Expected a start that is not zero, got zeros, which no map moves")


def _expect_limits(tolerance: float, most: int) -> None:
    if not (tolerance >= 0 and most >= 1):
        raise ValueError(f"Expected tolerance >= 0 and most >= 1, got {tolerance} and {most}")
