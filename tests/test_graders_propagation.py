"""The exercises of lesson 02: right, and wrong in the ways that students are wrong."""

import pytest
import torch
from torch.nn.functional import avg_pool2d

from gaussreg_lab.exercises import grade
from gaussreg_lab.gaussian import relu_var
from gaussreg_lab.normal import normal_cdf
from gaussreg_lab.verdicts import NOT_ATTEMPTED, RIGHT, WRONG


def pooled(var, size, more=1.0):
    return avg_pool2d(var, size) / size**2 * more


def residual(mean, var, own=1.0, twice=2.0):
    return own * var + relu_var(mean, var) + twice * var * normal_cdf(mean / var.sqrt())


def stub(*_):
    raise NotImplementedError


@pytest.mark.parametrize("exercise", ["2.2", "2.3"])
def test_a_stub_is_not_an_attempt(exercise):
    assert grade(exercise, stub).state == NOT_ATTEMPTED


@pytest.mark.parametrize(
    ("exercise", "answer"), [("2.1", 8.5**0.5), ("2.1", 2.915), ("2.2", pooled), ("2.3", residual)]
)
def test_right_answers_are_right(exercise, answer):
    verdict = grade(exercise, answer)
    assert verdict.state == RIGHT, verdict.sentence


@pytest.mark.parametrize(
    ("exercise", "answer", "hint"),
    [
        ("2.1", 8.5, "ratio of the variances"),
        ("2.1", 1 / 8.5**0.5, "Upside down"),
        ("2.1", 4.75**0.5, "stands twice"),
        ("2.1", "big", "sum all entries"),
        ("2.2", lambda var, size: avg_pool2d(var, size), "have to be squared"),
        ("2.2", lambda var, size: avg_pool2d(var, size) / size, "side of the window"),
        ("2.2", lambda var, size: avg_pool2d(var, size) * size**2, "sum of the variances"),
        ("2.2", lambda var, size: avg_pool2d(var, size) / 36, "size of the image"),
        ("2.2", lambda var, size: pooled(var, size) + 1, "for the first window"),
        ("2.2", lambda var, size: var, "Expected images of shape"),
        ("2.2", 3, "Expected a function"),
        ("2.3", lambda mean, var: residual(mean, var, twice=0), "2 Cov is missing"),
        ("2.3", lambda mean, var: residual(mean, var, twice=1), "counts twice"),
        ("2.3", lambda mean, var: residual(mean, var, own=0), "of x itself"),
        ("2.3", lambda mean, var: mean, "the integral gives"),
        ("2.3", lambda mean, var: torch.zeros(2), "one number for each mean"),
        ("2.3", 3, "Expected a function"),
    ],
)
def test_wrong_answers_are_told_in_which_way(exercise, answer, hint):
    verdict = grade(exercise, answer)
    assert verdict.state == WRONG
    assert hint in verdict.sentence
