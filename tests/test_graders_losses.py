"""The exercises of lesson 03: right, and wrong in the ways that students are wrong."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from gaussreg_lab.exercises import grade
from gaussreg_lab.gaussian import Gaussian
from gaussreg_lab.logits import second_order_cross_entropy
from gaussreg_lab.verdicts import NOT_ATTEMPTED, RIGHT, WRONG


def second_order(mean, cov, y, half=0.5, together=1.0):
    p = mean.softmax(dim=1)
    trace = (p * cov.diagonal(dim1=1, dim2=2)).sum(1) - together * torch.einsum("bi,bij,bj->b", p, cov, p)
    return cross_entropy(mean, y, reduction="none") + half * trace


def direction(p, epsilon, root=0.5, take_away=1.0):
    u = p**root * epsilon
    return u - take_away * p * u.sum(dim=-1, keepdim=True)


def by_eigenvalues(p, epsilon):
    values, vectors = torch.linalg.eigh(p.diag() - torch.outer(p, p))
    return vectors @ (values.clamp(min=0).sqrt() * epsilon)


def stub(*_):
    raise NotImplementedError


@pytest.mark.parametrize("exercise", ["3.2", "3.3"])
def test_a_stub_is_not_an_attempt(exercise):
    assert grade(exercise, stub).state == NOT_ATTEMPTED


@pytest.mark.parametrize(
    ("exercise", "answer"),
    [
        ("3.1", 0.3563),
        ("3.2", second_order),
        ("3.2", lambda mean, cov, y: second_order_cross_entropy(Gaussian(mean, cov=cov), y)),
        ("3.3", direction),
        (
            "3.3",
            lambda p, epsilon: (
                torch.linalg.cholesky(p.diag() - torch.outer(p, p) + 1e-14 * torch.eye(3)) @ epsilon
            ),
        ),
    ],
)
def test_right_answers_are_right(exercise, answer):
    verdict = grade(exercise, answer)
    assert verdict.state == RIGHT, verdict.sentence


@pytest.mark.parametrize(
    ("exercise", "answer", "hint"),
    [
        ("3.1", math.log1p(math.exp(-2)), "lower bound"),
        ("3.1", 0.2412, "variance 2"),
        ("3.1", 2.3563, "sign"),
        ("3.1", "much", "integrate"),
        ("3.2", lambda mean, cov, y: second_order(mean, cov, y, half=0), "trace is missing"),
        ("3.2", lambda mean, cov, y: second_order(mean, cov, y, half=1), "counts half"),
        ("3.2", lambda mean, cov, y: second_order(mean, cov, y, together=0), "second half"),
        ("3.2", lambda mean, cov, y: second_order(mean, cov, y, half=-0.5), "sign"),
        ("3.2", lambda mean, cov, y: second_order(mean, cov, y).mean(), "one number for each image"),
        ("3.2", lambda mean, cov, y: second_order(mean, cov, y) + 1, "For the first image expected"),
        ("3.2", 3, "Expected a function"),
        ("3.3", lambda p, epsilon: direction(p, epsilon, take_away=0), "take away p times"),
        ("3.3", lambda p, epsilon: direction(p, epsilon, root=1, take_away=0), "root of p"),
        ("3.3", lambda p, epsilon: epsilon, "off by"),
        ("3.3", lambda p, epsilon: epsilon.sum(), "a vector like p"),
        ("3.3", 3, "Expected a function"),
    ],
)
def test_wrong_answers_are_told_in_which_way(exercise, answer, hint):
    verdict = grade(exercise, answer)
    assert verdict.state == WRONG
    assert hint in verdict.sentence
