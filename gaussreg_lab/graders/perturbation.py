"""Graders of lesson 06: equal balls, a way uphill, the penalty that a step follows, which well is lower.

The way uphill is judged on quadratic losses, where it is a power of a matrix; the wells by bisection.

Lesson: notebooks/06_perturbation.ipynb
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from gaussreg_lab.verdicts import RIGHT, WRONG, Verdict, number


def _equal_reach(answer: object) -> Verdict:
    """6.1: the radius of one ball for all, as wide as balls of 0.5 for each of nine tensors together."""
    value = number(answer)
    together = torch.full((9,), 0.5, dtype=torch.float64).norm().item()
    if abs(value - together) < 1e-6:
        return Verdict(RIGHT, "Nine jolts of 0.5, at right angles to each other, are one of 1.5.")
    if abs(value - 0.5) < 1e-6:
        return Verdict(WRONG, "That ball is a third as wide: in it all nine tensors share a length of 0.5.")
    if abs(value - 4.5) < 1e-6:
        return Verdict(WRONG, "Lengths of jolts of different weights do not add up, their squares do.")
    if abs(value - 0.5 / 3) < 1e-6:
        return Verdict(WRONG, "The right factor, on the wrong side: the nine balls together reach further.")
    return Verdict(WRONG, f"Got {answer!r}; how long are all nine jolts together, as one vector?")


def _uphill(answer: Callable[..., Tensor]) -> Verdict:
    """6.2: a function (gradient_of, w, epsilon, inner_lr, inner_iter) -> the jolt AMP ends on."""
    if not callable(answer):
        return Verdict(
            WRONG,
            f"Expected a function of gradient_of, w, epsilon, inner_lr and inner_iter, got {answer!r}.",
        )
    curved = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    w, rate = torch.tensor([1.0, -0.5], dtype=torch.float64), 0.25

    def got_and_true(epsilon: float, steps: int) -> tuple[Tensor, Tensor]:
        got = torch.as_tensor(answer(lambda at: curved @ at, w.clone(), epsilon, rate, steps)).double()
        free = torch.matrix_power(torch.eye(2) + rate * curved, steps) @ w - w  # never held back
        return got, free * min(1.0, epsilon / free.norm().item())

    # wide: no step leaves the ball; narrow: the first step stays inside, the second does not
    cases = {name: got_and_true(*given) for name, given in {"wide": (100.0, 3), "narrow": (0.6, 2)}.items()}
    if any(got.shape != w.shape for got, _ in cases.values()):
        return Verdict(WRONG, f"Expected a jolt of w's shape, {tuple(w.shape)}, got {_shapes(cases)}.")
    if all(torch.allclose(got, true, rtol=1e-6, atol=1e-9) for got, true in cases.values()):
        return Verdict(RIGHT, "On a quadratic loss it agrees with a power of a matrix.")
    got, true = cases["wide"]
    for mistaken, sentence in (
        (w + true, "This is where the weights stand; the jolt is how far they have been moved."),
        (
            torch.matrix_power(torch.eye(2) - rate * curved, 3) @ w - w,
            "This goes downhill: the jolt shall raise the loss.",
        ),
        (3 * rate * curved @ w, "You take each step along the gradient at w; take it at w + jolt."),
        (rate * curved @ w, "Only one step is left of the three: add each to the jolt so far."),
        (
            torch.matrix_power(torch.eye(2) + curved, 3) @ w - w,
            "Each step is inner_lr times the gradient; yours is the gradient itself.",
        ),
    ):
        if torch.allclose(got, mistaken, rtol=1e-5):
            return Verdict(WRONG, sentence)
    if math.isclose(got.norm().item(), 100.0, rel_tol=1e-5):
        return Verdict(WRONG, "A jolt that is inside the ball has to stay as it is: scale down, never up.")
    got, true = cases["narrow"]
    if got.norm() > 0.6 * (1 + 1e-6):
        return Verdict(
            WRONG, f"Radius 0.6, and your jolt has a length of {got.norm():.3f}: bring it back into the ball."
        )
    return Verdict(
        WRONG, f"Expected the jolt ({true[0]:.4f}, {true[1]:.4f}) in a ball of 0.6, got {got.tolist()}."
    )


def _shapes(cases: dict[str, tuple[Tensor, Tensor]]) -> tuple[int, ...]:
    return next(tuple(got.shape) for got, true in cases.values() if got.shape != true.shape)


def _penalty(answer: object) -> Verdict:
    """6.3: three steps uphill inside the ball: the c of the penalty c rate |gradient|^2 that is followed."""
    # on w'Aw / 2 the gradient at the jolted weights is A (I + rate A)^3 w, that of |gradient|^2 is 2 AA w
    curved, rate = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64), 1e-5
    extra = curved @ torch.matrix_power(torch.eye(2) + rate * curved, 3) - curved
    share = (extra.norm() / (2 * rate * curved @ curved).norm()).item()
    value = number(answer)
    if abs(value - share) < 1e-3:
        return Verdict(RIGHT, "Three times the jolt of one step, and the step feels half of the rise.")
    if abs(value - 3) < 1e-6:
        return Verdict(WRONG, "So much does the loss rise; the step holds the jolt fixed and feels less.")
    if abs(value - 0.5) < 1e-6:
        return Verdict(WRONG, "That is for one step uphill. How long is the jolt after three?")
    if abs(value - 6) < 1e-6:
        return Verdict(WRONG, "The gradient of |g|^2 is 2 H g, with the 2 on its side: divide by it.")
    return Verdict(WRONG, f"Got {answer!r}; compare the change of the gradient with the gradient of |g|^2.")


def _crossing(answer: object) -> Verdict:
    """6.4: from which epsilon a well of depth 1 and width 0.9 beats one of depth 1.2 and width 0.3."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        sharp, flat = (_seen(depth, width, middle) for depth, width in ((1.2, 0.3), (1.0, 0.9)))
        low, high = (middle, high) if sharp > flat else (low, middle)
    value = number(answer)
    if abs(value - low) < 1e-3:
        return Verdict(RIGHT, "A ball of less than a fifth is enough to turn the order of the two round.")
    if abs(value - low**2) < 1e-3:
        return Verdict(WRONG, "This is epsilon squared.")
    if abs(value - low / math.sqrt(2)) < 1e-3:
        return Verdict(WRONG, "The exponent is epsilon^2 / (2 s^2): a factor 2 is missing.")
    if not 0 < value < 1:
        return Verdict(WRONG, f"Got {answer!r}; it is a radius between 0 and 1.")
    which = "flat" if value > low else "sharp"
    return Verdict(WRONG, f"At {value:g} the {which} well is clearly the lower one for AMP.")


def _seen(depth: float, width: float, epsilon: float) -> float:
    """How deep the well still is at its rim, a distance of epsilon from its bottom."""
    bell = torch.distributions.Normal(0.0, width)
    rim, bottom = (bell.log_prob(torch.tensor(at, dtype=torch.float64)).item() for at in (epsilon, 0.0))
    return depth * math.exp(rim - bottom)


PERTURBATION = {"6.1": _equal_reach, "6.2": _uphill, "6.3": _penalty, "6.4": _crossing}
"""The judges of the exercises, lesson by lesson. None of them uses the formula that its lesson teaches."""
