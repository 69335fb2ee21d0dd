r"""A Gaussian through one layer: one short rule for each type of layer.

An affine layer, y = A x + b, needs no approximation:

    E[y] = A mean + b        Cov[y] = A cov A'        Var[y_i] = sum_j A_ij^2 var_j  (independent x_j)

A ReLU has its own closed forms (modules gaussian and covariance), a maximum of two as well; the
maximum of a window is taken two by two. After these the output is no Gaussian any more, and the
next layer takes it for one with the right mean and (co)variance: moment matching.

A layer of your own joins by one decorator, see `layer_moments`.

Source: affine and ReLU moments as in Bibi, Alfadly, Ghanem, "Analytic Expressions for Probabilistic
Moments of PL-DNN with Gaussian Input", CVPR (2018); the maximum: Clark, Operations Research 9 (1961).
Lesson: notebooks/02_propagation.ipynb
"""

from collections.abc import Callable
from functools import singledispatch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaussreg_lab.gaussian import Gaussian, leaky_relu_mean, leaky_relu_var, relu_mean_and_var
from gaussreg_lab.maxima import Covariance, gate, max_pool
from gaussreg_lab.models import Normalize


@singledispatch
def layer_moments(layer: nn.Module, x: Gaussian, covariance: Covariance) -> Gaussian:
    """Moments of layer(x): a Gaussian with var for one with var, with cov for one with cov.

    x: batch first. covariance: how two rectified components covary, `relu_covariance` or a
    cheaper relative; used where x carries cov. The rule is found by the type of the layer.
    Raises NotImplementedError for a type without a rule, ValueError for a layer in train mode
    that behaves otherwise there.

    >>> from gaussreg_lab.covariance import relu_covariance
    >>> class Twice(nn.Module):
    ...     def forward(self, x):
    ...         return 2 * x
    >>> @layer_moments.register
    ... def _(layer: Twice, x: Gaussian, covariance) -> Gaussian:
    ...     return affine(layer, x, var=lambda var: 4 * var)
    >>> layer_moments(Twice(), Gaussian(torch.ones(1, 2), var=torch.tensor(0.25)), relu_covariance).std
    tensor([[1., 1.]])
    """
    raise NotImplementedError(
        f"Expected a layer with closed-form moments ({', '.join(known_layers())}), got "
        f"{type(layer).__name__}; register a rule of your own with @layer_moments.register"
    )


def known_layers() -> list[str]:
    """Names of the types that have a rule, users' own included.

    >>> "Conv2d" in known_layers()
    True
    """
    return sorted(kind.__name__ for kind in layer_moments.registry if kind is not object)


def has_rule(layer: nn.Module) -> bool:
    """Whether `layer_moments` knows this type of layer, or a type it inherits from."""
    return layer_moments.dispatch(type(layer)) is not layer_moments.dispatch(object)


def affine(layer: nn.Module, x: Gaussian, var: Callable[[Tensor], Tensor]) -> Gaussian:
    """Moments of an affine layer, which acts on each element of a batch by itself.

    var: the same layer with squared weights and no bias, variances -> variances. The covariance
    A cov A' needs no such help: the layer is run on its columns, then on its rows.

    >>> x = Gaussian(torch.zeros(1, 2), cov=torch.tensor([[[1.0, 0.9], [0.9, 1.0]]]))
    >>> sum_up = nn.Linear(2, 1)
    >>> _ = nn.init.ones_(sum_up.weight)
    >>> affine(sum_up, x, var=None).cov  # 1 + 1 + 2 * 0.9
    tensor([[[3.8000]]], grad_fn=<DivBackward0>)
    """
    mean = layer(x.mean)
    if x.cov is None:
        return Gaussian(mean, var=var(x.var))
    half = on_rows(layer, x.cov, x.mean.shape[1:])  # cov A'
    both = on_rows(layer, half.mT, x.mean.shape[1:])  # A cov A'
    return Gaussian(mean, cov=(both + both.mT) / 2)


def on_rows(layer: nn.Module, rows: Tensor, shape: torch.Size) -> Tensor:
    """The linear part of an affine layer on each row: (batch, k, n) -> (batch, k, m).

    shape: what one row of n numbers is to the layer, say (channels, height, width).
    """
    images = rows.reshape(-1, *shape)
    linear_part = layer(images) - layer(images.new_zeros(1, *shape))
    return linear_part.reshape(*rows.shape[:2], -1)


@layer_moments.register
def _(layer: nn.Linear, x: Gaussian, covariance: Covariance) -> Gaussian:
    return affine(layer, x, lambda var: F.linear(var, layer.weight.square()))


@layer_moments.register(nn.Conv1d)
@layer_moments.register(nn.Conv2d)
def _(layer: nn.Conv1d | nn.Conv2d, x: Gaussian, covariance: Covariance) -> Gaussian:
    # padded zeros are free of noise, so the variance is smaller at the border
    if x.cov is None and layer.padding_mode in ("reflect", "replicate"):
        raise NotImplementedError(
            f"Expected padding_mode zeros or circular for var, got {layer.padding_mode!r}: "
            "a window may meet the same pixel twice; carry cov instead of var"
        )
    return affine(layer, x, lambda var: layer._conv_forward(var, layer.weight.square(), None))


