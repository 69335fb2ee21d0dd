"""One training loop for every method of the course.

The loop always hands the optimizer a closure that evaluates the loss. SGD calls it once, an
optimizer that jolts the weights calls it twice; the loop need not know. Nor does it know a
regularizer: those arrive inside `loss`, `optimizer` or the model's own layers.

Lesson: notebooks/00_start_here.ipynb
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from gaussreg_lab.losses import Loss


@dataclass
class History:
    """What a training run left behind.

    losses: the loss of every step, in order. epoch_losses: their mean over each finished epoch.
    interrupted: True when the run was stopped by hand before its last epoch.
    """

    losses: list[float] = field(default_factory=list)
    epoch_losses: list[float] = field(default_factory=list)
    interrupted: bool = False


def fit(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    epochs: int = 1,
    schedule: torch.optim.lr_scheduler.LRScheduler | None = None,
    progress: bool = True,
) -> History:
    """Train `model` in place and return the history of its loss.

    batches: gives (x, y) anew at each pass, as `datasets.batches` does; moved to the model's
    device. schedule: of the learning rate, stepped after each epoch. progress: show a bar, one
    tick an epoch. Stopping the cell (Ctrl-C) ends the training early and returns what there is;
    the model keeps what it has learned. It is left in eval mode.
    Raises ValueError for epochs < 0, for batches that are empty or exhausted by one pass, and as
    soon as the loss is not finite. The weights are then as they were before that step, unless an
    optimizer that evaluates the loss several times (LBFGS, not AMP) had begun to move them.

    >>> from gaussreg_lab.datasets import batches, two_moons
    >>> from gaussreg_lab.losses import cross_entropy
    >>> from gaussreg_lab.models import mlp
    >>> model = mlp((2, 16, 2))
    >>> history = fit(
    ...     model, batches(two_moons().train), cross_entropy, torch.optim.Adam(model.parameters(), lr=0.05),
    ...     epochs=20, progress=False)
    >>> history.epoch_losses[-1] < 0.5 * history.epoch_losses[0]
    True
    """
    if epochs < 0:
        raise ValueError(f"Expected epochs >= 0, got {epochs}")
    device = next(model.parameters()).device
    history = History()
    model.train()
    try:
        for epoch in _bar(range(epochs), progress):
            steps_before = len(history.losses)
            for x, y in batches:
                value = step(model, x.to(device), y.to(device), loss, optimizer)
                history.losses.append(value)
            new = history.losses[steps_before:]
            if not new:
                raise ValueError(
                    f"Expected batches that can be gone through {epochs} times, got none in epoch "
                    f"{epoch + 1}; pass a list or datasets.batches(...), not a generator, and not empty"
                )
            history.epoch_losses.append(sum(new) / len(new))
            if schedule is not None:
                schedule.step()
    except KeyboardInterrupt:
        history.interrupted = True
    finally:
        model.eval()
    return history


def step(model: nn.Module, x: Tensor, y: Tensor, loss: Loss, optimizer: torch.optim.Optimizer) -> float:
    """One step of training on one mini-batch; returns the loss."""
    # a loss that differentiates by the images would otherwise get their gradients a second time, for nothing
    moved = [weight for group in optimizer.param_groups for weight in group["params"] if weight.requires_grad]

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(model, x, y)
        _expect_finite(value)
        value.backward(inputs=moved)
        return value

    return float(optimizer.step(closure).detach())


def _expect_finite(value: Tensor) -> None:
    if not math.isfinite(value.item()):
        raise ValueError(
            f"Expected a finite loss, got {value.item()}; the weights are as they were before this step, "
            "unless the optimizer evaluates the loss several times in a step; try a smaller learning rate"
        )


def _bar(epochs: range, progress: bool) -> Iterable[int]:
    if not progress:
        return epochs
    from tqdm.auto import tqdm  # here, because in a notebook it brings ipywidgets along

    return tqdm(epochs, desc="training", unit="epoch")
