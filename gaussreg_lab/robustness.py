"""How well a trained network holds: accuracy, and accuracy under input noise.

    accuracy under noise = P( argmax f(x + sigma n) = y ),   n ~ N(0, I), over the given images

Each draw disturbs every image once; several draws give a standard error. It says how much the
number depends on the noise, not on which images happen to be in the test set. All networks and
all noise levels are judged by the same draws (common random numbers), so that differences
between them come from the networks.

Lesson: notebooks/00_start_here.ipynb
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gaussreg_lab.datasets import expect_pairs
from gaussreg_lab.losses import expect_sigma

BATCH = 1000  # images at a time: a bounded memory whatever the size of the test set


class Estimate(NamedTuple):
    """A mean over independent draws with its standard error."""

    mean: float
    standard_error: float


class NoiseCurve(NamedTuple):
    """Accuracy against the noise level: three tensors of one length. sigmas in pixel units."""

    sigmas: Tensor
    mean: Tensor
    standard_error: Tensor


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Share of the images x whose largest logit is the one of their label y.

    x: (count, ...) in [0, 1]; y: (count,). The model is put in eval mode for the time of the call.
    Raises ValueError when x and y differ in length or are empty.

    >>> accuracy(nn.Flatten(), torch.eye(4), torch.tensor([0, 1, 2, 0]))
    0.75
    """
    expect_pairs(x, y)
    return _correct(model, x, y) / len(y)


def accuracy_under_noise(
    model: nn.Module, x: Tensor, y: Tensor, sigma: float, draws: int = 5, seed: int = 0
) -> Estimate:
    """Accuracy on x + sigma * n, n ~ N(0, I), as a mean over `draws` draws of the noise.

    sigma: standard deviation in pixel units; the noise is not clipped. The standard error is
    nan for a single draw. Raises ValueError for sigma < 0 or NaN, draws < 1, and as `accuracy`.

    >>> accuracy_under_noise(nn.Flatten(), torch.eye(4), torch.arange(4), sigma=0.0)
    Estimate(mean=1.0, standard_error=0.0)
    """
    expect_sigma(sigma)
    expect_pairs(x, y)
    if draws < 1:
        raise ValueError(f"Expected draws >= 1, got {draws}")
    generator = torch.Generator().manual_seed(seed)
    shares = torch.empty(draws, dtype=torch.float64)
    for draw in range(draws):
        noise = torch.randn(x.shape, generator=generator).to(x)
        shares[draw] = _correct(model, x + sigma * noise, y) / len(y)
    return Estimate(shares.mean().item(), _standard_error(shares))


def noise_curve(
    model: nn.Module, x: Tensor, y: Tensor, sigmas: Sequence[float], draws: int = 5, seed: int = 0
) -> NoiseCurve:
    """`accuracy_under_noise` at each of `sigmas`, by the same draws at every level.

    >>> curve = noise_curve(nn.Flatten(), torch.eye(4), torch.arange(4), sigmas=[0.0, 10.0])
    >>> bool(curve.mean[1] < curve.mean[0])
    True
    """
    sigmas = [float(sigma) for sigma in sigmas]
    if not sigmas:
        raise ValueError("Expected at least one sigma, got none")
    points = [accuracy_under_noise(model, x, y, sigma, draws, seed) for sigma in sigmas]
    means, errors = zip(*points, strict=True)
    return NoiseCurve(torch.tensor(sigmas), torch.tensor(means), torch.tensor(errors))


@torch.no_grad()
def _correct(model: nn.Module, x: Tensor, y: Tensor) -> int:
    modes = [(module, module.training) for module in model.modules()]
    device = next((weight.device for weight in model.parameters()), x.device)
    model.eval()
    try:
        return sum(
            int((model(images.to(device)).argmax(dim=1).cpu() == labels.cpu()).sum())
            for images, labels in zip(x.split(BATCH), y.split(BATCH), strict=True)
        )
    finally:
        for module, training in modes:
            module.training = training


def _standard_error(shares: Tensor) -> float:
    return (shares.std() / len(shares) ** 0.5).item() if len(shares) > 1 else float("nan")
