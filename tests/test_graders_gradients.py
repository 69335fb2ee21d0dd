"""The exercises of lesson 04: right, and wrong in the ways that students are wrong."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, one_hot

from gaussreg_lab.exercises import grade
from gaussreg_lab.gradients import DataGrad
from gaussreg_lab.verdicts import NOT_ATTEMPTED, RIGHT, WRONG


def squared_lengths(model, x, y, reduction="sum", create_graph=True):
    x = x.detach().requires_grad_()
    losses = cross_entropy(model(x), y, reduction=reduction)
    (gradient,) = torch.autograd.grad(losses, x, create_graph=create_graph)
    return gradient.flatten(1).square().sum(dim=1)


def double_backpropagation(model, x, y):
    return squared_lengths(model, x, y).mean()


def image_by_image(model, x, y):
    gradient = torch.func.grad(lambda image, label: cross_entropy(model(image[None]), label[None]))
    return sum(gradient(*each).square().sum() for each in zip(x, y, strict=True)) / len(x)


def on_the_x_that_came(model, x, y):
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(model(x), y), x, create_graph=True)
    return len(x) * gradient.square().sum()


def with_fixed_probabilities(model, x, y):
    x = x.detach().requires_grad_()
    z = model(x)
    residual = (z.softmax(dim=1) - one_hot(y, z.shape[1])).detach()
    (gradient,) = torch.autograd.grad((z * residual).sum(), x, create_graph=True)
    return gradient.square().sum(dim=1).mean()


def cut_in_the_middle(model, x, y):
    """The first layer's weights are left out: only the last ones are trained."""
    kept = squared_lengths(model, x, y).mean()
    return kept.detach() + sum(weight.sum() - weight.sum().detach() for weight in model[-1].parameters())


def moved(function, x, directions, step=1e-5):
    return (function(x + step * directions) - function(x[None])) / step


def by_jolts(function, x, directions):
    return moved(function, x, directions).square().sum(dim=1).mean()


def to_both_sides(function, x, directions):
    total = 0.0
    for v in directions:
        total += ((function(x + 1e-3 * v) - function(x - 1e-3 * v)) / 2e-3).norm() ** 2
    return total / len(directions)


def by_forward_derivatives(function, x, directions):
    lengths = [torch.func.jvp(function, (x,), (v,))[1].square().sum().item() for v in directions]
    return sum(lengths) / len(lengths)


def stub(*_):
    raise NotImplementedError


