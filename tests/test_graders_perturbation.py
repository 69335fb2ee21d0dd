"""The exercises of lesson 06: right, and wrong in the ways that students are wrong."""

import math

import pytest
import torch
from torch import nn

from gaussreg_lab.exercises import grade
from gaussreg_lab.perturbation import AMP
from gaussreg_lab.verdicts import NOT_ATTEMPTED, RIGHT, WRONG


def into_ball(jolt, epsilon):
    return jolt * min(1.0, epsilon / jolt.norm().item())


def uphill(gradient_of, w, epsilon, inner_lr, inner_iter):
    jolt = torch.zeros_like(w)
    for _ in range(inner_iter):
        jolt = into_ball(jolt + inner_lr * gradient_of(w + jolt), epsilon)
    return jolt


def uphill_in_place(gradient_of, w, epsilon, inner_lr, inner_iter):
    start = w.clone()
    for _ in range(inner_iter):
        w += inner_lr * gradient_of(w)
        w.copy_(start + into_ball(w - start, epsilon))
    return w - start


def uphill_by_amp(gradient_of, w, epsilon, inner_lr, inner_iter):
    """Where the course's own optimizer evaluates the loss last."""
    weight, seen = nn.Parameter(w.clone()), []

    def closure():
        seen.append(weight.detach().clone())
        weight.grad = gradient_of(weight.detach())
        return torch.zeros(())

    AMP(torch.optim.SGD([weight], lr=0.1), epsilon, inner_lr, inner_iter).step(closure)
    return seen[-1] - seen[0]


def downhill(gradient_of, *given):
    return uphill(lambda at: -gradient_of(at), *given)


def always_at_w(gradient_of, w, *given):
    return uphill(lambda at: gradient_of(w), w, *given)


def last_step_alone(gradient_of, w, epsilon, inner_lr, inner_iter):
    return into_ball(inner_lr * gradient_of(w), epsilon)


def whole_gradients(gradient_of, w, epsilon, inner_lr, inner_iter):
    return uphill(gradient_of, w, epsilon, 1.0, inner_iter)


def always_on_the_surface(gradient_of, w, epsilon, inner_lr, inner_iter):
    jolt = uphill(gradient_of, w, epsilon, inner_lr, inner_iter)
    return epsilon * jolt / jolt.norm()


def without_a_ball(gradient_of, w, epsilon, inner_lr, inner_iter):
    return uphill(gradient_of, w, math.inf, inner_lr, inner_iter)


def clamped(gradient_of, w, epsilon, inner_lr, inner_iter):
    return without_a_ball(gradient_of, w, epsilon, inner_lr, inner_iter).clamp(-0.3, 0.3)


def jolted_weights(gradient_of, w, *given):
    return w + uphill(gradient_of, w, *given)


def stub(*_):
    raise NotImplementedError


