r"""Losses from closed-form moments: noise training that knows more than one draw can tell.

With m the mean and C the covariance of the logits under input noise, p = softmax, H = diag(p) - p p':

    ExpectedOutputLoss     CE(m, y), a lower bound of the mean loss, with m as the paper approximates it
    AnalyticalMomentLoss   CE(f(x), y) + alpha CE(m, y), the paper's whole objective
    SecondOrderLoss        CE(m, y) + w/2 trace(C H), which adds the spread, as far as the loss is curved

Source: Alfadly, Bibi, Ghanem, "Analytical Moment Regularizer for Gaussian Robust Networks", arXiv
1904.11005 (2019). That the mean loss changes with C by half its mean curvature: Price, IRE Trans.
Information Theory 4 (1958).
Lesson: notebooks/03_losses.ipynb
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gaussreg_lab.covariance import relu_covariance
from gaussreg_lab.gaussian import Gaussian
from gaussreg_lab.layer_moments import layer_moments
from gaussreg_lab.linearization import split_at_first_relu
from gaussreg_lab.losses import expect_positive_sigma, expect_weight
from gaussreg_lab.models import Normalize
from gaussreg_lab.smoothing import listen, smooth_relu, smoothed

AFFINE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Flatten, nn.Identity, nn.AvgPool1d, nn.AvgPool2d, Normalize)
WITHOUT_WEIGHTS = (nn.AvgPool2d, nn.MaxPool2d, nn.Flatten, nn.Identity)


@dataclass(frozen=True)
class ExpectedOutputLoss:
    """Cross entropy of the expected output, as Alfadly et al. define and approximate it.

    The mean of the first ReLU under input noise is exact, since all before it is affine; what follows
    takes that mean as if it were an image. A lower bound of the mean loss, by Jensen's inequality
    and as far as the mean is right; the output's spread does not enter.

    sigma: standard deviation of the noise in pixel units, > 0. The paper adds alpha times this loss
    to the cross entropy, see `AnalyticalMomentLoss`. The model is an nn.Sequential in which only
    affine layers stand before the first ReLU: pool behind it.
    Raises ValueError for another sigma or no ReLU, NotImplementedError for other models.

    >>> from gaussreg_lab.models import mlp
    >>> ExpectedOutputLoss(sigma=0.5)(mlp((4, 8, 2)), torch.zeros(3, 4), torch.tensor([0, 1, 0])) > 0
    tensor(True)
    """

    sigma: float

    def __post_init__(self) -> None:
        expect_positive_sigma(self.sigma)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        before, after = split_at_first_relu(model)
        std = std_before_first_relu(before, x, self.sigma)
        return nn.functional.cross_entropy(after(smooth_relu(before(x), std)), y)


@dataclass(frozen=True)
class AnalyticalMomentLoss:
    """Cross entropy plus alpha times the cross entropy of the expected output: the paper's objective.

    The same number as weighted_sum((1, cross_entropy), (alpha, ExpectedOutputLoss(sigma))), but the
    layers before the first ReLU run once, and those behind it run on one batch of both halves.

    sigma: in pixel units, > 0. alpha: finite; 1 to 20 in the paper. Otherwise as `ExpectedOutputLoss`.

    >>> from gaussreg_lab.models import mlp
    >>> loss = AnalyticalMomentLoss(sigma=0.5, alpha=2.0)
    >>> loss(mlp((4, 8, 2)), torch.zeros(3, 4), torch.tensor([0, 1, 0])) > 0
    tensor(True)
    """

    sigma: float
    alpha: float = 1.0

    def __post_init__(self) -> None:
        expect_positive_sigma(self.sigma)
        expect_weight(self.alpha, "alpha")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        before, after = split_at_first_relu(model)
        std = std_before_first_relu(before, x, self.sigma)
        z = before(x)
        halves, layers = [z.relu(), smooth_relu(z, std)], list(after)
        while layers and isinstance(layers[0], WITHOUT_WEIGHTS):  # smaller behind a pooling
            layer = layers.pop(0)
            halves = [layer(half) for half in halves]
        plain, expected = nn.Sequential(*layers)(torch.cat(halves)).chunk(2)
        return nn.functional.cross_entropy(plain, y) + self.alpha * nn.functional.cross_entropy(expected, y)


@dataclass(frozen=True)
class SecondOrderLoss:
    r"""Mean cross entropy under input noise to second order: at the mean logits, plus their spread.

        CE(m, y) + trace_weight / 2 trace(C H),     C = sigma^2 J J',     H = diag(p) - p p'

    m and J are the logits and the Jacobian of the smoothed network, in which every ReLU gives way
    to its mean. One noisy pass without gradients says how widely to smooth each unit, and where to
    take the curvature: p are its probabilities, because the derivative of the mean loss by C is half
    the curvature on average over the noise (Price), not the one at the mean.

    sigma: standard deviation of the noise in pixel units, > 0. projections: random directions v with
    E[v v'] = H, each of which costs one backward pass and gives |J' v|^2, the trace on average; None for
    the trace itself, at one pass per class. trace_weight: 1 in theory; 2 to 4 trains better, see the
    lesson. generator: of noise and directions, on x's device; by default the global one.
    Any model whose ReLUs are nn.ReLU layers. Raises ValueError for bad numbers or no such layer.

    >>> from gaussreg_lab.models import mlp
    >>> SecondOrderLoss(sigma=0.5)(mlp((4, 8, 2)), torch.zeros(3, 4), torch.tensor([0, 1, 0])) > 0
    tensor(True)
    """

    sigma: float
    projections: int | None = 1
    trace_weight: float = 1.0
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        expect_positive_sigma(self.sigma)
        expect_weight(self.trace_weight, "trace_weight")
        if self.projections is not None and self.projections < 1:
            raise ValueError(f"Expected projections >= 1 or None for the exact trace, got {self.projections}")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        with_graph = torch.is_grad_enabled()
        noise = torch.randn(x.shape, generator=self.generator, dtype=x.dtype, device=x.device)
        noisy_logits, noisy = listen(model, x + self.sigma * noise)
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            logits = smoothed(model, x, noisy)
            trace = 0.0
            for direction in self._directions(noisy_logits.softmax(dim=1)):
                (pulled,) = torch.autograd.grad(
                    (logits * direction).sum(), x, create_graph=with_graph, retain_graph=True
                )
                trace = trace + pulled.square().sum() / len(x)
            count = 1 if self.projections is None else self.projections
            spread = self.sigma**2 * trace / count
            loss = nn.functional.cross_entropy(logits, y) + self.trace_weight / 2 * spread
        return loss if with_graph else loss.detach()

    def _directions(self, p: Tensor) -> Iterator[Tensor]:
        """Vectors (batch, classes) that make up H: at random, or the columns of a square root of it."""
        root = p.sqrt()
        if self.projections is None:
            for column in torch.eye(p.shape[1], dtype=p.dtype, device=p.device):
                yield root * column - p * (root * column).sum(dim=1, keepdim=True)
            return
        for _ in range(self.projections):
            mixed = root * torch.randn(p.shape, generator=self.generator, dtype=p.dtype, device=p.device)
            yield mixed - p * mixed.sum(dim=1, keepdim=True)


def std_before_first_relu(before: nn.Sequential, x: Tensor, sigma: float) -> Tensor:
    """Standard deviation of each unit before the first ReLU under input noise, shape (1, ...).

    An affine map spreads every image alike, so one image will do. Differentiable.
    Raises NotImplementedError where `before` holds a layer that is not affine.

    >>> std_before_first_relu(nn.Sequential(nn.Identity()), torch.zeros(5, 2), sigma=0.5)
    tensor([[0.5000, 0.5000]])
    """
    for layer in before:
        if not isinstance(layer, AFFINE):
            raise NotImplementedError(
                f"Expected affine layers before the first ReLU, got {type(layer).__name__}; "
                "pool behind the ReLU"
            )
    spread = Gaussian(x[:1], var=torch.tensor(sigma**2).to(x))
    for layer in before:  # not by `propagate`, which traces the model anew at every step
        spread = layer_moments(layer, spread, relu_covariance)
    return spread.std