RIGHT_ANSWERS = [
    ("4.1", 6.25),
    ("4.1", ((torch.tensor([0.5, -0.5]) @ torch.tensor([[3.0, 4.0], [0.0, 0.0]])) ** 2).sum()),
    ("4.1", "6.25"),
    ("4.2", double_backpropagation),
    ("4.2", image_by_image),
    ("4.2", on_the_x_that_came),
    ("4.2", DataGrad()),
    ("4.2", lambda model, x, y: double_backpropagation(model, x, y).float()),
    ("4.3", by_jolts),
    ("4.3", to_both_sides),
    ("4.3", by_forward_derivatives),
    ("4.3", lambda function, x, directions: by_jolts(function, x, directions).float()),
    ("4.4", 0.5),
    ("4.4", 8 * torch.tensor(0.25) ** 2),
]
WRONG_ANSWERS = [
    ("4.1", 2.5, "length; the penalty is its square"),
    ("4.1", 25, "factor p - y"),
    ("4.1", 12.5, "second one adds nothing"),
    ("4.1", 7, "Got 7; write dl/dx"),
    ("4.1", "much", "Got 'much'; write dl/dx"),
    ("4.1", float("nan"), "Got nan; write dl/dx"),
    ("4.1", stub, "write dl/dx"),
    ("4.2", 3, "Expected a function of model, x and y, got 3"),
    ("4.2", squared_lengths, "a tensor without dimensions, got (4,)"),
    ("4.2", lambda model, x, y: double_backpropagation(model, x, y).item(), "without dimensions, got float"),
    ("4.2", lambda model, x, y: None, "without dimensions, got NoneType"),
    ("4.2", lambda model, x, y: squared_lengths(model, x, y, "mean").mean(), "that of the mean loss"),
    ("4.2", lambda model, x, y: squared_lengths(model, x, y).sum(), "sum over the batch"),
    ("4.2", lambda model, x, y: squared_lengths(model, x, y).sqrt().mean(), "This is the mean length"),
    ("4.2", lambda model, x, y: double_backpropagation(model, x, y) + 1, "expected 6.10361, got 7.10361"),
    ("4.2", lambda model, x, y: double_backpropagation(model, x, y) * torch.nan, "expected 6.10361, got nan"),
    ("4.2", lambda model, x, y: torch.tensor(3), "expected 6.10361, got 3.00000"),
    ("4.2", lambda model, x, y: squared_lengths(model, x, y, create_graph=False).mean(), "create_graph=True"),
    ("4.2", lambda model, x, y: double_backpropagation(model, x, y).detach(), "create_graph=True"),
    ("4.2", with_fixed_probabilities, "something is cut off"),  # no gradient at all by the last bias
    ("4.2", cut_in_the_middle, "something is cut off"),
    ("4.3", 3, "Expected a function of function, x and directions, got 3"),
    ("4.3", lambda *given: moved(*given).square().sum(dim=1), "Expected one number, got shape (50,)"),
    ("4.3", lambda *given: moved(*given).norm(dim=1).mean(), "square it before the mean"),
    ("4.3", lambda *given: moved(*given).square().mean(), "over the directions alone"),
    ("4.3", lambda *given: moved(*given).square().sum(), "sum over the directions"),
    ("4.3", lambda *given: 1e-5 * by_jolts(*given), "expected 6.3573, got 0.0001"),
    ("4.3", lambda *given: moved(*given, step=0.5).square().sum(dim=1).mean(), "expected 6.3573, got"),
    ("4.3", lambda *given: float("nan"), "expected 6.3573, got nan"),
    ("4.4", 2, "squared as well"),
    ("4.4", 128, "other way round"),
    ("4.4", 8, "Got 8; by how much"),
    ("4.4", "much", "Got 'much'; by how much"),
    ("4.4", float("nan"), "Got nan; by how much"),
    ("4.4", stub, "by how much"),
]


@pytest.mark.parametrize("exercise", ["4.2", "4.3"])
def test_a_stub_is_not_an_attempt(exercise):
    assert grade(exercise, stub).state == NOT_ATTEMPTED


@pytest.mark.parametrize(("exercise", "answer"), RIGHT_ANSWERS)
def test_right_answers_are_right(exercise, answer):
    verdict = grade(exercise, answer)
    assert verdict.state == RIGHT, verdict.sentence


@pytest.mark.parametrize(("exercise", "answer", "hint"), WRONG_ANSWERS)
def test_wrong_answers_are_told_in_which_way(exercise, answer, hint):
    verdict = grade(exercise, answer)
    assert verdict.state == WRONG
    assert hint in verdict.sentence


def test_fixed_probabilities_give_the_right_value():
    """So it is by its gradient alone that `with_fixed_probabilities` is found out."""
    model, x, y = nn.Linear(5, 3), torch.randn(4, 5), torch.tensor([0, 2, 1, 1])
    torch.testing.assert_close(with_fixed_probabilities(model, x, y), double_backpropagation(model, x, y))


def test_the_same_problem_at_every_seed():
    seen = []

    def note(model, x, y):
        seen.append([x.clone(), *(weight.detach().clone() for weight in model.parameters())])
        return double_backpropagation(model, x, y)

    for seed in (0, 1):
        torch.manual_seed(seed)
        grade("4.2", note)
    torch.testing.assert_close(*seen, rtol=0, atol=0)


@pytest.mark.parametrize(("exercise", "answer"), [*RIGHT_ANSWERS, *(it[:2] for it in WRONG_ANSWERS)])
def test_grading_leaves_the_global_generator_alone(exercise, answer):
    before = torch.get_rng_state()
    grade(exercise, answer)
    assert torch.equal(torch.get_rng_state(), before)