@layer_moments.register
def _(layer: Normalize, x: Gaussian, covariance: Covariance) -> Gaussian:
    return affine(layer, x, lambda var: var / layer.std.square())


@layer_moments.register(nn.BatchNorm1d)
@layer_moments.register(nn.BatchNorm2d)
def _(layer: nn.BatchNorm1d | nn.BatchNorm2d, x: Gaussian, covariance: Covariance) -> Gaussian:
    expect_eval(layer)
    if layer.running_var is None:
        raise ValueError("Expected batch norm with running statistics, got track_running_stats=False")
    scale = (layer.running_var + layer.eps).rsqrt()
    scale = scale if layer.weight is None else scale * layer.weight
    per_channel = scale.reshape(-1, *[1] * (x.mean.dim() - 2))
    return affine(layer, x, lambda var: var * per_channel.square())


@layer_moments.register(nn.AvgPool1d)
@layer_moments.register(nn.AvgPool2d)
def _(layer: nn.AvgPool1d | nn.AvgPool2d, x: Gaussian, covariance: Covariance) -> Gaussian:
    def var(variances: Tensor) -> Tensor:
        # each window weighs its cells by 1 / divisor, and there may be fewer cells at the border
        counts = _cells_in_window(layer, variances)
        return layer(variances) * layer(torch.ones_like(variances[:1])) / counts

    return affine(layer, x, var)


@layer_moments.register(nn.AdaptiveAvgPool1d)
@layer_moments.register(nn.AdaptiveAvgPool2d)
def _(layer: nn.AdaptiveAvgPool1d | nn.AdaptiveAvgPool2d, x: Gaussian, covariance: Covariance) -> Gaussian:
    def var(variances: Tensor) -> Tensor:
        pooled = layer(variances)
        for axis in range(2, pooled.dim()):
            into, out_of = pooled.shape[axis], variances.shape[axis]
            at = torch.arange(into)
            counts = -(-(at + 1) * out_of // into) - at * out_of // into  # from floor to ceiling
            pooled = pooled / counts.to(pooled).reshape(-1, *[1] * (pooled.dim() - 1 - axis))
        return pooled

    return affine(layer, x, var)


@layer_moments.register(nn.Identity)
@layer_moments.register(nn.Dropout)
@layer_moments.register(nn.Dropout2d)
def _(layer: nn.Module, x: Gaussian, covariance: Covariance) -> Gaussian:
    expect_eval(layer)
    return x


@layer_moments.register
def _(layer: nn.Flatten, x: Gaussian, covariance: Covariance) -> Gaussian:
    if layer.start_dim == 0:
        raise ValueError("Expected Flatten to leave the batch alone, got start_dim=0")
    if x.cov is None:
        return Gaussian(layer(x.mean), var=layer(x.var))
    return Gaussian(layer(x.mean), cov=x.cov)  # its components were in a row already


@layer_moments.register
def _(layer: nn.ReLU, x: Gaussian, covariance: Covariance) -> Gaussian:
    rectified = relu_mean_and_var(x.mean, x.variances)
    if x.cov is None:
        return Gaussian(rectified.mean, var=rectified.var)
    return Gaussian(rectified.mean, cov=covariance(x.mean.flatten(1), x.cov))


@layer_moments.register
def _(layer: nn.LeakyReLU, x: Gaussian, covariance: Covariance) -> Gaussian:
    slope = layer.negative_slope
    mean = leaky_relu_mean(x.mean, x.variances, slope)
    if x.cov is None:
        return Gaussian(mean, var=leaky_relu_var(x.mean, x.var, slope))
    # leaky(z) = slope z + (1 - slope) relu(z), and Cov[z_i, relu(z_j)] = cov_ij Phi(mean_j / std_j)
    on = gate(x).flatten(1)
    crossed = x.cov * (on[:, :, None] + on[:, None, :])
    rectified = covariance(x.mean.flatten(1), x.cov)
    cov = slope**2 * x.cov + slope * (1 - slope) * crossed + (1 - slope) ** 2 * rectified
    return Gaussian(mean, cov=cov)


@layer_moments.register
def _(layer: nn.MaxPool2d, x: Gaussian, covariance: Covariance) -> Gaussian:
    return max_pool(layer, x, covariance)


def _cells_in_window(layer: nn.AvgPool1d | nn.AvgPool2d, like: Tensor) -> Tensor:
    """How many cells of the image each window holds, for images like these; padding does not count."""
    ones = torch.ones_like(like[:1])
    if isinstance(layer, nn.AvgPool2d):
        return F.avg_pool2d(
            ones, layer.kernel_size, layer.stride, layer.padding, layer.ceil_mode, divisor_override=1
        )
    return F.avg_pool2d(
        ones[:, :, None],
        (1, *layer.kernel_size),
        (1, *layer.stride),
        (0, *layer.padding),
        layer.ceil_mode,
        divisor_override=1,
    )[:, :, 0]


def expect_eval(layer: nn.Module) -> None:
    """Raise ValueError for a layer that draws random numbers, or looks at the batch, in train mode."""
    if layer.training and not isinstance(layer, nn.Identity):
        raise ValueError(
            f"Expected the model in eval mode, where {type(layer).__name__} is a fixed map, got it in train "
            "mode; call model.eval()"
        )
