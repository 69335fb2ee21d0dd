"""Graders of lesson 07: a paired difference, a method of one's own, equal work, the winner's luck.

None of them uses the package's own averages or tables: variances come from differences of pairs, the expected
maximum from numerical integration.

Lesson: notebooks/07_robustness.ipynb
"""

import math
from collections.abc import Callable
from itertools import combinations

import torch
from torch import Tensor, nn

from gaussreg_lab.methods import Method
from gaussreg_lab.perturbation import AMP
from gaussreg_lab.quadrature import expectation
from gaussreg_lab.verdicts import RIGHT, WRONG, Verdict, number

FIRST = (0.93, 0.96, 0.91, 0.97)  # the same seeds are hard for both methods
SECOND = (0.91, 0.95, 0.88, 0.96)
PASSES = 300 * (1 + 5 * 3 + 3) / 3  # forward 1, backward 2: own prediction, five gradients, the step itself


def _paired_difference(answer: Callable[[Tensor, Tensor], tuple[float, float]]) -> Verdict:
    """7.1: a function (first, second) -> (mean difference, its standard error), seed by seed."""
    if not callable(answer):
        return Verdict(WRONG, f"Expected a function of two tensors of accuracies, got {answer!r}.")
    first, second = (torch.tensor(it, dtype=torch.float64) for it in (FIRST, SECOND))
    got = answer(first, second)
    if torch.as_tensor(got).shape != (2,):
        return Verdict(WRONG, f"Expected two numbers, mean and standard error, got {got!r}.")
    mean, error = number(got[0]), number(got[1])
    differences = [a - b for a, b in zip(FIRST, SECOND, strict=True)]
    true = sum(differences) / len(differences)
    count, variance = len(differences), _variance(differences)
    if abs(mean + true) < 1e-9:
        return Verdict(WRONG, "The sign is turned: positive means that the first method is ahead.")
    if abs(mean - true) > 1e-9:
        return Verdict(WRONG, f"For these four seeds the mean difference is {true:.4f}, got {mean:.4f}.")
    if abs(error - math.sqrt(variance / count)) < 1e-9:
        return Verdict(RIGHT, "What a seed does to both methods has dropped out of the difference.")
    unpaired = math.sqrt((_variance(FIRST) + _variance(SECOND)) / count)
    for mistaken, sentence in (
        (unpaired, "This is the error for independent runs: here a seed is the same for both, take pairs."),
        (math.sqrt(variance), "This is the spread of one difference: the mean of four is four times surer."),
        (math.sqrt(variance * (count - 1)) / count, "Divide the squares by 3, not by 4: the mean is theirs."),
        (variance / count, "This is the square of the standard error."),
    ):
        if abs(error - mistaken) < 1e-9:
            return Verdict(WRONG, sentence)
    return Verdict(
        WRONG, f"The mean is right; the error is {math.sqrt(variance / count):.5f}, got {error:.5f}."
    )


def _variance(values: tuple | list) -> float:
    """From all pairs, without the mean."""
    squares = sum((a - b) ** 2 for a, b in combinations(values, 2))
    return squares / (len(values) * (len(values) - 1))


def _three_sockets(answer: object) -> Verdict:
    """7.2: a Method with fresh noise 0.3, AMP with epsilon 0.2 and caps at 2."""
    if not isinstance(answer, Method):
        return Verdict(WRONG, f"Expected a Method, made by together(...) or Method(...), got {answer!r}.")
    if answer.cap != 2:
        return Verdict(WRONG, f"The caps: expected 2, got {answer.cap:g}.")
    optimizer = answer.optimizer([nn.Parameter(torch.ones(2))], 0.01)
    if not isinstance(optimizer, AMP):
        return Verdict(WRONG, f"The optimizer: expected AMP, got {type(optimizer).__name__}.")
    epsilon, rate = optimizer.param_groups[0]["epsilon"], optimizer.param_groups[0]["lr"]
    if abs(epsilon - 0.2) > 1e-9 or abs(rate - 0.01) > 1e-9:
        return Verdict(
            WRONG, f"AMP: expected epsilon 0.2 and the rate that is given, got {epsilon} and {rate}."
        )
    x, y = torch.linspace(0, 1, 12).reshape(4, 3), torch.tensor([0, 1, 2, 0])
    got = answer.loss(torch.Generator().manual_seed(5))(nn.Flatten(), x, y)
    draw = torch.randn(x.shape, generator=torch.Generator().manual_seed(5))
    log_chances = (x + 0.3 * draw).log_softmax(dim=1)
    if torch.isclose(got, -log_chances[range(4), y].mean(), rtol=1e-5):
        return Verdict(RIGHT, "Three sockets, filled without one part knowing of another.")
    if torch.isclose(got, -x.log_softmax(dim=1)[range(4), y].mean(), rtol=1e-5):
        return Verdict(WRONG, "The loss is still the plain one.")
    return Verdict(WRONG, "The loss: expected the cross entropy of images with fresh noise of sigma 0.3.")


def _equal_work(answer: object) -> Verdict:
    """7.3: how many plain steps are as much work as 300 steps of PGM training, by counting passes."""
    value = number(answer)
    if abs(value - PASSES) < 0.5:
        return Verdict(
            RIGHT, "19 units against 3: a look for the label, five gradients, and the step itself."
        )
    for mistaken, sentence in (
        (300 * 6, "Nearly: the attack first has to look which class the network predicts."),
        (300 * 5, "After the attack comes the training step itself, and before it a look for the label."),
        (300 * 16 / 3, "The attacked images still have to be trained on: one pass forward, one back."),
        (300 * 3 / 19, "The other way round: a plain step is the cheaper one."),
        (300, "That would be equal steps."),
    ):
        if abs(value - mistaken) < 0.5:
            return Verdict(WRONG, sentence)
    return Verdict(WRONG, f"Got {answer!r}; count units: forward 1, backward 2, for both kinds of step.")


def _winners_luck(answer: object) -> Verdict:
    """7.4: by how many standard errors the best of 16 equally good methods seems better than it is."""
    value = number(answer)
    true = expectation(_largest_of(16), 0.0, 1.0).item()
    if abs(value - true) < 0.06:
        return Verdict(RIGHT, "Nearly two standard errors, for nothing. Judge the winner with new seeds.")
    if abs(value) < 0.06:
        return Verdict(WRONG, "Each alone is right on average; but you look at the one that came out best.")
    if abs(value - 2 * true) < 0.12:
        return Verdict(
            WRONG, "This is the way from the worst to the best; asked is from the truth to the best."
        )
    if abs(value - expectation(_largest_of(2), 0.0, 1.0).item()) < 0.06:
        return Verdict(WRONG, "That is the luck of the better one of two.")
    return Verdict(WRONG, f"Got {answer!r}; draw 16 numbers, keep the largest, repeat, take the mean.")


def _largest_of(count: int) -> Callable[[Tensor], Tensor]:
    """z times the density of the largest of `count` draws, over that of one."""
    return lambda z: count * z * torch.special.ndtr(z) ** (count - 1)


ROBUSTNESS = {
    "7.1": _paired_difference,
    "7.2": _three_sockets,
    "7.3": _equal_work,
    "7.4": _winners_luck,
}
