r"""Attacks: the small jolt of the input that raises the loss most, and training against it.

Each climbs the loss l(x) of one image, inside a ball |x' - x| <= radius or against a price of distance:

    fgm   x + radius * up(grad)                                         one step to the ball's edge
    pgm   x <- back into the ball: x + (2 radius / steps) * up(grad)    15 steps, smaller ones
    wrm   x <- x + (grad l(x) / (2 gamma) - (x - x_0)) / sqrt(t + 2)    no ball: l(x) - gamma |x - x_0|^2

up(grad) is the direction of steepest ascent in the norm of the ball: grad / |grad| in the Euclidean one,
sign(grad) where every pixel has its own limit. As in the authors' code the label attacked is the model's
own prediction unless one is given, there is no random start, and pixels may leave [0, 1] unless told
not to. The model is in eval mode meanwhile, so that an attack changes nothing in it.

Source: Farnia, Zhang, Tse, ICLR 2019, arXiv 1811.07457, and its code; fgm: Goodfellow, Shlens, Szegedy, ICLR
2015; pgm: Madry et al., ICLR 2018; wrm: Sinha, Namkoong, Duchi, ICLR 2018.
Lesson: notebooks/05_spectral.ipynb
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gaussreg_lab.losses import Loss, cross_entropy
from gaussreg_lab.models import in_eval_mode

Attack = Callable[[nn.Module, Tensor, Tensor | None], Tensor]  # (model, x, y) -> attacked x
Range = tuple[float, float]
NORMS = (1, 2, math.inf)


def fgm(
    model: nn.Module,
    x: Tensor,
    y: Tensor | None = None,
    *,
    radius: float,
    norm: float = 2,
    pixels: Range | None = None,
) -> Tensor:
    """Fast gradient method: one step of length `radius` up the loss of each image.

    x: (batch, ...) in pixel units. y: (batch,) labels, or None for the model's own predictions on x.
    radius: of the ball, in pixel units: >= 0. norm: 2 or 1, lengths of the whole image, or math.inf, the
    largest change of a pixel. In the norm 1 the step is grad / |grad|_1, as the authors have it, not the
    steepest one. pixels: (low, high) to clip to, None for no clipping.
    Raises ValueError for other numbers, or a model whose output is not (batch, classes).

    >>> x, y = torch.zeros(1, 2), torch.tensor([0])
    >>> fgm(nn.Flatten(), x, y, radius=1.0)  # away from class 0
    tensor([[-0.7071,  0.7071]])
    """
    _expect_ball(radius, norm, pixels)
    with _as_it_is(model):
        labels = _labels(model, x, y)
        return _clipped(x + radius * _up(_gradient(model, x, labels), norm), pixels).detach()


def pgm(
    model: nn.Module,
    x: Tensor,
    y: Tensor | None = None,
    *,
    radius: float,
    steps: int = 15,
    norm: float = 2,
    step: float | None = None,
    pixels: Range | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Projected gradient method: `steps` small steps up the loss, each followed by a return into the ball.

    step: length of a step, by default 2 radius / steps. The return scales the jolt down in the norms 1 and
    2, and clamps it in the norm inf. generator: for a start at a random point of the ball, as is the
    custom elsewhere; by default the start is x itself. Otherwise as `fgm`; ValueError for steps < 1 or
    step <= 0.

    >>> x, y = torch.zeros(1, 2), torch.tensor([0])
    >>> pgm(nn.Flatten(), x, y, radius=1.0)
    tensor([[-0.7071,  0.7071]])
    """
    _expect_ball(radius, norm, pixels)
    if steps < 1 or (step is not None and not 0 < step < math.inf):
        raise ValueError(f"Expected steps >= 1 and step > 0 and finite, got {steps} and {step}")
    step = 2 * radius / steps if step is None else step
    with _as_it_is(model):
        labels = _labels(model, x, y)
        jolt = torch.zeros_like(x) if generator is None else _random_in_ball(x, radius, norm, generator)
        for _ in range(steps):
            jolt = jolt + step * _up(_gradient(model, x + jolt, labels), norm)
            jolt = _clipped(x + _into_ball(jolt, radius, norm), pixels) - x
        return (x + jolt).detach()


