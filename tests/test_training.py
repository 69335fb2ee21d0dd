"""The training loop: equal to a loop by hand, honest when it stops early, and good enough to learn digits."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, StepLR

from gaussreg_lab.datasets import batches, digits, two_moons
from gaussreg_lab.losses import NoisyLoss, cross_entropy
from gaussreg_lab.models import lenet, lenet8, mlp
from gaussreg_lab.robustness import accuracy
from gaussreg_lab.training import fit, step


def problem() -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    """A small network and four batches of moons."""
    return mlp((2, 8, 2)), list(batches(two_moons().train, size=50))


def sgd(model: nn.Module, lr: float = 0.1) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)


def weights(model: nn.Module) -> list[Tensor]:
    return [weight.detach().clone() for weight in model.parameters()]


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


class FailingLoss:
    """Cross entropy, until its call number `when`, where `fail` is called with the loss."""

    def __init__(self, when: int, fail) -> None:
        self.calls, self.when, self.fail = 0, when, fail

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        self.calls += 1
        value = cross_entropy(model, x, y)
        return self.fail(value) if self.calls == self.when else value


def interrupt(value: Tensor) -> Tensor:
    raise KeyboardInterrupt


def not_a_number(value: Tensor) -> Tensor:
    return value * math.nan


def infinite(value: Tensor) -> Tensor:
    return value + math.inf


# the loop


def test_fit_equals_a_loop_by_hand_bit_for_bit():
    model, data = problem()
    by_hand = copy.deepcopy(model)
    optimizer, losses = sgd(by_hand), []
    for _ in range(3):
        for x, y in data:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(by_hand(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    history = fit(model, data, cross_entropy, sgd(model), epochs=3, progress=False)
    assert history.losses == losses
    assert same(weights(model), weights(by_hand))


def test_fit_in_two_parts_equals_fit_in_one():
    (model, data), (parts, _) = problem(), problem()
    fit(model, data, cross_entropy, sgd(model), epochs=3, progress=False)
    optimizer = sgd(parts)
    fit(parts, data, cross_entropy, optimizer, epochs=1, progress=False)
    fit(parts, data, cross_entropy, optimizer, epochs=2, progress=False)
    assert same(weights(model), weights(parts))


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda weights: torch.optim.SGD(weights, lr=0.3, momentum=0.9),
        lambda weights: torch.optim.Adam(weights, lr=0.05),
        lambda weights: torch.optim.LBFGS(weights, line_search_fn="strong_wolfe"),
    ],
    ids=["SGD", "Adam", "LBFGS"],
)
def test_every_optimizer_halves_the_loss(optimizer):
    model, whole = mlp((2, 8, 2)), [two_moons().train]
    history = fit(model, whole, cross_entropy, optimizer(model.parameters()), epochs=60, progress=False)
    assert history.epoch_losses[-1] < 0.5 * history.epoch_losses[0]


def test_an_optimizer_may_evaluate_the_loss_several_times_a_step():
    model, data = problem()
    loss = FailingLoss(0, None)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=5)
    history = fit(model, data, loss, optimizer, progress=False)
    assert len(history.losses) == 4
    assert loss.calls > 8


def test_the_history_keeps_the_loss_before_each_step():
    model, data = problem()
    expected = cross_entropy(model, *data[0]).item()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=5)
    assert fit(model, data[:1], cross_entropy, optimizer, progress=False).losses == [expected]


def test_the_history_has_a_loss_of_every_step_and_the_mean_of_every_epoch():
    model, data = problem()
    history = fit(model, data, cross_entropy, sgd(model), epochs=3, progress=False)
    assert len(history.losses) == 12
    assert all(type(loss) is float for loss in history.losses)
    means = [math.fsum(history.losses[first : first + 4]) / 4 for first in (0, 4, 8)]
    assert history.epoch_losses == pytest.approx(means, rel=1e-15)
    assert not history.interrupted


def test_no_epoch_changes_nothing():
    model, data = problem()
    before = weights(model)
    history = fit(model, data, cross_entropy, sgd(model), epochs=0, progress=False)
    assert (history.losses, history.epoch_losses, history.interrupted) == ([], [], False)
    assert same(weights(model), before)


def test_one_epoch_is_the_default():
    model, data = problem()
    assert len(fit(model, data, cross_entropy, sgd(model), progress=False).epoch_losses) == 1


def test_the_schedule_is_stepped_once_an_epoch():
    model, data = problem()
    optimizer, rates = sgd(model, lr=0.1), []

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        rates.append(optimizer.param_groups[0]["lr"])
        return cross_entropy(model, x, y)

    fit(model, data, loss, optimizer, epochs=3, schedule=StepLR(optimizer, 1, gamma=0.5), progress=False)
    assert rates == pytest.approx([0.1] * 4 + [0.05] * 4 + [0.025] * 4)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0125)


def test_the_model_trains_in_training_mode_and_is_left_in_evaluation_mode():
    model, data = problem()
    model.eval()
    modes = []

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        modes.append(model.training)
        return cross_entropy(model, x, y)

    fit(model, data, loss, sgd(model), progress=False)
    assert modes == [True] * 4
    assert not any(layer.training for layer in model.modules())


def test_batches_follow_the_model_to_its_device():
    model, data = problem()
    places = []

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        places.append((x.device, y.device))
        raise KeyboardInterrupt

    fit(model.to("meta"), data, loss, sgd(model), progress=False)
    assert places == [(torch.device("meta"), torch.device("meta"))]


def test_batches_are_gone_through_anew_in_each_epoch():
    model, _ = problem()
    orders = []

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        orders.append(x.clone())
        return cross_entropy(model, x, y)

    fit(model, batches(two_moons().train, size=200), loss, sgd(model), epochs=2, progress=False)
    assert not torch.equal(orders[0], orders[1])


def test_progress_is_one_tick_an_epoch(capsys):
    model, data = problem()
    fit(model, data, cross_entropy, sgd(model), epochs=3, progress=True)
    assert "3/3" in capsys.readouterr().err


def test_without_progress_nothing_is_written(capsys):
    model, data = problem()
    fit(model, data, cross_entropy, sgd(model), epochs=3, progress=False)
    assert capsys.readouterr() == ("", "")


# whose gradients


def slope_loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Cross entropy and how steep it is: differentiates by the images, and asks the caller's own for that."""
    x.requires_grad_()
    value = cross_entropy(model, x, y)
    slope = torch.autograd.grad(value, x, create_graph=True)[0]
    return value + slope.square().sum()


