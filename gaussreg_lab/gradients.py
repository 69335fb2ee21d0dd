r"""Gradient regularization: penalties on how the output changes with the input.

With z = f(x) the logits of one image, J = dz/dx, p = softmax(z) and l the cross entropy:

    DataGrad          |dl/dx|^2 = |J'(p - y)|^2       double backpropagation
    SpectReg          |J'r|^2,  r ~ N(0, I)           one r for the whole batch; on average |J|_F^2
    FrobReg           |J|_F^2                         all entries of the Jacobian, or random projections of it
    JacReg            |dp/dx|_F^2                     the same for the probabilities
    DifferenceReg     |f(x + hv) - f(x)|^2 / h^2      v ~ N(0, I); on average |J|_F^2, by first derivatives

Each is a Loss: a mean over the batch of one number per image, unweighted. A weight that is right for
standardised inputs, as in the authors' experiments, is std^2 of it for pixels in [0, 1], say a tenth:
a penalty on derivatives by x counts in units of x.

Source: Varga, Csiszarik, Zombori, "Gradient Regularization Improves Accuracy of Discriminative Models", arXiv
1712.09936 (2017); double backpropagation: Drucker, Le Cun, IEEE Trans. Neural Networks 3 (1992).
Lesson: notebooks/04_gradients.ipynb
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from gaussreg_lab.losses import expect_weight

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


class Penalty(Protocol):
    """A Loss that can also be told the logits, where they are known already."""

    def of_logits(self, model: nn.Module, x: Tensor, z: Tensor, y: Tensor) -> Tensor:
        """The penalty, for logits z = model(x) that have a graph down to x."""


@dataclass(frozen=True)
class DataGrad:
    """Mean squared length of the input gradient of the cross entropy: double backpropagation.

    Call with (model, x, y). The gradient is that of each image's own loss. Raises ValueError for logits that
    are not (batch, classes), and for batch norm in train mode, where no image has a gradient of its own.

    >>> DataGrad()(nn.Flatten(), torch.zeros(3, 2), torch.tensor([0, 1, 0])).item()  # p - y = (-1/2, 1/2)
    0.5
    """

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return _alone(self, model, x, y)

    def of_logits(self, model: nn.Module, x: Tensor, z: Tensor, y: Tensor) -> Tensor:
        losses = nn.functional.cross_entropy(z, y, reduction="sum")
        return squared_length(pulled_back(losses, x)).mean()


@dataclass(frozen=True)
class SpectReg:
    """Mean squared length of one random combination of the logits' gradients, the same for all images.

    In spite of its name its mean is the squared Frobenius norm of the Jacobian, not the spectral one.
    generator: of the combination, on x's device; by default the global one. Raises as `DataGrad`.

    >>> SpectReg()(nn.Flatten(), torch.zeros(3, 2), torch.tensor([0, 1, 0])) > 0
    tensor(True)
    """

    generator: torch.Generator | None = None

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return _alone(self, model, x, y)

    def of_logits(self, model: nn.Module, x: Tensor, z: Tensor, y: Tensor) -> Tensor:
        r = torch.randn(z.shape[1], generator=self.generator, dtype=z.dtype, device=z.device)
        return squared_length(pulled_back((z * r).sum(), x)).mean()


@dataclass(frozen=True)
class FrobReg:
    """Mean squared Frobenius norm of the logits' Jacobian.

    projections: None for the norm itself, at one backward pass per class; else so many random directions,
    orthogonal to each other and drawn anew for each image, which give it on average (with as many as there
    are classes, exactly). generator: as in `SpectReg`. Raises as `DataGrad`, and ValueError for
    projections < 1 or more than there are classes.

    >>> FrobReg()(nn.Flatten(), torch.zeros(3, 2), torch.tensor([0, 1, 0])).item()  # the identity of two
    2.0
    """

    projections: int | None = None
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        _expect_projections(self.projections)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return _alone(self, model, x, y)

    def of_logits(self, model: nn.Module, x: Tensor, z: Tensor, y: Tensor) -> Tensor:
        directions = _directions(z, self.projections, self.generator)
        return sum(squared_length(pulled_back((z * r).sum(), x)).mean() for r in directions)


@dataclass(frozen=True)
class JacReg:
    """Mean squared Frobenius norm of the Jacobian of the probabilities, dp/dx.

    Arguments and errors as in `FrobReg`. It dies out where the network is sure: p hardly moves there.

    >>> JacReg()(nn.Flatten(), torch.zeros(3, 2), torch.tensor([0, 1, 0])).item()  # four times (1/4)^2
    0.25
    """

    projections: int | None = None
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        _expect_projections(self.projections)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return _alone(self, model, x, y)

    def of_logits(self, model: nn.Module, x: Tensor, z: Tensor, y: Tensor) -> Tensor:
        p = z.softmax(dim=1)
        directions = _directions(z, self.projections, self.generator)
        return sum(squared_length(pulled_back((p * r).sum(), x)).mean() for r in directions)


@dataclass(frozen=True)
class DifferenceReg:
    """Mean squared Frobenius norm of the Jacobian by differences: one random step, no second derivative.

    step: in pixel units, times an N(0, I) direction; kinks nearer than that are smoothed over.
    generator: as in `SpectReg`. Raises as `DataGrad`, and ValueError for step <= 0, and for dropout in
    train mode: two passes with two masks differ by the masks, and divided by a small step by nothing else.

    >>> DifferenceReg()(nn.Flatten(), torch.zeros(3, 2), torch.tensor([0, 1, 0])) > 0
    tensor(True)
    """

    step: float = 0.01
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        if not 0 < self.step < float("inf"):
            raise ValueError(f"Expected step > 0 and finite, in pixel units, got {self.step}")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        _expect_own_gradients(model)
        x = x.detach()
        return self.of_logits(model, x, _expect_logits(model(x)), y)

    def of_logits(self, model: nn.Module, x: Tensor, z: Tensor, y: Tensor) -> Tensor:
        for layer in model.modules():
            if isinstance(layer, DROPOUTS) and layer.training and layer.p > 0:
                raise ValueError(f"Expected no dropout between the two passes, got {layer} in train mode")
        x = x.detach()  # the derivative is by the weights alone
        v = torch.randn(x.shape, generator=self.generator, dtype=x.dtype, device=x.device)
        return squared_length((model(x + self.step * v) - z) / self.step).mean()


@dataclass(frozen=True)
class Penalized:
    """Cross entropy plus `weight` times a penalty, from one forward pass.

    The same number as weighted_sum((1, cross_entropy), (weight, penalty)), a third cheaper where the penalty
    takes one backward pass.
    penalty: one of this module. weight: finite. Raises as the penalty, ValueError for other weights,
    TypeError for a penalty that cannot be told the logits.

    >>> loss = Penalized(DataGrad(), weight=0.1)
    >>> round(loss(nn.Flatten(), torch.zeros(3, 2), torch.tensor([0, 1, 0])).item(), 4)  # log 2 + 0.1 / 2
    0.7431
    """

    penalty: Penalty
    weight: float

    def __post_init__(self) -> None:
        expect_weight(self.weight, "weight")
        if not hasattr(self.penalty, "of_logits"):
            raise TypeError(f"Expected a penalty with of_logits, such as DataGrad(), got {self.penalty!r}")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        def together(x: Tensor, z: Tensor) -> Tensor:
            penalty = self.penalty.of_logits(model, x, z, y)
            return nn.functional.cross_entropy(z, y) + self.weight * penalty

        return _with_logits(model, x, together)


def pulled_back(output: Tensor, x: Tensor) -> Tensor:
    """The gradient of a number by x, itself differentiable.

    >>> x = torch.ones(2, requires_grad=True)
    >>> pulled_back(x.square().sum(), x).detach()
    tensor([2., 2.])
    """
    return torch.autograd.grad(output, x, create_graph=True, materialize_grads=True)[0]


def squared_length(gradient: Tensor) -> Tensor:
    """Squared Euclidean length for each image, shape (batch,).

    >>> squared_length(torch.tensor([[3.0, 4.0]]))
    tensor([25.])
    """
    return gradient.flatten(1).square().sum(dim=1)


def _alone(penalty: Penalty, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return _with_logits(model, x, lambda x, z: penalty.of_logits(model, x, z, y))


def _with_logits(model: nn.Module, x: Tensor, function: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """function(x, model(x)) on an x of our own, whatever the caller's x requires; also without gradients."""
    _expect_own_gradients(model)
    wanted = torch.is_grad_enabled()
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = function(x, _expect_logits(model(x)))
    return value if wanted else value.detach()


