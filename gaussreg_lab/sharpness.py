r"""How steeply the loss rises around the weights of a trained network: in a ball, and along a line.

    worst      max over jolts d in the ball of   loss(w + d) - loss(w)       what AMP trains against
    average    mean over random d on its surface of the same                 what random jolts find
    slice      loss(w + t d),  |filter of d| = |filter of w|                 the picture

The balls are those of `AMP`. No search finds the worst jolt of a network for certain: `worst` is what a climb
reached, a lower bound. Nor is the Euclidean ball sacred: a ReLU layer times 10 and the next one divided by 10
are the same function with another sharpness. Filter-normalised slices do not see such a change of scale.

All of it evaluates the loss in eval mode on the images given, in one pass, and leaves the model as it was.

Source: Keskar et al., "On Large-Batch Training for Deep Learning", ICLR 2017, arXiv 1609.04836 (worst rise);
Li, Xu, Taylor, Studer, Goldstein, "Visualizing the Loss Landscape of Neural Nets", NeurIPS 2018, arXiv
1712.09913 (slices); Dinh, Pascanu, Bengio, Bengio, "Sharp Minima Can Generalize For Deep Nets", ICML 2017,
arXiv 1703.04933 (the change of scale).
Lesson: notebooks/06_perturbation.ipynb
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gaussreg_lab.datasets import expect_pairs
from gaussreg_lab.losses import Loss, cross_entropy
from gaussreg_lab.models import in_eval_mode
from gaussreg_lab.perturbation import GUARD, expect_ball, into_ball
from gaussreg_lab.records import standard_error


class Sharpness(NamedTuple):
    """The loss at the weights, and how much it rises when they are jolted, in units of the loss.

    worst: the largest rise that was found in the ball. average: over random jolts on its surface, with its
    standard error, nan for a single one.
    """

    loss: float
    worst: float
    average: float
    standard_error: float


def sharpness(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    epsilon: float,
    ball: str = "parameter",
    *,
    steps: int = 20,
    directions: int = 20,
    loss: Loss = cross_entropy,
    seed: int = 0,
) -> Sharpness:
    """How much the loss rises within a ball of radius epsilon around the weights.

    x, y: images and labels as `loss` takes them. epsilon: >= 0, in units of the weights. ball: "parameter",
    a ball for each tensor, or "model", one for all. directions: random jolts on its surface, the same for a
    seed; the worst of them is where the climb begins. steps: forward and backward passes of the climb. It may
    end on a lower top: another seed begins elsewhere.
    Raises ValueError for other numbers, an unknown ball, a model without weights to train, x and y of
    different lengths, and where the loss is not finite.

    >>> model = nn.Linear(2, 1, bias=False)
    >>> height = lambda model, x, y: model.weight.square().sum() / 2
    >>> _ = nn.init.zeros_(model.weight)
    >>> round(sharpness(model, torch.zeros(1, 2), torch.zeros(1), epsilon=2.0, loss=height).worst, 4)
    2.0
    """
    expect_ball(ball)
    if not 0 <= epsilon < math.inf:
        raise ValueError(f"Expected epsilon >= 0 and finite, got {epsilon}")
    if steps < 1 or directions < 1:
        raise ValueError(f"Expected steps >= 1 and directions >= 1, got {steps} and {directions}")
    generator = torch.Generator().manual_seed(seed)
    with _landscape(model, x, y, loss) as landscape:
        here = landscape.height([torch.zeros_like(weight) for weight in landscape.weights])
        rises, start = [], []
        for _ in range(directions):
            jolt = _of_length(_randn_like(landscape.weights, generator), epsilon, ball)
            rises.append(landscape.height(jolt) - here)
            start = jolt if rises[-1] == max(rises) else start
        highest = _climb(landscape, start, epsilon, ball, steps)
    found = torch.tensor(rises, dtype=torch.float64)
    worst = max(highest - here, 0.0)  # no jolt at all is in the ball as well
    return Sharpness(here, worst, found.mean().item(), standard_error(found).item())


def filter_direction(model: nn.Module, generator: torch.Generator | None = None) -> list[Tensor]:
    """A random direction in weight space whose filters are as long as the model's own: one tensor each.

    A filter is what makes one output: a row of a linear layer, an output channel's kernels of a convolution.
    Tensors with a single axis, biases and scales, get zeros. generator: on the CPU, by default of seed 0.
    Raises ValueError for a model without weights to train.

    >>> model = nn.Linear(3, 2)
    >>> direction, of_biases = filter_direction(model)
    >>> bool(torch.allclose(direction.norm(dim=1), model.weight.norm(dim=1))), of_biases
    (True, tensor([0., 0.]))
    """
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    weights = trained_weights(model)
    return [
        _rescaled(drawn, weight) if weight.dim() > 1 else torch.zeros_like(weight)
        for drawn, weight in zip(_randn_like(weights, generator), weights, strict=True)
    ]


def loss_slice(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    direction: Sequence[Tensor],
    distances: Sequence[float],
    loss: Loss = cross_entropy,
) -> Tensor:
    """The loss at w + t * direction for each t of `distances`: float64, (len(distances),).

    direction: one tensor for each weight, as `filter_direction` gives them; then a distance of 1 is the
    filters' own length. Raises ValueError for tensors of other shapes, and as `sharpness`.

    >>> model = nn.Linear(2, 1, bias=False)
    >>> height = lambda model, x, y: model.weight.square().sum()
    >>> _ = nn.init.zeros_(model.weight)
    >>> loss_slice(model, torch.zeros(1, 2), torch.zeros(1), [torch.ones(1, 2)], [0, 1, 2], height)
    tensor([0., 2., 8.], dtype=torch.float64)
    """
    nowhere = [torch.zeros_like(each) for each in direction]
    return loss_surface(model, x, y, (direction, nowhere), (distances, [0.0]), loss)[:, 0]


def loss_surface(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    directions: tuple[Sequence[Tensor], Sequence[Tensor]],
    distances: tuple[Sequence[float], Sequence[float]],
    loss: Loss = cross_entropy,
) -> Tensor:
    """The loss at w + s * first + t * second, float64: a row for each s, a column for each t.

    Arguments as in `loss_slice`, two of each.
    """
    first, second = directions
    for direction in directions:
        _expect_like(direction, trained_weights(model))
    across, along = ([float(distance) for distance in each] for each in distances)
    with _landscape(model, x, y, loss) as landscape:
        rows = [[landscape.height(_mix(first, s, second, t)) for t in along] for s in across]
    return torch.tensor(rows, dtype=torch.float64).reshape(len(across), len(along))


def trained_weights(model: nn.Module) -> list[Tensor]:
    """All weights that require gradients. Raises ValueError for a model without any.

    >>> [tuple(weight.shape) for weight in trained_weights(nn.Linear(3, 2))]
    [(2, 3), (2,)]
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    if not weights:
        raise ValueError("Expected a model with weights that require gradients, got none")
    return weights