CROSSING = math.sqrt(2 * math.log(1.2) / (1 / 0.3**2 - 1 / 0.9**2))
RIGHT_ANSWERS = [
    ("6.1", 1.5),
    ("6.1", torch.tensor(0.5) * 9**0.5),
    ("6.1", "1.5"),
    ("6.2", uphill),
    ("6.2", uphill_in_place),
    ("6.2", uphill_by_amp),
    ("6.2", lambda *given: uphill(*given).float()),
    ("6.3", 1.5),
    ("6.3", "1.5"),
    ("6.4", CROSSING),
    ("6.4", torch.tensor(CROSSING)),
    ("6.4", 0.192),
]
WRONG_ANSWERS = [
    ("6.1", 0.5, "a third as wide"),
    ("6.1", 4.5, "do not add up, their squares do"),
    ("6.1", 0.5 / 3, "on the wrong side"),
    ("6.1", 2, "Got 2; how long"),
    ("6.1", "much", "Got 'much'; how long"),
    ("6.1", float("nan"), "Got nan; how long"),
    ("6.1", stub, "how long are all nine"),
    ("6.2", 3, "Expected a function of gradient_of, w, epsilon, inner_lr and inner_iter, got 3"),
    ("6.2", lambda *given: uphill(*given).norm(), "Expected a jolt of w's shape, (2,), got ()"),
    ("6.2", jolted_weights, "where the weights stand"),
    ("6.2", downhill, "goes downhill"),
    ("6.2", always_at_w, "take it at w + jolt"),
    ("6.2", last_step_alone, "Only one step is left of the three"),
    ("6.2", whole_gradients, "yours is the gradient itself"),
    ("6.2", always_on_the_surface, "scale down, never up"),
    ("6.2", without_a_ball, "Radius 0.6, and your jolt has a length of 1.095"),
    ("6.2", clamped, "Expected the jolt (0.5993, 0.0300)"),
    ("6.2", lambda *given: 0.9 * uphill(*given), "Expected the jolt"),
    ("6.2", lambda *given: uphill(*given) * torch.nan, "Expected the jolt"),
    ("6.3", 3, "the step holds the jolt fixed"),
    ("6.3", 0.5, "That is for one step uphill"),
    ("6.3", 6, "with the 2 on its side"),
    ("6.3", 0, "Got 0; compare"),
    ("6.3", "half", "Got 'half'; compare"),
    ("6.3", stub, "compare the change"),
    ("6.4", CROSSING**2, "This is epsilon squared"),
    ("6.4", CROSSING / math.sqrt(2), "a factor 2 is missing"),
    ("6.4", 0.3, "At 0.3 the flat well"),
    ("6.4", 0.1, "At 0.1 the sharp well"),
    ("6.4", -1, "between 0 and 1"),
    ("6.4", float("nan"), "Got nan; it is a radius"),
    ("6.4", "wide", "Got 'wide'; it is a radius"),
    ("6.4", stub, "it is a radius"),
]


@pytest.mark.parametrize("exercise", ["6.2"])
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


def test_beyond_the_crossing_the_flat_well_is_lower_everywhere_in_the_ball():
    """By brute force: the highest loss over a grid in the ball around each bottom."""
    for epsilon, lower in ((CROSSING - 0.01, "sharp"), (CROSSING + 0.01, "flat")):
        offsets = torch.linspace(-epsilon, epsilon, 2001)
        worst = {
            name: (-depth * torch.exp(-offsets.square() / (2 * width**2))).max().item()
            for name, depth, width in (("sharp", 1.2, 0.3), ("flat", 1.0, 0.9))
        }
        assert min(worst, key=worst.get) == lower


def test_three_steps_uphill_are_a_penalty_of_three_halves():
    """By AMP itself and finite differences, on a loss that is not quadratic."""
    w, h, rate = torch.tensor([0.4, -0.3], dtype=torch.float64), 1e-5, 1e-5

    def loss_at(at):
        return (at[0] * 1.3).sin() * at[1].exp() + at[1] ** 4

    gradient = torch.func.grad(loss_at)
    weight = nn.Parameter(w.clone())

    def closure():
        loss = loss_at(weight)
        loss.backward()
        return loss

    AMP(torch.optim.SGD([weight], lr=1.0), epsilon=1.0, inner_lr=rate, inner_iter=3).step(closure)
    change = w - weight.detach() - gradient(w)
    sides = [h * side for side in torch.eye(2, dtype=torch.float64)]
    squares = [gradient(w + side).square().sum() - gradient(w - side).square().sum() for side in sides]
    of_square = torch.stack(squares) / (2 * h)
    torch.testing.assert_close(change / rate, 1.5 * of_square, rtol=1e-3, atol=0)


@pytest.mark.parametrize(("exercise", "answer"), [*RIGHT_ANSWERS, *(it[:2] for it in WRONG_ANSWERS)])
def test_grading_leaves_the_global_generator_alone(exercise, answer):
    before = torch.get_rng_state()
    grade(exercise, answer)
    assert torch.equal(torch.get_rng_state(), before)
