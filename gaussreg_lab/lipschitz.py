r"""How far a whole network can move its output: the product of what its layers can, and margins in that unit.

    |f(x) - f(x')| <= L |x - x'|,      L = product of the layers' operator norms and slopes

A layer that is affine counts with its operator norm, an activation with its steepest slope. The bound holds
for every two inputs, and is far from tight: it is reached only if the layers' worst directions fit together.

A margin, the lead of the right logit, means little by itself: doubling the last layer doubles all margins.
Divided by such a scale, margins of different networks can be compared.

Source: Farnia, Zhang, Tse, "Generalizable Adversarial Training via Spectral Normalization", ICLR 2019, and
the scale that its code draws figures with; there for flattened Frobenius norms, here for the operators'.
Lesson: notebooks/05_spectral.ipynb
"""

import math
from functools import singledispatch
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gaussreg_lab.layer_maps import WITH_NORM, apply_weight, geometry_of
from gaussreg_lab.linear_map import affine_map, lanczos, random_start
from gaussreg_lab.models import Normalize, in_eval_mode
from gaussreg_lab.spectral import operator_norm


class LayerGain(NamedTuple):
    """What a layer can stretch an input by at most, with the layer's name in the model."""

    name: str
    gain: float


@singledispatch
def steepest_slope(layer: nn.Module, example: Tensor) -> float:
    """The layer's Lipschitz constant: how much further apart than two inputs its two outputs can be.

    example: one input of the layer, (1, ...); only its shape matters. A rule for a layer of your own joins
    by @steepest_slope.register. Raises NotImplementedError for a type without a rule, ValueError for a layer
    in train mode that is no fixed map there.

    >>> steepest_slope(nn.LeakyReLU(0.1), torch.zeros(1, 3))
    1.0
    """
    known = sorted(kind.__name__ for kind in steepest_slope.registry if kind is not object)
    raise NotImplementedError(
        f"Expected a layer whose steepest slope is known ({', '.join(known)}), got {type(layer).__name__}; "
        "register a rule of your own with @steepest_slope.register"
    )


def layer_gains(model: nn.Sequential, example: Tensor) -> list[LayerGain]:
    """Every layer's Lipschitz constant, in order.

    model: nn.Sequential, possibly nested. example: (batch, ...), an input of the model; sizes are read off
    it. Raises TypeError for another model, and as `steepest_slope`.

    >>> layer_gains(nn.Sequential(nn.ReLU(), nn.Tanh()), torch.zeros(1, 2))
    [LayerGain(name='0', gain=1.0), LayerGain(name='1', gain=1.0)]
    """
    gains, x = [], example[:1].detach()
    with torch.no_grad(), in_eval_mode(model):
        for name, layer in _unnested(model):
            gains.append(LayerGain(name, steepest_slope(layer, x)))
            x = layer(x)
    return gains


def lipschitz_bound(model: nn.Sequential, example: Tensor) -> float:
    """An upper bound of how far apart two outputs can be, for inputs 1 apart: the product of `layer_gains`.

    Lengths are Euclidean, in pixel units at the input. Arguments and errors as there.

    >>> halve = nn.Sequential(nn.AvgPool1d(4), nn.ReLU())  # the mean of four: 4 * (1/4)^2 = 1/2^2
    >>> round(lipschitz_bound(halve, torch.zeros(1, 1, 8)), 6)
    0.5
    """
    return math.prod(it.gain for it in layer_gains(model, example))


def margin_scale(model: nn.Sequential, example: Tensor, attacked: bool = False) -> float:
    """What to divide margins by, so that they can be compared between networks (Farnia et al.).

    With s_1 ... s_d the operator norms of the d layers with weights, and f_i their Frobenius norms,
    (prod s_i) sqrt(sum f_i^2 / s_i^2); for margins of attacked images (FGM, PGM) also times
    2 + s_1 + s_1 s_2 + ... + s_1 ... s_(d-1). Arguments and errors as in `lipschitz_bound`.

    >>> model = nn.Sequential(nn.Linear(4, 4, bias=False))
    >>> _ = nn.init.eye_(model[0].weight)
    >>> margin_scale(model, torch.zeros(1, 4)), margin_scale(model, torch.zeros(1, 4), attacked=True)
    (2.0, 4.0)
    """
    norms, ratios, x = [], 0.0, example[:1].detach()
    with torch.no_grad(), in_eval_mode(model):
        for _, layer in _unnested(model):
            if isinstance(layer, WITH_NORM):
                norms.append(steepest_slope(layer, x))
                if norms[-1] == 0:
                    raise ValueError(f"Expected layers that do something, got weights of 0 in {layer}")
                ratios += (_frobenius_norm(layer, x) / norms[-1]) ** 2
            x = layer(x)
    if not norms:
        raise ValueError("Expected a model with linear layers or convolutions, got none")
    growth = 2 + sum(math.prod(norms[:count]) for count in range(1, len(norms)))
    return math.prod(norms) * math.sqrt(ratios) * (growth if attacked else 1)