def wrm(
    model: nn.Module,
    x: Tensor,
    y: Tensor | None = None,
    *,
    gamma: float,
    steps: int = 15,
    pixels: Range | None = None,
) -> Tensor:
    """Wasserstein risk minimization: climb l(x') - gamma |x' - x|^2, the loss less a price of distance.

    gamma: the price, > 0, per squared pixel unit; the smaller, the farther the jolt. One full step first,
    then `steps` of shrinking size. Otherwise as `fgm`; ValueError for gamma <= 0 or steps < 0.

    >>> x, y = torch.zeros(1, 2), torch.tensor([0])
    >>> wrm(nn.Flatten(), x, y, gamma=1.0).round(decimals=2)  # where grad l = 2 gamma (x' - x)
    tensor([[-0.3300,  0.3300]])
    """
    if not 0 < gamma < math.inf or steps < 0:
        raise ValueError(f"Expected gamma > 0 and finite, and steps >= 0, got {gamma} and {steps}")
    _expect_range(pixels)
    with _as_it_is(model):
        labels = _labels(model, x, y)
        moved = x + _gradient(model, x, labels) / (2 * gamma)
        for t in range(steps):
            uphill = _gradient(model, moved, labels) / (2 * gamma) - (moved - x)
            moved = moved + uphill / math.sqrt(t + 2)
        return _clipped(moved, pixels).detach()


@dataclass(frozen=True)
class AdversarialLoss:
    """`loss` on attacked images: adversarial training.

    attack: (model, x, y) -> x', say functools.partial(pgm, radius=0.5). on_labels: whether the attack is told
    the labels; by default it is not, as in the authors' code, and attacks the model's own predictions.

    >>> from functools import partial
    >>> loss = AdversarialLoss(partial(fgm, radius=1.0))
    >>> loss(nn.Flatten(), torch.zeros(1, 2), torch.tensor([0]))  # log(1 + exp(sqrt 2))
    tensor(1.6318)
    """

    attack: Attack
    loss: Loss = cross_entropy
    on_labels: bool = False

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return self.loss(model, self.attack(model, x, y if self.on_labels else None), y)


@contextmanager
def _as_it_is(model: nn.Module) -> Iterator[None]:
    """Eval mode, and every capped weight computed once: an attack does not change the weights."""
    with in_eval_mode(model), parametrize.cached():
        yield


def _labels(model: nn.Module, x: Tensor, y: Tensor | None) -> Tensor:
    if y is None:
        with torch.no_grad():
            return _logits(model, x).argmax(dim=1)
    if y.shape != x.shape[:1]:
        raise ValueError(
            f"Expected y of shape {tuple(x.shape[:1])}, one label for each image, got {tuple(y.shape)}"
        )
    return y


def _logits(model: nn.Module, x: Tensor) -> Tensor:
    z = model(x)
    if z.dim() != 2:
        raise ValueError(f"Expected a model with logits of shape (batch, classes), got {tuple(z.shape)}")
    return z


def _gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Of each image's own loss by its pixels."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        loss = nn.functional.cross_entropy(_logits(model, x), y, reduction="sum")
        return torch.autograd.grad(loss, x)[0]


def _up(gradient: Tensor, norm: float) -> Tensor:
    if norm == math.inf:
        return gradient.sign()
    # by the largest entry first: where the network is very sure, the squares underflow
    tiny = torch.finfo(gradient.dtype).tiny
    gradient = gradient / _lengths(gradient, math.inf).clamp(min=tiny)
    return gradient / _lengths(gradient, norm).clamp(min=tiny)


def _into_ball(jolt: Tensor, radius: float, norm: float) -> Tensor:
    if norm == math.inf:
        return jolt.clamp(-radius, radius)
    lengths = _lengths(jolt, norm)
    return torch.where(lengths > radius, jolt * (radius / lengths), jolt)


def _random_in_ball(x: Tensor, radius: float, norm: float, generator: torch.Generator) -> Tensor:
    if norm == math.inf:
        return radius * (2 * torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device) - 1)
    direction = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    share = torch.rand(len(x), generator=generator, dtype=x.dtype, device=x.device)
    return radius * share.reshape(-1, *[1] * (x.dim() - 1)) * _up(direction, norm)


def _lengths(x: Tensor, norm: float) -> Tensor:
    """Length of each image in a shape that divides it."""
    return torch.linalg.vector_norm(x.flatten(1), ord=norm, dim=1).reshape(-1, *[1] * (x.dim() - 1))


def _clipped(x: Tensor, pixels: Range | None) -> Tensor:
    return x if pixels is None else x.clamp(*pixels)


def _expect_ball(radius: float, norm: float, pixels: Range | None) -> None:
    if not 0 <= radius < math.inf:
        raise ValueError(f"Expected radius >= 0 and finite, in pixel units, got {radius}")
    if norm not in NORMS:
        raise ValueError(f"Expected norm 1, 2 or math.inf, got {norm}")
    _expect_range(pixels)


def _expect_range(pixels: Range | None) -> None:
    if pixels is not None and not (len(pixels) == 2 and pixels[0] < pixels[1]):
        raise ValueError(f"Expected pixels (low, high) with low < high, or None, got {pixels}")