def _directions(z: Tensor, projections: int | None, generator: torch.Generator | None) -> Iterator[Tensor]:
    """Vectors r, one of the classes' shape or one per image, with the mean of sum r r' the identity."""
    classes = z.shape[1]
    if projections is None:
        yield from torch.eye(classes, dtype=z.dtype, device=z.device)
        return
    if projections > classes:
        raise ValueError(f"Expected projections <= {classes}, the number of classes, got {projections}")
    random = torch.randn(len(z), classes, projections, generator=generator, dtype=z.dtype, device=z.device)
    orthogonal, _ = torch.linalg.qr(random)
    yield from (orthogonal * (classes / projections) ** 0.5).unbind(dim=2)


def _expect_projections(projections: int | None) -> None:
    if projections is not None and projections < 1:
        raise ValueError(f"Expected projections >= 1, or None for all of the Jacobian, got {projections}")


def _expect_logits(z: Tensor) -> Tensor:
    if z.dim() != 2:
        raise ValueError(f"Expected a model with logits of shape (batch, classes), got {tuple(z.shape)}")
    return z


def _expect_own_gradients(model: nn.Module) -> None:
    for layer in model.modules():
        if isinstance(layer, BATCH_NORMS) and (layer.training or layer.running_mean is None):
            raise ValueError(
                f"Expected {type(layer).__name__} in eval mode with running statistics, got one that looks at"
                " the whole batch, whose images then share their gradients; call .eval() on these layers"
            )
