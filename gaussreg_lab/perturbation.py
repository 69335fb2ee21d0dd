r"""AMP, adversarial model perturbation: train so that the loss stays low when the weights are jolted.

    jolt  <-  into_ball( jolt + inner_lr * gradient at w + jolt )       uphill, inner_iter times, from 0
    w     <-  the wrapped optimizer's step from w, with the gradient at w + jolt

A minimum whose loss rises steeply nearby is left, a flat one is kept. The price: one more forward and
backward pass for each step uphill. The ball is Euclidean, of radius epsilon: one for each weight tensor, as
in the authors' code, or one for all weights together, as in the paper and in SAM. T tensors in balls of
their own may move by epsilon sqrt(T) in all, so an epsilon means little without its ball.

Differences from the authors' code, whose algorithm this is: the weights come back exactly, from a copy; the
wrapped optimizer's state is saved and loaded; layers that keep statistics keep those of the unjolted
weights; a loss that is not finite leaves everything as it was. No kin of automatic mixed precision.

Source: Zheng, Zhang, Mao, "Regularizing Neural Networks via Adversarial Model Perturbation", CVPR 2021, arXiv
2010.04925, and its code; SAM: Foret, Kleiner, Mobahi, Neyshabur, ICLR 2021, arXiv 2010.01412.
Lesson: notebooks/06_perturbation.ipynb
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim import Optimizer

BALLS = ("parameter", "model")
GUARD = 1e-12  # the authors', where they divide by a length


class AMP(Optimizer):
    """An optimizer whose steps follow the gradient at weights that were jolted uphill.

    optimizer: built already, any of torch's that needs no closure. epsilon: radius of the ball, >= 0; with
    0 each step is the optimizer's own. inner_lr: length of a step uphill per unit of gradient, > 0.
    inner_iter: steps uphill, >= 1. ball: "parameter", each tensor in its own, or "model", all in one.

    Groups and state are the wrapped optimizer's: schedules, checkpoints, momentum and added groups work on
    either. A group with a key "epsilon" or "inner_lr" has its own; in the ball "model" all share one epsilon.
    Random draws, dropout's say, are fresh in each pass.
    Raises ValueError for other numbers or nothing to train, TypeError for something that is no optimizer.

    >>> w = nn.Parameter(torch.tensor([3.0, 4.0]))
    >>> optimizer = AMP(torch.optim.SGD([w], lr=0.5), epsilon=1.0)
    >>> def closure():
    ...     loss = w.square().sum() / 2
    ...     loss.backward()
    ...     return loss
    >>> loss = optimizer.step(closure)  # w - lr (w + epsilon w / |w|)
    >>> w.detach()
    tensor([1.2000, 1.6000])
    """

    def __init__(
        self,
        optimizer: Optimizer,
        epsilon: float,
        inner_lr: float = 1.0,
        inner_iter: int = 1,
        ball: str = "parameter",
    ) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"Expected a built optimizer, say torch.optim.SGD(...), got {optimizer!r}")
        if not isinstance(inner_iter, int) or inner_iter < 1:
            raise ValueError(f"Expected inner_iter to be a whole number >= 1, got {inner_iter!r}")
        expect_ball(ball)
        defaults = {**optimizer.defaults, "epsilon": epsilon, "inner_lr": inner_lr}
        # not by __init__, which would give us groups and state of our own
        self.__setstate__(
            {"optimizer": optimizer, "inner_iter": inner_iter, "ball": ball, "defaults": defaults}
        )
        self._complete_groups()
        if not any(self._trained()):
            raise ValueError("Expected an optimizer with weights that require gradients, got none")

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The wrapped optimizer's."""
        return self.optimizer.param_groups

    @property
    def state(self) -> dict[Tensor, Any]:
        """The wrapped optimizer's."""
        return self.optimizer.state

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor]) -> Tensor:
        """One step; returns the loss before it, at the weights as they were.

        closure: evaluates the loss, calls backward() and returns the loss. It is called 1 + inner_iter times,
        each time after old gradients have been dropped; it may clip the new ones.
        Raises TypeError for another closure, ValueError for one that does not call backward(), or for a
        loss or gradient that is not finite: weights and optimizer state are then as they were.
        """
        if not callable(closure):
            raise TypeError(
                "Expected step(closure), a function that evaluates the loss, calls backward() and returns "
                f"the loss, because AMP needs it more than once; got {closure!r}"
            )
        self._complete_groups()
        loss = self._evaluate(closure)
        if any(group["epsilon"] > 0 for group in self.param_groups):
            self._evaluate_uphill(closure)
        gradients = [_gradient(weight) for weight, _ in self._trained() if weight.grad is not None]
        _expect_finite([length.item() for length in torch._foreach_norm(gradients)], "gradient")
        self.optimizer.step()
        return loss

    def _evaluate_uphill(self, closure: Callable[[], Tensor]) -> None:
        """Leave the weights where they are, with the gradients of the jolted ones."""
        weights, groups = zip(*self._trained(), strict=True)
        radii = [group["epsilon"] for group in groups]
        # uphill for the adversary is downhill where the optimizer maximizes
        rates = [group["inner_lr"] * (-1 if group.get("maximize") else 1) for group in groups]
        before, jolts = [weight.clone() for weight in weights], None
        for _ in range(self.inner_iter):
            uphill = torch._foreach_mul(list(map(_gradient, weights)), rates)
            if jolts is not None:
                torch._foreach_add_(uphill, jolts)
            jolts = uphill
            _expect_finite(into_ball(jolts, radii, self.ball), "gradient")
            try:
                torch._foreach_add_(weights, jolts)
                with statistics_kept():
                    self._evaluate(closure)
            finally:
                torch._foreach_copy_(weights, before)

    def _evaluate(self, closure: Callable[[], Tensor]) -> Tensor:
        self.zero_grad()
        with torch.enable_grad():
            loss = closure()
        if not (isinstance(loss, Tensor) and loss.numel() == 1):
            raise TypeError(
                f"Expected closure to return the loss, a tensor with one number, got {type(loss).__name__}; "
                "if it returns (outputs, loss), as the authors' optimizer has it, return the loss alone"
            )
        if all(weight.grad is None for weight, _ in self._trained()):
            raise ValueError("Expected closure to call backward() on the loss, got no gradient at all")
        _expect_finite([loss.item()], "loss")
        return loss

    def _trained(self) -> Iterator[tuple[Tensor, dict[str, Any]]]:
        """Every weight that is trained, with its group."""
        groups = self.param_groups
        return ((weight, group) for group in groups for weight in group["params"] if weight.requires_grad)

    def add_param_group(self, group: dict[str, Any]) -> None:
        """Add a group to the wrapped optimizer; without keys of its own it has our epsilon and inner_lr."""
        self.optimizer.add_param_group(group)
        self._complete_groups()

    def state_dict(self) -> dict[str, Any]:
        """The wrapped optimizer's, momentum included; its groups hold epsilon and inner_lr as well."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` gave, or a checkpoint of the wrapped optimizer alone."""
        self.optimizer.load_state_dict(state_dict)
        self._complete_groups()

    def _complete_groups(self) -> None:
        """Give each group its epsilon and inner_lr, and refuse those that make no sense."""
        for group in self.param_groups:
            for name in ("epsilon", "inner_lr"):
                group.setdefault(name, self.defaults[name])
            if not 0 <= group["epsilon"] < math.inf:
                raise ValueError(f"Expected epsilon >= 0 and finite, got {group['epsilon']}")
            if not 0 < group["inner_lr"] < math.inf:
                raise ValueError(f"Expected inner_lr > 0 and finite, got {group['inner_lr']}")
        if self.ball == "model" and len({group["epsilon"] for group in self.param_groups}) > 1:
            raise ValueError("Expected one epsilon for all groups in the ball 'model', got several")

    def __getstate__(self) -> dict[str, Any]:
        """What a copy needs: the inherited one would forget the wrapped optimizer."""
        return {name: getattr(self, name) for name in ("optimizer", "inner_iter", "ball", "defaults")}


