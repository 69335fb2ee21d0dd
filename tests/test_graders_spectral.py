"""The exercises of lesson 05: right, and wrong in the ways that students are wrong."""

import pytest
import torch
from torch import nn

from gaussreg_lab.exercises import grade
from gaussreg_lab.spectral import operator_norm
from gaussreg_lab.verdicts import NOT_ATTEMPTED, RIGHT, WRONG


def direction(forward, adjoint, start, steps, unit=True):
    for _ in range(steps):
        start = adjoint(forward(start))
        if unit:
            start = start / start.norm()
    return start


def power_iteration(forward, adjoint, start, steps):
    return forward(direction(forward, adjoint, start, steps)).norm()


def by_both_sides(forward, adjoint, start, steps):
    u = start / start.norm()
    for _ in range(steps):
        v = nn.functional.normalize(forward(u), dim=0)
        u = nn.functional.normalize(adjoint(v), dim=0)
    return (v @ forward(u)).item()


def by_rayleigh_quotient(forward, adjoint, start, steps):
    u = direction(forward, adjoint, start, steps)
    return (u @ adjoint(forward(u))).sqrt()


def dense(forward, adjoint, start, steps):
    return torch.linalg.matrix_norm(torch.func.jacrev(forward)(start), ord=2)


def unturned(forward, adjoint, start, steps):
    return forward(start / start.norm()).norm()


def lengths(jolts):
    return jolts.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)


def into_ball(jolts, radius):
    return jolts * (radius / lengths(jolts).clamp(min=1e-12)).clamp(max=1)


def where_longer(jolts, radius):
    return torch.where(lengths(jolts) > radius, radius * jolts / lengths(jolts), jolts)


def in_place(jolts, radius):
    for jolt in jolts:
        if jolt.norm() > radius:
            jolt *= radius / jolt.norm()
    return jolts


def edge_norm(size):
    edge = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    edge.weight = nn.Parameter(torch.tensor([[[[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]]]))
    return operator_norm(edge, (size, size))


def stub(*_):
    raise NotImplementedError


RIGHT_ANSWERS = [
    ("5.1", 8),
    ("5.1", torch.tensor([[1.0, 1], [2, 2], [1, 1]]).sum()),
    ("5.1", "8"),
    ("5.2", power_iteration),
    ("5.2", by_both_sides),
    ("5.2", by_rayleigh_quotient),
    ("5.2", dense),
    ("5.3", into_ball),
    ("5.3", where_longer),
    ("5.3", in_place),
    ("5.3", lambda jolts, radius: jolts.renorm(2, 0, radius)),
    ("5.3", lambda jolts, radius: jolts / (lengths(jolts) / radius).clamp(min=1)),
    ("5.3", lambda jolts, radius: into_ball(jolts, radius).float()),
    ("5.4", 6.75),
    ("5.4", torch.tensor([2.0, 1.5, 1, 1.5, 1, 1.5]).prod()),
]
WRONG_ANSWERS = [
    ("5.1", 3.464, "norm of the flattened kernel"),
    ("5.1", edge_norm(28), "Near, for an image of that size"),
    ("5.1", 7, "Got 7; put upright stripes"),
    ("5.1", "much", "Got 'much'; put upright stripes"),
    ("5.1", float("nan"), "Got nan; put upright stripes"),
    ("5.1", stub, "put upright stripes"),
    ("5.2", 3, "Expected a function of forward, adjoint, start and steps, got 3"),
    ("5.2", direction, "Expected one number, got shape (4,)"),
    ("5.2", lambda *given: power_iteration(*given) ** 2, "This is the square"),
    ("5.2", unturned, "start's own gain"),
    ("5.2", lambda *given: given[0](direction(*given, unit=False)).norm(), "It runs away"),
    ("5.2", lambda *given: torch.inf, "It runs away"),
    ("5.2", lambda *given: torch.nan, "It runs away"),
    ("5.2", lambda *given: power_iteration(*given[:3], steps=1), "expected 3.713643, got 3.492686"),
    ("5.2", lambda *given: 3, "expected 3.713643, got 3.000000"),
    ("5.3", 3, "Expected a function of jolts and radius, got 3"),
    ("5.3", lambda jolts, radius: into_ball(jolts, radius).flatten(1), "(3, 1, 1, 2), got (3, 2)"),
    ("5.3", lambda jolts, radius: radius * jolts / lengths(jolts), "do not divide by it"),
    ("5.3", lambda jolts, radius: jolts * torch.nan, "do not divide by it"),
    ("5.3", lambda jolts, radius: radius * jolts / lengths(jolts).clamp(min=1e-12), "scale down, never up"),
    ("5.3", lambda jolts, radius: jolts.clamp(-radius, radius), "clamps pixels"),
    ("5.3", lambda jolts, radius: jolts.clamp_(-radius, radius), "clamps pixels"),
    ("5.3", lambda jolts, radius: radius * jolts / jolts.norm(), "one length for the whole batch"),
    ("5.3", lambda jolts, radius: jolts.mul_(radius / jolts.norm()), "one length for the whole batch"),
    ("5.3", lambda jolts, radius: jolts, "radius 2 should give (1.2, 1.6), got [3.0, 4.0]"),
    ("5.3", lambda jolts, radius: jolts.long(), "radius 2 should give (1.2, 1.6), got [3.0, 4.0]"),
    ("5.3", lambda jolts, radius: jolts / lengths(jolts).clamp(min=radius), "radius 2 should give"),
    ("5.3", lambda jolts, radius: into_ball(jolts, 1.0), "radius 2 should give"),
    ("5.4", 1.5**3, "doubles every distance"),
    ("5.4", 0.5 * 1.5**3, "does not halve them"),
    ("5.4", 2 + 3 * 1.5, "multiply, they do not add up"),
    ("5.4", 3 * 1.5, "multiply, they do not add up"),
    ("5.4", 7, "Got 7; multiply what each"),
    ("5.4", "much", "Got 'much'; multiply what each"),
    ("5.4", float("nan"), "Got nan; multiply what each"),
    ("5.4", stub, "multiply what each"),
]


@pytest.mark.parametrize("exercise", ["5.2", "5.3"])
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


def test_the_limit_is_near_on_a_large_image():
    assert 7 < edge_norm(8) < edge_norm(28) < 8


@pytest.mark.parametrize(("exercise", "answer"), [*RIGHT_ANSWERS, *(it[:2] for it in WRONG_ANSWERS)])
def test_grading_leaves_the_global_generator_alone(exercise, answer):
    before = torch.get_rng_state()
    grade(exercise, answer)
    assert torch.equal(torch.get_rng_state(), before)