def test_a_loss_that_differentiates_by_the_images_trains_as_by_hand_and_leaves_them_no_gradient():
    model, data = problem()
    by_hand = copy.deepcopy(model)
    optimizer = sgd(by_hand)
    for x, y in data:
        optimizer.zero_grad()
        slope_loss(by_hand, x.clone(), y).backward()
        optimizer.step()
    fit(model, data, slope_loss, sgd(model), progress=False)
    torch.testing.assert_close(weights(model), weights(by_hand), rtol=1e-6, atol=1e-7)
    assert all(x.grad is None for x, _ in data)


def test_only_the_weights_of_the_optimizer_get_gradients():
    model, data = problem()
    first, last = model[2], model[-1]
    before = weights(first)
    value = step(model, *data[0], cross_entropy, torch.optim.SGD(last.parameters(), lr=0.1))
    assert value == cross_entropy(problem()[0], *data[0]).item()
    assert all(weight.grad is None for weight in first.parameters())
    assert all(weight.grad is not None for weight in last.parameters())
    assert same(weights(first), before)


def test_weights_of_all_groups_are_moved():
    (model, data), (grouped, _) = problem(), problem()
    groups = [{"params": grouped[2].parameters()}, {"params": grouped[-1].parameters()}]
    fit(model, data, cross_entropy, torch.optim.SGD(model.parameters(), lr=0.1), progress=False)
    fit(grouped, data, cross_entropy, torch.optim.SGD(groups, lr=0.1), progress=False)
    assert same(weights(model), weights(grouped))


