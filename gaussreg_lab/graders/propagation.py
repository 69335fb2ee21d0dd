"""Graders of lesson 02: a sum of correlated inputs, a mean of independent ones, a residual sum.

None of them uses the formula that the lesson teaches: they build the matrix, or integrate.

Lesson: notebooks/02_propagation.ipynb
"""

from collections.abc import Callable

import torch
from torch import Tensor

from gaussreg_lab.quadrature import expectation
from gaussreg_lab.verdicts import RIGHT, WRONG, Verdict, number


def _ratio_of_stds(answer: object) -> Verdict:
    """2.1: std of a sum of 16 inputs with correlation 0.5, over that of independent ones."""
    value = number(answer)
    cov = torch.full((16, 16), 0.5, dtype=torch.float64).fill_diagonal_(1.0)
    true = (cov.sum() / cov.trace()).sqrt().item()
    if abs(value - true) < 5e-3:
        return Verdict(RIGHT, "And that is one layer. The next one sums such sums.")
    if abs(value - true**2) < 5e-2:
        return Verdict(WRONG, "This is the ratio of the variances; a standard deviation is the root.")
    if abs(value * true - 1) < 5e-3:
        return Verdict(WRONG, "Upside down: the true one over the independent one.")
    if abs(value - ((16 + 16 * 15 / 2 * 0.5) / 16) ** 0.5) < 5e-3:
        return Verdict(WRONG, "Each pair stands twice in the covariance matrix.")
    return Verdict(WRONG, f"Got {answer!r}; sum all entries of the 16 by 16 covariance matrix.")


def _pooled_variance(answer: Callable[[Tensor, int], Tensor]) -> Verdict:
    """2.2: a function (var, size) -> variance behind an average pooling, by its matrix."""
    if not callable(answer):
        return Verdict(WRONG, f"Expected a function of var and size, got {answer!r}.")
    size, side = 3, 6
    var = torch.rand(2, 1, side, side, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    eye = torch.eye(side * side, dtype=torch.float64).view(-1, 1, side, side)
    matrix = torch.nn.functional.avg_pool2d(eye, size).flatten(1).T
    true = (var.flatten(1) @ matrix.square().T).view(2, 1, side // size, side // size)
    got = torch.as_tensor(answer(var, size))
    if got.shape != true.shape:
        return Verdict(WRONG, f"Expected images of shape {tuple(true.shape)}, got {tuple(got.shape)}.")
    for factor, sentence in (
        (size**2, "This is the mean of the variances: the weights 1/k have to be squared."),
        (size, "You have divided by the side of the window; it has size * size cells."),
        (size**4, "This is the sum of the variances: each weight is 1/k, its square 1/k^2."),
        (size**2 / side**2, "You have divided by the size of the image, not of the window."),
    ):
        if torch.allclose(got.double(), true * factor, rtol=1e-6):
            return Verdict(WRONG, sentence)
    if torch.allclose(got.double(), true, rtol=1e-6):
        return Verdict(RIGHT, "Averaging nine independent cells leaves a ninth of the variance.")
    return Verdict(WRONG, f"Expected {true[0, 0, 0, 0]:.4f} for the first window, got {got[0, 0, 0, 0]:.4f}.")


def _residual_variance(answer: Callable[[Tensor, Tensor], Tensor]) -> Verdict:
    """2.3: a function (mean, var) -> Var[x + relu(x)], by integration."""
    if not callable(answer):
        return Verdict(WRONG, f"Expected a function of mean and var, got {answer!r}.")
    means, var = torch.tensor([-1.0, 0.0, 0.7], dtype=torch.float64), torch.tensor(2.0, dtype=torch.float64)
    true = torch.stack([_variance(lambda z: z + z.relu(), mean, var) for mean in means])
    of_relu = torch.stack([_variance(torch.relu, mean, var) for mean in means])
    got = torch.as_tensor(answer(means, var))
    if got.shape != true.shape:
        return Verdict(WRONG, f"Expected one number for each mean, shape (3,), got {tuple(got.shape)}.")
    covariance = (true - var - of_relu) / 2
    for mistaken, sentence in (
        (var + of_relu, "These are the two variances: x and relu(x) rise together, so 2 Cov is missing."),
        (var + of_relu + covariance, "The covariance counts twice."),
        (of_relu + 2 * covariance, "The variance of x itself is missing."),
    ):
        if torch.allclose(got.double(), mistaken, atol=1e-6):
            return Verdict(WRONG, sentence)
    if torch.allclose(got.double(), true, atol=1e-6):
        return Verdict(RIGHT, "Your numbers agree with numerical integration at three means.")
    return Verdict(WRONG, f"At mean -1, var 2 the integral gives {true[0]:.4f}, your function {got[0]:.4f}.")


def _variance(function: Callable[[Tensor], Tensor], mean: Tensor, var: Tensor) -> Tensor:
    centre = expectation(function, mean, var)
    return expectation(lambda z: (function(z) - centre).square(), mean, var)


PROPAGATION = {"2.1": _ratio_of_stds, "2.2": _pooled_variance, "2.3": _residual_variance}