def expect_finite(value: Tensor) -> Tensor:
    """The loss itself; raises ValueError where it is not finite."""
    if not math.isfinite(value.item()):
        raise ValueError(
            f"Expected a finite loss, got {value.item()}; the weights are as they were before the call"
        )
    return value


class _Landscape:
    """The loss as a function of jolts, one tensor for each weight."""

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> None:
        expect_pairs(x, y)
        self.weights = trained_weights(model)
        self._before = [weight.detach().clone() for weight in self.weights]
        self._loss = lambda: loss(model, x, y)

    def height(self, jolts: Sequence[Tensor]) -> float:
        """The loss there."""
        return self._evaluated(jolts).item()

    def height_and_slope(self, jolts: Sequence[Tensor]) -> tuple[float, list[Tensor]]:
        """The loss there, and its gradient by the weights."""
        with torch.enable_grad():
            value = self._evaluated(jolts)
            slope = torch.autograd.grad(value, self.weights, materialize_grads=True)
        return value.item(), list(slope)

    def _evaluated(self, jolts: Sequence[Tensor]) -> Tensor:
        with torch.no_grad():
            torch._foreach_copy_(self.weights, torch._foreach_add(self._before, list(jolts)))
        return expect_finite(self._loss())

    def put_back(self) -> None:
        with torch.no_grad():
            torch._foreach_copy_(self.weights, self._before)


@contextmanager
def _landscape(model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> Iterator[_Landscape]:
    """In the end weights and modes are as they were, to the last bit, whatever happened."""
    landscape = _Landscape(model, x, y, loss)
    try:
        with in_eval_mode(model), torch.no_grad():
            yield landscape
    finally:
        landscape.put_back()


def _climb(landscape: _Landscape, start: list[Tensor], epsilon: float, ball: str, steps: int) -> float:
    """The highest loss on a way uphill inside the ball; a step that leads down is taken back and halved."""
    best, reach = start, epsilon
    highest, slope = landscape.height_and_slope(best)
    for _ in range(steps - 1):
        trial = torch._foreach_add(best, _of_length(slope, reach, ball))
        into_ball(trial, [epsilon] * len(trial), ball)
        height, its_slope = landscape.height_and_slope(trial)
        if height > highest:
            best, highest, slope = trial, height, its_slope
        else:
            reach /= 2
    return highest


def _mix(first: Sequence[Tensor], s: float, second: Sequence[Tensor], t: float) -> list[Tensor]:
    return [s * one + t * other for one, other in zip(first, second, strict=True)]


def _of_length(jolts: Sequence[Tensor], length: float, ball: str) -> list[Tensor]:
    """Each jolt brought to this length, or all together; zeros stay zeros."""
    norms = [norm.item() for norm in torch._foreach_norm(list(jolts))]
    if ball == "model":
        norms = [math.hypot(*norms)] * len(norms)
    return list(torch._foreach_mul(list(jolts), [length / (norm + GUARD) for norm in norms]))


def _rescaled(filters: Tensor, like: Tensor) -> Tensor:
    """Each row brought to the length of its counterpart."""
    lengths, wanted = (torch.linalg.vector_norm(it.flatten(1), dim=1) for it in (filters, like.detach()))
    return filters * (wanted / lengths).reshape(-1, *[1] * (filters.dim() - 1))


def _randn_like(weights: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
    """N(0, 1), the same numbers whatever dtype and device."""
    drawn = (torch.randn(weight.shape, generator=generator, dtype=torch.float64) for weight in weights)
    return [each.to(weight) for each, weight in zip(drawn, weights, strict=True)]


def _expect_like(direction: Sequence[Tensor], weights: Sequence[Tensor]) -> None:
    got, expected = ([tuple(it.shape) for it in each] for each in (direction, weights))
    if got != expected:
        raise ValueError(f"Expected a direction with tensors of shapes {expected}, got {got}")