def test_a_weight_that_the_loss_does_not_use_stays():
    (model, data), (plain, _) = problem(), problem()
    unused = nn.Parameter(torch.ones(3))
    optimizer = sgd(model)
    optimizer.add_param_group({"params": [unused]})
    fit(model, data, cross_entropy, optimizer, progress=False)
    fit(plain, data, cross_entropy, sgd(plain), progress=False)
    assert same(weights(model), weights(plain))
    assert torch.equal(unused, torch.ones(3))
    assert unused.grad is None


def test_frozen_weights_stay_and_the_others_are_trained():
    model, data = problem()
    model[2].requires_grad_(False)
    frozen, free = weights(model[2]), weights(model[-1])
    fit(model, data, slope_loss, sgd(model), progress=False)
    assert same(weights(model[2]), frozen)
    assert not same(weights(model[-1]), free)
    assert all(weight.grad is None for weight in model[2].parameters())


# stopping early


@pytest.mark.parametrize("progress", [True, False])
def test_an_interrupt_returns_what_there_is(progress):
    model, data = problem()
    history = fit(model, data, FailingLoss(7, interrupt), sgd(model), epochs=3, progress=progress)
    assert history.interrupted
    assert len(history.losses) == 6
    assert len(history.epoch_losses) == 1


def test_an_interrupt_keeps_what_was_learned_and_leaves_evaluation_mode():
    (model, data), (short, _) = problem(), problem()
    fit(model, data, FailingLoss(5, interrupt), sgd(model), epochs=3, progress=False)
    fit(short, data, cross_entropy, sgd(short), epochs=1, progress=False)
    assert same(weights(model), weights(short))
    assert not model.training


@pytest.mark.parametrize(("fail", "got"), [(not_a_number, "nan"), (infinite, "inf")])
def test_a_loss_that_is_not_finite_stops_before_the_weights_are_touched(fail, got):
    (model, data), (short, _) = problem(), problem()
    with pytest.raises(ValueError, match=f"Expected a finite loss, got {got}; the weights are as they were"):
        fit(model, data, FailingLoss(5, fail), sgd(model), epochs=3, progress=False)
    fit(short, data, cross_entropy, sgd(short), epochs=1, progress=False)
    assert same(weights(model), weights(short))
    assert not model.training


def test_a_loss_that_is_not_finite_within_a_step_of_lbfgs_says_that_the_step_had_begun():
    model, data = problem()
    with pytest.raises(ValueError, match="unless the optimizer evaluates the loss several times"):
        fit(model, data, FailingLoss(3, not_a_number), torch.optim.LBFGS(model.parameters()), progress=False)


def test_batches_that_are_used_up_are_refused():
    model, data = problem()
    with pytest.raises(ValueError, match="gone through 3 times, got none in epoch 2; pass a list or"):
        fit(model, (pair for pair in data), cross_entropy, sgd(model), epochs=3, progress=False)
    assert not model.training


def test_no_batches_at_all_are_refused():
    model, _ = problem()
    with pytest.raises(ValueError, match="got none in epoch 1"):
        fit(model, [], cross_entropy, sgd(model), progress=False)


def test_negative_epochs_are_refused():
    model, data = problem()
    with pytest.raises(ValueError, match="Expected epochs >= 0, got -1"):
        fit(model, data, cross_entropy, sgd(model), epochs=-1, progress=False)


# good enough


def test_noise_training_learns_the_moons():
    model, (train, test) = mlp((2, 32, 2)), two_moons()
    loss = NoisyLoss(0.05, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    fit(model, batches(train, size=50), loss, optimizer, epochs=100, progress=False)
    assert accuracy(model, *test) > 0.95


def test_lenet8_learns_97_percent_of_the_digits():
    model, (train, test) = lenet8(), digits()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    schedule = CosineAnnealingLR(optimizer, 40)
    fit(model, batches(train, size=64), cross_entropy, optimizer, 40, schedule, progress=False)
    assert accuracy(model, *test) >= 0.97


def test_lenet_learns_98_percent_of_mnist_in_two_epochs(real_mnist):
    # on one thread: two of them, where another process wants a core, wait for each other ten times as long
    model, (train, test) = lenet(), real_mnist
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    schedule = CosineAnnealingLR(optimizer, 2)
    fit(model, batches(train), cross_entropy, optimizer, 2, schedule, progress=False)
    assert accuracy(model, *test) >= 0.98