def into_ball(jolts: Sequence[Tensor], radii: Sequence[float], ball: str = "parameter") -> list[float]:
    """Shorten jolts that reach out of the ball to its radius, in place; returns the lengths they had.

    jolts: one tensor for each weight tensor; radii: one for each of them. ball: "parameter", each jolt in its
    own, or "model", all together in one, whose radius is the first.

    >>> jolts = [torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0])]
    >>> into_ball(jolts, [1.0, 1.0], ball="model")  # of both together
    [5.0, 5.0]
    >>> jolts
    [tensor([0.6000, 0.0000]), tensor([0.0000, 0.8000])]
    """
    lengths = [length.item() for length in torch._foreach_norm(jolts)]
    if ball == "model":
        lengths = [math.hypot(*lengths)] * len(lengths)
    factors = [
        radius / (length + GUARD) if length > radius else 1.0
        for length, radius in zip(lengths, radii, strict=True)
    ]
    if min(factors) < 1:
        torch._foreach_mul_(jolts, factors)
    return lengths


@contextmanager
def statistics_kept() -> Iterator[None]:
    """While this lasts, layers in train mode may change their buffers; afterwards these are as they were.

    Batch norm's statistics, for one, and the directions that a spectral cap follows: they belong to the
    weights, not to jolted ones. An optimizer knows no model, so layers are found as they are called.

    >>> norm = nn.BatchNorm1d(2)
    >>> with statistics_kept():
    ...     _ = norm(torch.ones(3, 2))
    >>> norm.num_batches_tracked
    tensor(0)
    """
    before: dict[nn.Module, list[Tensor]] = {}

    def note(layer: nn.Module, _inputs: object) -> None:
        if layer.training and layer._buffers and layer not in before:
            before[layer] = [buffer.clone() for buffer in layer.buffers(recurse=False)]

    handle = register_module_forward_pre_hook(note)
    try:
        yield
    finally:
        handle.remove()
        with torch.no_grad():
            for layer, buffers in before.items():
                for buffer, kept in zip(layer.buffers(recurse=False), buffers, strict=True):
                    buffer.copy_(kept)


def expect_ball(ball: str) -> None:
    """Raise ValueError unless `ball` names one of the two balls."""
    if ball not in BALLS:
        raise ValueError(f"Expected ball to be one of {BALLS}, got {ball!r}")


def _expect_finite(values: Sequence[float], what: str) -> None:
    if not all(map(math.isfinite, values)):
        raise ValueError(
            f"Expected a finite loss with finite gradients, got a {what} of {sum(values)}; weights and "
            "optimizer are as they were before this step; try a smaller learning rate or epsilon"
        )


def _gradient(weight: Tensor) -> Tensor:
    """Zeros where a pass did not reach the weight; dense where an embedding's is sparse."""
    if weight.grad is None:
        return torch.zeros_like(weight)
    return weight.grad.to_dense() if weight.grad.is_sparse else weight.grad
