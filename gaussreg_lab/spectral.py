r"""Operator norms of layers, and caps on them.

    |A| = max |A x| / |x|                    the largest singular value of the layer's linear map
    W  ->  W / max(1, |A| / bound)           a cap: nothing happens to a layer below its bound

A is the convolution itself, at its stride, padding and input size, not its kernel flattened to a matrix.
A cap follows the norm by one power iteration in each training step, from where the last one ended: the
weights hardly move in a step, so neither do the directions that the layer stretches most. It follows six
of them. One is not enough: a cap makes many singular values nearly equal, and whichever grows past the others
unseen breaks the bound, by 7 to 24 % after 30 steps in our trials; with six, by less than 1 %.

Differences from the authors' code, which follows one: the first directions are converged, theirs is random,
which lets a layer begin up to twice above its bound; and directions count as fixed in the derivative, which
is the same once they have converged.

Source: Farnia, Zhang, Tse, "Generalizable Adversarial Training via Spectral Normalization", ICLR 2019,
arXiv 1811.07457; the penalty: Yoshida, Miyato, arXiv 1705.10941 (2017), there for flattened kernels.
Lesson: notebooks/05_spectral.ipynb
"""

import math
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gaussreg_lab.layer_maps import (
    WITH_NORM,
    apply_adjoint,
    apply_weight,
    geometry_of,
    input_shape_of,
    layer_map,
)
from gaussreg_lab.linear_map import (
    LinearMap,
    TopSingular,
    best_mixes,
    lanczos,
    length,
    orthonormal,
    random_start,
    subspace_step,
    unit,
)
from gaussreg_lab.models import in_eval_mode

FOLLOWED = 6  # directions; twice as many for a grouped convolution, whose groups do not see each other
STEPS_BEFORE_FIRST = 10  # of the directions beside the top one
STEPS_AHEAD = 3  # where nothing is kept: the weights have moved since the last step
MOST_STEPS = 400  # of Lanczos; few layers need 60


def operator_norm(layer: nn.Module, input_size: Sequence[int] | None = None) -> float:
    """How far the layer's linear part can stretch an input at most: its largest singular value.

    layer: Linear, convolution or transposed convolution; with the weight that it uses, caps included.
    input_size: spatial size of its input, as a tuple; None for Linear. Computed in float64, to a relative
    error below 1e-6 (1e-5 for a signal of thousands of steps); differentiable it is not.
    Raises as `layer_map`, and ValueError for weights that are not finite.

    >>> ones = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    >>> _ = nn.init.ones_(ones.weight)
    >>> round(operator_norm(ones, (28, 28)), 3)  # the flattened kernel has the norm 3
    8.93
    """
    return float(_top_of(*_in_float64(layer, input_size)).value)


def cap_spectral_norm(layer: nn.Module, bound: float, input_size: Sequence[int] | None = None) -> nn.Module:
    """Cap the operator norm of a layer at `bound`, in place; returns the layer.

    bound: > 0; inf caps nothing. input_size: as in `operator_norm`. From now on `layer.weight` is the capped
    weight, and the trained one is `layer.parametrizations.weight.original`. In train mode each forward pass
    with gradients makes one step of power iteration; eval mode, or a pass without gradients, changes nothing.
    `torch.nn.utils.parametrize.remove_parametrizations(layer, "weight")` makes the capped weight its own.
    Raises ValueError for a bound <= 0 or NaN or a layer with a cap, and as `operator_norm`.

    >>> layer = cap_spectral_norm(nn.Linear(8, 8), bound=0.5)
    >>> round(operator_norm(layer), 4)
    0.5
    """
    parametrize.register_parametrization(layer, "weight", _cap_for(layer, bound, input_size))
    return layer


def cap_network(model: nn.Module, example: Tensor, bound: float) -> nn.Module:
    """Cap every linear layer and convolution of the model at `bound`, in place; returns the model.

    example: inputs of the size that the model will see, (batch, ...); one is enough. Their way through the
    model tells each layer's input size. Raises ValueError for a layer that is used at two sizes, for a model
    without such layers, and as `cap_spectral_norm`; then no layer has been changed.

    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> [parametrize.is_parametrized(layer) for layer in cap_network(model, torch.zeros(1, 4), bound=1.0)]
    [True, False, True]
    """
    sizes = input_sizes(model, example)
    caps = {layer: _cap_for(layer, bound, size) for layer, size in sizes.items()}  # complains first
    for layer, cap in caps.items():
        parametrize.register_parametrization(layer, "weight", cap)
    return model


