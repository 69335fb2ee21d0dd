"""Graders of lesson 05: a norm, a power iteration, a return into a ball, a Lipschitz bound.

None of them uses the package's own iterations: the norms come from dense decompositions.

Lesson: notebooks/05_spectral.ipynb
"""

from collections.abc import Callable

import torch
from torch import Tensor

from gaussreg_lab.verdicts import RIGHT, WRONG, Verdict, number


def _edge(answer: object) -> Verdict:
    """5.1: what the norm of the kernel of edges tends to on ever larger images."""
    value = number(answer)
    if abs(value - 8) < 1e-6:
        return Verdict(
            RIGHT, "Upright stripes, two pixels dark and two light, come out eight times as strong."
        )
    if abs(value - 12**0.5) < 0.01:
        return Verdict(WRONG, "This is the norm of the flattened kernel. What happens to upright stripes?")
    if 7.5 < value < 8:
        return Verdict(WRONG, "Near, for an image of that size. What is the limit for ever larger ones?")
    return Verdict(WRONG, f"Got {answer!r}; put upright stripes through the kernel.")


def _power_iteration(answer: Callable[[Callable, Callable, Tensor, int], Tensor]) -> Verdict:
    """5.2: a function (forward, adjoint, start, steps) -> the largest singular value."""
    if not callable(answer):
        return Verdict(WRONG, f"Expected a function of forward, adjoint, start and steps, got {answer!r}.")
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    start = torch.randn(4, generator=generator, dtype=torch.float64)
    got = torch.as_tensor(answer(lambda u: matrix @ u, lambda v: matrix.mT @ v, start, 200)).double()
    true = torch.linalg.svdvals(matrix)[0]
    if got.dim() != 0:
        return Verdict(WRONG, f"Expected one number, got shape {tuple(got.shape)}.")
    if torch.isclose(got, true, rtol=1e-8):
        return Verdict(RIGHT, "It agrees with a dense singular value decomposition.")
    if torch.isclose(got, true**2, rtol=1e-8):
        return Verdict(WRONG, "This is the square: A'A stretches by s^2, A by s.")
    if torch.isclose(got, (matrix @ start).norm() / start.norm(), rtol=1e-8):
        return Verdict(WRONG, "This is the start's own gain: the direction has not been turned.")
    if not got.isfinite() or got > 1e3:
        return Verdict(WRONG, "It runs away: bring the direction back to length 1 in each step.")
    return Verdict(WRONG, f"For a random 6x4 matrix expected {true:.6f}, got {got:.6f}.")


def _back_into_ball(answer: Callable[[Tensor, float], Tensor]) -> Verdict:
    """5.3: a function (jolts, radius) -> jolts, each image's scaled to the radius if it is longer."""
    if not callable(answer):
        return Verdict(WRONG, f"Expected a function of jolts and radius, got {answer!r}.")
    jolts = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]]).double().reshape(3, 1, 1, 2)
    true = torch.tensor([[1.2, 1.6], [0.3, 0.4], [0.0, 0.0]]).double().reshape(3, 1, 1, 2)
    got = torch.as_tensor(answer(jolts.clone(), 2.0)).double()  # radius 1 would not tell whether it is used
    if got.shape != true.shape:
        return Verdict(
            WRONG, f"Expected jolts of the shape that came, {tuple(true.shape)}, got {tuple(got.shape)}."
        )
    if torch.allclose(got, true):
        return Verdict(RIGHT, "Long jolts end on the ball's surface, short ones stay where they are.")
    if got.isnan().any():
        return Verdict(WRONG, "An image that is not jolted at all has length 0: do not divide by it.")
    if torch.allclose(got[1], torch.tensor([1.2, 1.6]).double()):
        return Verdict(
            WRONG, "The second jolt lies inside the ball and has to stay there: scale down, never up."
        )
    if torch.allclose(got, jolts.clamp(-2, 2)):
        return Verdict(WRONG, "This clamps pixels, the ball of the largest change; here lengths count.")
    if torch.allclose(got, 2 * jolts / jolts.norm()):
        return Verdict(WRONG, "You have taken one length for the whole batch: each image has its own.")
    return Verdict(
        WRONG, f"The jolt (3, 4) and radius 2 should give (1.2, 1.6), got {got[0].flatten().tolist()}."
    )


def _lipschitz(answer: object) -> Verdict:
    """5.4: the Lipschitz bound of Normalize(std 0.5) and three layers capped at 1.5, with ReLUs between."""
    value = number(answer)
    if abs(value - 6.75) < 1e-6:
        return Verdict(RIGHT, "2 for the division by 0.5, 1.5 for each of three layers, 1 for each ReLU.")
    if abs(value - 1.5**3) < 1e-6:
        return Verdict(WRONG, "The first layer divides by 0.5: that doubles every distance.")
    if abs(value - 0.5 * 1.5**3) < 1e-6:
        return Verdict(WRONG, "Dividing by 0.5 doubles distances, it does not halve them.")
    if abs(value - 6.5) < 1e-6 or abs(value - 4.5) < 1e-6:
        return Verdict(WRONG, "Gains in a row multiply, they do not add up.")
    return Verdict(WRONG, f"Got {answer!r}; multiply what each of the layers can do at most.")


SPECTRAL = {"5.1": _edge, "5.2": _power_iteration, "5.3": _back_into_ball, "5.4": _lipschitz}
