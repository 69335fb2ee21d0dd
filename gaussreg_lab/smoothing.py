r"""The smoothed network: every ReLU gives way to its mean under the noise that reaches it.

    relu(z)  ->  E[relu(z + s n)] = z Phi(z / s) + s phi(z / s)          n ~ N(0, 1)

It is the network as the noise sees it on average: its kinks are rounded, its gates soft, so its
derivatives say how far the output really moves under a jolt of that size. Two ways to know the
spread s of each unit: by propagation (exact at the first layer, far too small behind it, where
shared noise adds up), or by listening to one noisy pass and averaging over the batch.

Made for training: derivatives of any order, from numbers kept in the forward pass. Digits count
relative to s here, not to the result as in `gaussian.relu_mean`, at a quarter of its cost.

Lesson: notebooks/03_losses.ipynb
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def smooth_relu(mean: Tensor, std: Tensor) -> Tensor:
    """E[relu(mean + std n)], elementwise, with an error below 1e-6 std in float32.

    std: > 0, of a shape that broadcasts to the mean's, say (1, units) for one spread per unit.

    >>> smooth_relu(torch.tensor([-1.0, 0.0, 1.0]), torch.tensor([1.0]))
    tensor([0.0833, 0.3989, 1.0833])
    """
    value, _, _ = _SmoothReLU.apply(mean, std)
    return value


def listen(model: nn.Module, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The output for x, and what went into each ReLU on the way, in order; without gradients.

    Raises ValueError for a model without nn.ReLU layers, or with one that works in place.

    >>> output, heard = listen(nn.Sequential(nn.Linear(2, 3), nn.ReLU()), torch.ones(4, 2))
    >>> output.shape, [it.shape for it in heard]
    (torch.Size([4, 3]), [torch.Size([4, 3])])
    """
    heard: list[Tensor] = []
    with torch.no_grad(), _at_each_relu(model, lambda z: heard.append(z)):
        return model(x), heard


def smoothed(model: nn.Module, x: Tensor, noisy: list[Tensor]) -> Tensor:
    """The output of the smoothed network for x, given what a noisy pass sent into each ReLU.

    noisy: from `listen`, for the same images with noise. The spread of each unit is the root mean square
    over the batch of noisy minus smooth; it is held fixed in the derivatives.

    >>> model, x = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)), torch.ones(4, 2)
    >>> _, noisy = listen(model, x + 0.1 * torch.randn(4, 2))
    >>> smoothed(model, x, noisy).shape
    torch.Size([4, 2])
    """
    remaining = iter(noisy)

    def give_way(z: Tensor) -> Tensor:
        apart = next(remaining) - z.detach()
        return smooth_relu(z, root_mean_square(apart))

    with _at_each_relu(model, give_way):
        return model(x)


def root_mean_square(apart: Tensor) -> Tensor:
    """Root mean square over the batch, shape (1, ...); never 0, so that it can be divided by.

    >>> root_mean_square(torch.tensor([[3.0], [-3.0]]))
    tensor([[3.]])
    """
    smallest = torch.finfo(apart.dtype).tiny ** 0.25  # its square, and a mean over it, are numbers too
    return (torch.linalg.vector_norm(apart, dim=0, keepdim=True) / math.sqrt(len(apart))).clamp(min=smallest)


@contextmanager
def _at_each_relu(model: nn.Module, put: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
    """While this lasts, put(z) stands for relu(z), unless it returns None."""
    relus = [layer for layer in model.modules() if isinstance(layer, nn.ReLU)]
    if not relus or any(layer.inplace for layer in relus):
        found = "one with inplace=True" if relus else "none"
        raise ValueError(f"Expected a model with nn.ReLU layers that do not work in place, got {found}")
    handles = [layer.register_forward_hook(lambda _, inputs, __: put(inputs[0])) for layer in relus]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _SmoothReLU(torch.autograd.Function):
    """(mean, std) -> E[relu], Phi(t), phi(t) with t = mean / std.

    The three are closed under differentiation: d E = Phi dmean + phi dstd, d Phi = phi dt,
    d phi = -t phi dt. So all derivatives, of any order, come from what the forward pass computed.
    """

    @staticmethod
    def forward(mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        t = mean * (1 / std)
        # erf and exp2 take half the time of erfc and exp; the tail's digits are not wanted here
        gate = torch.erf(t * math.sqrt(0.5)).add_(1).mul_(0.5)
        density = t.square_().mul_(-0.5 / math.log(2)).exp2_().mul_(1 / math.sqrt(2 * math.pi))
        return torch.addcmul(mean * gate, density, std), gate, density

    @staticmethod
    def setup_context(ctx, inputs: tuple, outputs: tuple) -> None:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs, *outputs[1:])

    @staticmethod
    def backward(ctx, by_value: Tensor | None, by_gate: Tensor | None, by_density: Tensor | None) -> tuple:
        mean, std, gate, density = ctx.saved_tensors
        to_mean, to_std = [], []
        if by_value is not None:
            to_mean.append(by_value * gate)
            to_std.append(lambda: by_value * density)
        if by_gate is not None or by_density is not None:
            t = mean / std
            by_t = density * sum(
                it for it in (by_gate, None if by_density is None else -t * by_density) if it is not None
            )
            to_mean.append(by_t / std)
            to_std.append(lambda: -t * by_t / std)
        if not to_mean:
            return None, None
        spread_counts = ctx.needs_input_grad[1]
        return sum(to_mean), sum(it() for it in to_std).sum_to_size(std.shape) if spread_counts else None
