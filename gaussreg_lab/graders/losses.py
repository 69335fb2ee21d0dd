"""Graders of lesson 03: the mean loss, its second order, and a random direction.

None of them uses the formula that the lesson teaches: they integrate, differentiate, or take the
answer apart.

Lesson: notebooks/03_losses.ipynb
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from gaussreg_lab.quadrature import expectation
from gaussreg_lab.verdicts import RIGHT, WRONG, Verdict, number


def _mean_loss(answer: object) -> Verdict:
    """3.1: E[log(1 + exp(-d))] for d ~ N(2, 2^2)."""
    value = number(answer)
    true = expectation(lambda d: torch.nn.functional.softplus(-d), 2.0, 4.0).item()
    if abs(value - true) < 1e-3:
        return Verdict(RIGHT, "Nearly three times the loss at the mean lead: the rare losses are dear.")
    if abs(value - math.log1p(math.exp(-2))) < 1e-3:
        return Verdict(WRONG, "This is the loss of the mean lead, Jensen's lower bound.")
    if abs(value - expectation(lambda d: torch.nn.functional.softplus(-d), 2.0, 2.0).item()) < 1e-3:
        return Verdict(WRONG, "This is the answer for variance 2: expectation takes the variance, here 2^2.")
    if abs(value - expectation(torch.nn.functional.softplus, 2.0, 4.0).item()) < 1e-3:
        return Verdict(WRONG, "The sign: a large lead d makes the loss small, so it is softplus(-d).")
    return Verdict(WRONG, f"Got {answer!r}; integrate softplus(-d) against the density of d.")


def _second_order(answer: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Verdict:
    """3.2: a function (mean, cov, y) -> CE(mean, y) + trace(cov H) / 2, with H from differentiation."""
    if not callable(answer):
        return Verdict(WRONG, f"Expected a function of mean, cov and y, got {answer!r}.")
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    factor = torch.randn(4, 3, 3, generator=generator, dtype=torch.float64)
    cov, y = factor @ factor.mT, torch.tensor([0, 2, 1, 1])
    plain = torch.nn.functional.cross_entropy(mean, y, reduction="none")
    traces = torch.stack([_traced(*each) for each in zip(mean, cov, y, strict=True)])
    got = torch.as_tensor(answer(mean, cov, y))
    if got.shape != plain.shape:
        return Verdict(WRONG, f"Expected one number for each image, shape (4,), got {tuple(got.shape)}.")
    variances_only = (mean.softmax(dim=1) * cov.diagonal(dim1=1, dim2=2)).sum(dim=1)
    for mistaken, sentence in (
        (plain, "This is the loss of the mean: the trace is missing."),
        (plain + traces, "Nearly: the trace counts half."),
        (plain + variances_only / 2, "The second half of the trace, - p' C p, is missing."),
        (plain - traces / 2, "The sign: spread makes the mean loss larger."),
    ):
        if torch.allclose(got.double(), mistaken, atol=1e-8):
            return Verdict(WRONG, sentence)
    if torch.allclose(got.double(), plain + traces / 2, atol=1e-6):
        return Verdict(RIGHT, "Your numbers agree with a Hessian by automatic differentiation.")
    return Verdict(WRONG, f"For the first image expected {plain[0] + traces[0] / 2:.4f}, got {got[0]:.4f}.")


def _traced(mean: Tensor, cov: Tensor, y: Tensor) -> Tensor:
    hessian = torch.autograd.functional.hessian(lambda z: torch.nn.functional.cross_entropy(z, y), mean)
    return (cov * hessian).sum()


def _direction(answer: Callable[[Tensor, Tensor], Tensor]) -> Verdict:
    """3.3: a function (p, epsilon) -> r, linear in epsilon, with E[r r'] = diag(p) - p p'."""
    if not callable(answer):
        return Verdict(WRONG, f"Expected a function of p and epsilon, got {answer!r}.")
    p = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    columns = [torch.as_tensor(answer(p, column)) for column in torch.eye(3, dtype=torch.float64)]
    if any(column.shape != p.shape for column in columns):
        return Verdict(WRONG, f"Expected a vector like p, shape (3,), got {tuple(columns[0].shape)}.")
    got = sum(torch.outer(column, column) for column in columns)  # the covariance of a linear map of epsilon
    wanted = p.diag() - torch.outer(p, p)
    if torch.allclose(got, wanted, atol=1e-10):
        return Verdict(RIGHT, "Its covariance is diag(p) - p p', and its components add up to 0.")
    if torch.allclose(got, p.diag(), atol=1e-10):
        return Verdict(WRONG, "Its covariance is diag(p): what is missing is to take away p times the sum.")
    if torch.allclose(got, p.square().diag(), atol=1e-10):
        return Verdict(WRONG, "Its covariance is diag(p^2): a standard deviation is the root of p.")
    worst = (got - wanted).abs().max()
    return Verdict(WRONG, f"The covariance of r is off by {worst:.3f} in its worst entry.")


LOSSES = {"3.1": _mean_loss, "3.2": _second_order, "3.3": _direction}