class SpectralCap(nn.Module):
    """W -> W / max(1, |A| / bound), as a parametrization of a layer's weight.

    bound: see `cap_spectral_norm`. directions: (count, *input_shape), those that the layer stretches most; a
    buffer, so they are saved and loaded with the weights.
    """

    def __init__(self, layer: nn.Module, bound: float, directions: Tensor) -> None:
        super().__init__()
        self.bound = float(bound)
        self._geometry = (geometry_of(layer),)  # in a tuple: it is no part of the model
        self.register_buffer("directions", directions.to(layer.weight))

    def forward(self, weight: Tensor) -> Tensor:
        norm, moved = _follow(self._geometry[0], weight, self.directions)
        if self.training and torch.is_grad_enabled():
            self.directions = moved  # a new tensor: an earlier forward pass may still need the old one
        else:  # the weights have moved since the last step: look some steps ahead, and keep nothing
            for _ in range(STEPS_AHEAD):
                norm, moved = _follow(self._geometry[0], weight, moved)
        # by a product: the derivative of a quotient reads all weights four times more
        return weight * (self.bound / norm) if norm > self.bound else weight

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Assigning to layer.weight sets the trained weight; the cap then applies to it."""
        return weight

    def extra_repr(self) -> str:
        return f"bound={self.bound:g}"


class SpectralPenalty:
    """Half the sum of the squared operator norms of all linear layers and convolutions, as a Loss.

    The norms are those of the layers as they stand in the model, strides and sizes included; Yoshida and
    Miyato take flattened kernels. One step of power iteration at each call, the first one converged.
    Unweighted; their weight is 0.01. x gives the input sizes, y is not used. Raises as `cap_network`.

    >>> penalty = SpectralPenalty()
    >>> model = nn.Sequential(nn.Linear(4, 4, bias=False))
    >>> _ = nn.init.eye_(model[0].weight)
    >>> penalty(model, torch.zeros(1, 4), None).item()
    0.5
    """

    def __init__(self) -> None:
        # for each model, its layers with where they stretch most; forgotten when the model is
        self._followed: WeakKeyDictionary[nn.Module, dict] = WeakKeyDictionary()

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        if model not in self._followed:
            sizes = input_sizes(model, x[:1])
            self._followed[model] = {
                layer: (geometry_of(layer), _directions_of(layer, size)) for layer, size in sizes.items()
            }
        followed, total = self._followed[model], 0.0
        for layer, (geometry, directions) in followed.items():
            norm, moved = _follow(geometry, layer.weight, directions.to(layer.weight))
            followed[layer] = (geometry, moved)
            total = total + norm.square()
        return total.squeeze() / 2


def input_sizes(model: nn.Module, example: Tensor) -> dict[nn.Module, tuple[int, ...] | None]:
    """Each linear layer and convolution of the model with the spatial size of its input, None for Linear.

    In the order of a forward pass of `example`. Raises ValueError as `cap_network` says.

    >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 2))
    >>> list(input_sizes(model, torch.zeros(1, 1, 8, 8)).values())
    [(8, 8), None]
    """
    sizes: dict[nn.Module, tuple[int, ...] | None] = {}

    def note(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        size = None if isinstance(layer, nn.Linear) else tuple(inputs[0].shape[2:])
        if sizes.setdefault(layer, size) != size:
            raise ValueError(
                f"Expected each layer at one input size, got {layer} at {sizes[layer]} and {size}"
            )

    handles = [it.register_forward_pre_hook(note) for it in model.modules() if isinstance(it, WITH_NORM)]
    try:
        with torch.no_grad(), in_eval_mode(model):
            model(example)
    finally:
        for handle in handles:
            handle.remove()
    if not sizes:
        raise ValueError("Expected a model with linear layers or convolutions, got none")
    return sizes


def _cap_for(layer: nn.Module, bound: float, input_size: Sequence[int] | None) -> SpectralCap:
    if not bound > 0:
        raise ValueError(f"Expected bound > 0, got {bound}")
    if parametrize.is_parametrized(layer, "weight"):
        raise ValueError(f"Expected a layer whose weight has no parametrization yet, got {layer}")
    return SpectralCap(layer, bound, _directions_of(layer, input_size))


def _follow(geometry: nn.Module, weight: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """|A u| for the best u that the directions span, differentiable by the weight; the next directions."""
    images = apply_weight(geometry, weight, directions)
    with torch.no_grad():
        mixes = best_mixes(images)
        mixed = (mixes @ images.flatten(1)).reshape(images.shape)
        moved = orthonormal(apply_adjoint(geometry, weight, mixed, tuple(directions.shape[1:])))
    return length(mixes[:1] @ images.flatten(1)), moved


def _directions_of(layer: nn.Module, input_size: Sequence[int] | None) -> Tensor:
    """The converged top direction and others, in float64: (count, *input_shape)."""
    linear, weight = _in_float64(layer, input_size)
    several = FOLLOWED if getattr(layer, "groups", 1) == 1 else 2 * FOLLOWED
    count = min(several, math.prod(linear.input_shape))
    others = random_start(linear, weight, batch=count, seed=1)
    directions = orthonormal(torch.cat([_top_of(linear, weight).direction, others[1:]]))
    for _ in range(STEPS_BEFORE_FIRST):
        _, _, directions = subspace_step(linear, directions)
    return directions


def _top_of(linear: LinearMap, weight: Tensor) -> TopSingular:
    start = unit(random_start(linear, weight))
    top = lanczos(linear, start, most=min(MOST_STEPS, math.prod(linear.input_shape)))
    return top if top.value > 0 else top._replace(direction=start)


def _in_float64(layer: nn.Module, input_size: Sequence[int] | None) -> tuple[LinearMap, Tensor]:
    input_shape_of(layer, input_size)  # complains about layer and size first
    with torch.no_grad():
        weight = layer.weight.detach().double()
    if not weight.isfinite().all():
        raise ValueError(f"Expected finite weights, got {int((~weight.isfinite()).sum())} others in {layer}")
    return layer_map(layer, input_size, weight), weight
