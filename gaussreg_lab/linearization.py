r"""A Gaussian through a network that is replaced by a straight line, in four ways.

A linear map A turns N(mean, S) into N(A mean, A S A'), at any size. So replace the network f by

    linearize            its tangent at the mean: output f(mean), A = f'(mean)
    linearize_smoothed   the tangent of the noisy network: each ReLU gives way to its mean under the
                         noise that reaches it, so each hard gate in A to a soft one, Phi(a)
    two_stage            two tangents, with one ReLU between them that is treated exactly
    first_relu_mean      no tangent at all: the first ReLU's exact mean, put into the rest as it is

The tangents cost one backward pass for each output, whatever the size of the hidden layers.

Source: two-stage linearization and the plug-in mean: Alfadly, Bibi, Ghanem, "Analytical Moment
Regularizer for Gaussian Robust Networks", arXiv 1904.11005 (2019). The soft gate is the first-order
term of the exact covariance, see module covariance.
Lesson: notebooks/02_propagation.ipynb
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gaussreg_lab.covariance import relu_covariance
from gaussreg_lab.gaussian import Gaussian, relu_mean
from gaussreg_lab.layer_moments import Covariance
from gaussreg_lab.propagation import propagate


def linearize(model: nn.Module, x: Gaussian) -> Gaussian:
    """Mean f(mean) and covariance J S J' of the output, J the Jacobian of the model at the mean.

    x: batch first, with var or cov (S). Returns mean (batch, outputs) and cov (batch, outputs,
    outputs). Right for noise so small that hardly any unit crosses its kink.

    >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> linearize(model, Gaussian(torch.ones(4, 2), var=torch.tensor(0.1))).cov.shape
    torch.Size([4, 2, 2])
    """
    mean, jacobian = _with_jacobian(model, x.mean)
    return Gaussian(mean, cov=spread_through(jacobian, x))


def linearize_smoothed(model: nn.Module, x: Gaussian) -> Gaussian:
    """Mean by `propagate` with independent components, covariance J S J' with J its Jacobian.

    J = d E[f] / d mean is the Jacobian on average over the noise, by Stein's lemma, as far as
    the propagated mean is right; the covariance is the first-order term of the exact one. Scales
    to convolutions. Arguments and shapes as in `linearize`; layers as in `propagate`.

    >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> linearize_smoothed(model, Gaussian(torch.ones(4, 2), var=torch.tensor(0.1))).cov.shape
    torch.Size([4, 2, 2])
    """
    mean, jacobian = _with_jacobian(
        lambda means: propagate(model, Gaussian(means, var=x.variances)).mean, x.mean
    )
    return Gaussian(mean, cov=spread_through(jacobian, x))


def two_stage(model: nn.Sequential, x: Gaussian, covariance: Covariance = relu_covariance) -> Gaussian:
    """Tangent up to the first ReLU, the ReLU exactly, the tangent of the rest at its mean.

    Exact for one hidden layer. Keeps an n x n covariance for each image, n the size of the first
    hidden layer: for small networks. Raises NotImplementedError for a model that is not Sequential,
    ValueError for one without ReLU. Shapes as in `linearize`.

    >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> two_stage(model, Gaussian(torch.ones(4, 2), var=torch.tensor(0.1))).cov.shape
    torch.Size([4, 2, 2])
    """
    before, after = split_at_first_relu(model)
    shape = before(x.mean[:1]).shape[1:]
    z = linearize(before, x)
    rectified = relu_mean(z.mean, z.variances)
    mean, jacobian = _with_jacobian(after, rectified.reshape(-1, *shape))
    return Gaussian(mean, cov=_sandwich(jacobian, covariance(z.mean, z.cov)))


def first_relu_mean(model: nn.Sequential, x: Gaussian) -> Tensor:
    """The paper's plug-in mean: after the first ReLU its exact mean, from there the plain network.

    Layers before the first ReLU as in `propagate`. Returns the model's output shape. Later layers
    see a mean without its spread, so every further kink is lifted too little.

    >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> first_relu_mean(model, Gaussian(torch.ones(4, 2), var=torch.tensor(0.1))).shape
    torch.Size([4, 2])
    """
    before, after = split_at_first_relu(model)
    z = propagate(before, x)
    return after(relu_mean(z.mean, z.variances))


def split_at_first_relu(model: nn.Sequential) -> tuple[nn.Sequential, nn.Sequential]:
    """The layers before the first ReLU and those after it, sharing the model's own weights.

    >>> before, after = split_at_first_relu(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)))
    >>> len(before), len(after)
    (1, 1)
    """
    layers = list(_unnested(model))
    for number, layer in enumerate(layers):
        if isinstance(layer, nn.ReLU):
            return nn.Sequential(*layers[:number]), nn.Sequential(*layers[number + 1 :])
    raise ValueError(f"Expected a model with a ReLU, got {[type(layer).__name__ for layer in layers]}")


def spread_through(jacobian: Tensor, x: Gaussian) -> Tensor:
    """J S J' for a Jacobian (batch, outputs, n) and the spread S of x: (batch, outputs, outputs).

    >>> spread_through(torch.ones(1, 1, 3), Gaussian(torch.zeros(1, 3), var=torch.tensor(0.5)))
    tensor([[[1.5000]]])
    """
    if x.cov is not None:
        return _sandwich(jacobian, x.cov)
    return (jacobian * x.var.flatten(1)[:, None, :]) @ jacobian.mT


def _sandwich(jacobian: Tensor, cov: Tensor) -> Tensor:
    spread = jacobian @ cov @ jacobian.mT
    return (spread + spread.mT) / 2


def _with_jacobian(function: Callable[[Tensor], Tensor], at: Tensor) -> tuple[Tensor, Tensor]:
    """function(at) as (batch, outputs) and its Jacobian as (batch, outputs, n), image by image."""
    with torch.enable_grad():
        at = at.detach().requires_grad_()
        outputs = function(at).flatten(1)
        # the sum over the batch has the single images' gradients, as no image looks at another
        rows = [torch.autograd.grad(output.sum(), at, retain_graph=True)[0] for output in outputs.unbind(1)]
    return outputs.detach(), torch.stack([row.flatten(1) for row in rows], dim=1)


def _unnested(model: nn.Module):
    if not isinstance(model, nn.Sequential):
        raise NotImplementedError(f"Expected an nn.Sequential, got {type(model).__name__}")
    for layer in model:
        if isinstance(layer, nn.Sequential):
            yield from _unnested(layer)
        else:
            yield layer
