"""Losses: any callable (model, x, y) -> scalar, the first of the three sockets.

    cross_entropy      the plain loss
    NoisyLoss          the mean loss under fresh input noise: training with noise, by sampling
    weighted_sum       several losses as one

A loss sees the model, not its outputs, because a regularizer may need to run it several times
or to look inside. Losses are means over the batch, and unweighted: weights are for sums. Those in
closed form stand in module moment_losses.

Source of noise training: Bishop, "Training with Noise is Equivalent to Tikhonov
Regularization", Neural Computation 7 (1995).
Lesson: notebooks/00_start_here.ipynb
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]


def cross_entropy(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Cross entropy of the model's logits, mean over the batch.

    x: (batch, ...) inputs; y: (batch,) class numbers. Returns a scalar.

    >>> cross_entropy(nn.Flatten(), torch.zeros(3, 10), torch.tensor([1, 2, 3]))  # log 10
    tensor(2.3026)
    """
    return nn.functional.cross_entropy(model(x), y)


@dataclass(frozen=True)
class NoisyLoss:
    """The mean of `loss` over inputs x + sigma * n with fresh n ~ N(0, I) at every call.

    sigma: standard deviation of the noise in pixel units, >= 0; 0 gives `loss` itself. The noise
    is not clipped: that would shift its mean and halve its spread on black pixels.
    samples: independent draws for each image. generator: of the noise, on x's device; by
    default torch's global one. Raises ValueError for sigma < 0, NaN or infinite, samples < 1.

    >>> loss = NoisyLoss(sigma=0.5, generator=torch.Generator().manual_seed(0))
    >>> loss(nn.Flatten(), torch.zeros(3, 10), torch.tensor([1, 2, 3])) > 0
    tensor(True)
    """

    sigma: float
    samples: int = 1
    loss: Loss = cross_entropy
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        expect_sigma(self.sigma)
        if self.samples < 1:
            raise ValueError(f"Expected samples >= 1, got {self.samples}")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        if self.sigma == 0:
            return self.loss(model, x, y)
        # all draws in one batch: the mean over it is the mean over images and draws
        copies = x.repeat(self.samples, *[1] * (x.dim() - 1))
        noise = torch.randn(copies.shape, generator=self.generator, dtype=x.dtype, device=x.device)
        return self.loss(model, copies + self.sigma * noise, y.repeat(self.samples))


def weighted_sum(*terms: tuple[float, Loss]) -> Loss:
    """The loss weight_1 * loss_1 + weight_2 * loss_2 + ..., from pairs (weight, loss).

    Raises ValueError without terms or for a weight that is not a finite number, TypeError for
    a loss that cannot be called.

    >>> loss = weighted_sum((1.0, cross_entropy), (0.5, NoisyLoss(sigma=0.0)))
    >>> loss(nn.Flatten(), torch.zeros(3, 10), torch.tensor([1, 2, 3]))  # 1.5 log 10
    tensor(3.4539)
    """
    if not terms:
        raise ValueError("Expected at least one pair (weight, loss), got none")
    for weight, loss in terms:
        if not callable(loss):
            raise TypeError(f"Expected pairs (weight, loss) with a callable loss, got {loss!r}")
        expect_weight(weight, f"weight for {loss!r}")

    def weighted(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return sum(weight * loss(model, x, y) for weight, loss in terms)

    return weighted


def expect_sigma(sigma: float) -> None:
    """Raise ValueError unless sigma is a number a noise level can be."""
    if not (sigma >= 0 and math.isfinite(sigma)):  # NaN fails every comparison
        raise ValueError(f"Expected sigma >= 0 and finite, a standard deviation in pixel units, got {sigma}")


def expect_positive_sigma(sigma: float) -> None:
    """Raise ValueError unless sigma is a noise level above 0, which closed forms divide by."""
    expect_sigma(sigma)
    if sigma == 0:
        raise ValueError("Expected sigma > 0, got 0; without noise this is cross_entropy")


def expect_weight(weight: float, name: str) -> None:
    """Raise ValueError unless the weight called `name` is a finite number."""
    if not math.isfinite(weight):
        raise ValueError(f"Expected a finite {name}, got {weight}")
