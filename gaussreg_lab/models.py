"""The networks of the lab: small, quick on two cores, and open to closed-form moments.

Every model maps images in [0, 1] to logits and begins with its own normalization, an affine
layer. So sigma is measured in pixels everywhere outside, and a Gaussian passes the first layer
exactly. None has dropout, whose noise would hide the noise we study, and none batch norm, whose
running statistics would change when a method runs the network twice in a step.

Pooling is an argument. The average (default) is a linear map: a Gaussian passes it exactly, mean
and covariance. The maximum has a closed form for two Gaussians only, and every use of it on a
window is an approximation; pass nn.MaxPool2d to see what that costs.

Lesson: notebooks/00_start_here.ipynb
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import Tensor, nn


class Normalize(nn.Module):
    """(x - mean) / std, per channel; the first layer of every model.

    mean, std: one number, or one for each channel; in pixel units, std > 0. Not trained.
    Call with x of shape (batch, channels, height, width), or (batch, n) for one number each.

    >>> Normalize(0.5, 0.25)(torch.tensor([[0.0, 1.0]]))
    tensor([[-2.,  2.]])
    """

    def __init__(self, mean: float | Sequence[float] = 0.5, std: float | Sequence[float] = 0.5) -> None:
        super().__init__()
        mean, std = (torch.tensor(value, dtype=torch.get_default_dtype()) for value in (mean, std))
        if not (std > 0).all():
            raise ValueError(f"Expected std > 0, got {std.tolist()}")
        # one number for each channel stands against (batch, channels, height, width)
        self.register_buffer("mean", mean[:, None, None] if mean.dim() else mean)
        self.register_buffer("std", std[:, None, None] if std.dim() else std)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std

    def extra_repr(self) -> str:
        return f"mean={self.mean.flatten().tolist()}, std={self.std.flatten().tolist()}"


def mlp(sizes: Sequence[int] = (64, 64, 10), seed: int = 0) -> nn.Sequential:
    """A fully connected ReLU network; sizes: pixels, hidden widths, classes.

    >>> mlp((64, 32, 10))(torch.zeros(5, 1, 8, 8)).shape
    torch.Size([5, 10])
    """
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(f"Expected sizes to be two or more positive numbers, got {tuple(sizes)}")
    with _seeded(seed):
        layers: list[nn.Module] = [Normalize(), nn.Flatten()]
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])  # the logits are not rectified


def lenet(
    classes: int = 10,
    channels: tuple[int, int] = (16, 32),
    hidden: int = 128,
    pool: type[nn.Module] = nn.AvgPool2d,
    seed: int = 0,
) -> nn.Sequential:
    """LeNet for 28x28 grey images: two 5x5 convolutions, each halved by pooling, two linear layers.

    channels=(32, 64), hidden=1024, pool=nn.MaxPool2d is the size used by Alfadly et al. (2019).

    >>> lenet()(torch.zeros(5, 1, 28, 28)).shape
    torch.Size([5, 10])
    """
    return _two_convolutions(5, channels, 7, hidden, classes, pool, seed)


def lenet8(
    classes: int = 10,
    channels: tuple[int, int] = (32, 64),
    hidden: int = 128,
    pool: type[nn.Module] = nn.AvgPool2d,
    seed: int = 0,
) -> nn.Sequential:
    """LeNet's small sibling for the 8x8 digits: 3x3 convolutions, otherwise the same build.

    >>> lenet8()(torch.zeros(5, 1, 8, 8)).shape
    torch.Size([5, 10])
    """
    return _two_convolutions(3, channels, 2, hidden, classes, pool, seed)


def cifar_convnet(
    classes: int = 10, width: int = 32, pool: type[nn.Module] = nn.AvgPool2d, seed: int = 0
) -> nn.Sequential:
    """Six 3x3 convolutions in three stages for 32x32 colour images; width: channels of the first.

    >>> cifar_convnet(width=8)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    layers: list[nn.Module] = [Normalize()]
    with _seeded(seed):
        inputs = 3
        for outputs in (width, 2 * width, 4 * width):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
            layers += [nn.Conv2d(outputs, outputs, 3, padding=1), nn.ReLU(), pool(2)]
            inputs = outputs
        layers += [nn.Flatten(), nn.Linear(inputs * 4 * 4, classes)]
    return nn.Sequential(*layers)


def _two_convolutions(
    kernel: int,
    channels: tuple[int, int],
    side: int,
    hidden: int,
    classes: int,
    pool: type[nn.Module],
    seed: int,
) -> nn.Sequential:
    """side: height and width of what the second pooling leaves, a quarter of the image's."""
    first, second = channels
    with _seeded(seed):
        return nn.Sequential(
            Normalize(),
            nn.Conv2d(1, first, kernel, padding=kernel // 2),
            nn.ReLU(),
            pool(2),
            nn.Conv2d(first, second, kernel, padding=kernel // 2),
            nn.ReLU(),
            pool(2),
            nn.Flatten(),
            nn.Linear(second * side * side, hidden),
            nn.ReLU(),
            nn.Linear(hidden, classes),
        )


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """While this lasts the model is in eval mode; afterwards each layer is in the mode that it was in.

    >>> model = nn.Sequential(nn.Dropout())
    >>> with in_eval_mode(model):
    ...     model[0].training
    False
    >>> model[0].training
    True
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Initial weights from a seed of their own; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