def _unnested(model: nn.Sequential, prefix: str = "") -> list[tuple[str, nn.Module]]:
    if not isinstance(model, nn.Sequential):
        raise TypeError(
            f"Expected an nn.Sequential, whose layers follow each other, got {type(model).__name__}"
        )
    layers = []
    for name, layer in model._modules.items():  # named_children would skip a layer's second use
        inner = isinstance(layer, nn.Sequential)
        layers += _unnested(layer, f"{prefix}{name}.") if inner else [(prefix + name, layer)]
    return layers


def _expect_eval_mode(layer: nn.Module) -> None:
    if layer.training:
        raise ValueError(
            f"Expected {type(layer).__name__} in eval mode, where it is a fixed map, got train mode"
        )


def _frobenius_norm(layer: nn.Module, x: Tensor) -> float:
    """Of the layer's matrix: every weight counts as often as it meets a pixel."""
    if getattr(layer, "padding_mode", "zeros") not in ("zeros", "circular"):
        raise NotImplementedError(f"Expected padding_mode zeros or circular, got {layer.padding_mode!r}")
    if getattr(layer, "padding_mode", "zeros") == "circular" and any(
        d * (k - 1) >= n for n, d, k in zip(x.shape[2:], layer.dilation, layer.kernel_size, strict=True)
    ):
        raise NotImplementedError(
            f"Expected a circular kernel no longer than the input, where no pixel meets two of its weights, "
            f"got {layer} at {tuple(x.shape[2:])}"
        )
    squares = apply_weight(geometry_of(layer), layer.weight.double().square(), torch.ones_like(x).double())
    return math.sqrt(squares.sum().item())


@steepest_slope.register(nn.Linear)
@steepest_slope.register(nn.Conv1d)
@steepest_slope.register(nn.Conv2d)
@steepest_slope.register(nn.Conv3d)
@steepest_slope.register(nn.ConvTranspose1d)
@steepest_slope.register(nn.ConvTranspose2d)
@steepest_slope.register(nn.ConvTranspose3d)
def _(layer: nn.Module, example: Tensor) -> float:
    return operator_norm(layer, None if isinstance(layer, nn.Linear) else example.shape[2:])


@steepest_slope.register(Normalize)
@steepest_slope.register(nn.BatchNorm1d)
@steepest_slope.register(nn.BatchNorm2d)
@steepest_slope.register(nn.AvgPool1d)
@steepest_slope.register(nn.AvgPool2d)
@steepest_slope.register(nn.AdaptiveAvgPool2d)
def _(layer: nn.Module, example: Tensor) -> float:
    if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
        _expect_eval_mode(layer)
        if layer.running_mean is None:
            raise ValueError(f"Expected {type(layer).__name__} with running statistics, got it without")
    linear = affine_map(layer, example.shape[1:], like=example)
    top = lanczos(linear, random_start(linear, example), tolerance=1e-5, most=min(100, example[0].numel()))
    return top.value.item()


@steepest_slope.register(nn.ReLU)
@steepest_slope.register(nn.Tanh)
@steepest_slope.register(nn.Softplus)
@steepest_slope.register(nn.Identity)
@steepest_slope.register(nn.Flatten)
def _(layer: nn.Module, example: Tensor) -> float:
    return 1.0


@steepest_slope.register
def _(layer: nn.Dropout, example: Tensor) -> float:
    _expect_eval_mode(layer)
    return 1.0


@steepest_slope.register
def _(layer: nn.LeakyReLU, example: Tensor) -> float:
    return max(1.0, abs(layer.negative_slope))


@steepest_slope.register
def _(layer: nn.ELU, example: Tensor) -> float:
    return max(1.0, layer.alpha)


@steepest_slope.register
def _(layer: nn.Sigmoid, example: Tensor) -> float:
    return 0.25


@steepest_slope.register
def _(layer: nn.MaxPool2d, example: Tensor) -> float:
    # a pixel moves at most as many outputs as there are windows over it
    kernel, dilation, padding, stride = (
        nn.modules.utils._pair(it) for it in (layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    )
    height, width = example.shape[2:]
    short = [  # of a further window, which ceil_mode adds
        -(n + 2 * p - d * (k - 1) - 1) % s if layer.ceil_mode else 0
        for n, k, d, p, s in zip((height, width), kernel, dilation, padding, stride, strict=True)
    ]
    ones = example.new_ones(1, 1, height + short[0], width + short[1])
    columns = nn.functional.unfold(ones, kernel, dilation, padding, stride)
    over = nn.functional.fold(columns, tuple(ones.shape[2:]), kernel, dilation, padding, stride)
    return math.sqrt(over[..., :height, :width].max().item())
