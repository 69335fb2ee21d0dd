"""Questions before, exercises after: `predict` asks for a guess, `check` judges an answer.

`check` never compares with the formula that a lesson teaches. It integrates numerically, so an
answer derived in another way, or written in another form, is right when its numbers are. It
says one of three things: not attempted yet, wrong in this way, right. `progress` sums up what it said.

Lesson: the exercises at the end of each; solutions in notebooks/solutions.
"""

import html
import math
import traceback
from collections.abc import Callable, Sequence

import ipywidgets as widgets
import torch
from IPython.display import display
from torch import Tensor

from gaussreg_lab.controls import live_view
from gaussreg_lab.gaussian import relu_mean
from gaussreg_lab.graders.explore import EXPLORE
from gaussreg_lab.graders.gradients import GRADIENTS
from gaussreg_lab.graders.losses import LOSSES
from gaussreg_lab.graders.perturbation import PERTURBATION
from gaussreg_lab.graders.propagation import PROPAGATION
from gaussreg_lab.graders.robustness import ROBUSTNESS
from gaussreg_lab.graders.spectral import SPECTRAL
from gaussreg_lab.quadrature import expectation
from gaussreg_lab.robustness import NoiseCurve
from gaussreg_lab.standing import account, note
from gaussreg_lab.verdicts import NOT_ATTEMPTED, RIGHT, WRONG, Verdict, number


def check(exercise: str, answer: object, *given: object) -> None:
    """Judge an answer and print the verdict. Raises ValueError for an unknown exercise.

    answer: what the exercise asks for, a number or a function; None, ... and a function that
    raises NotImplementedError count as not attempted. given: what the lesson says to pass along.

    >>> check("1.1", ...)
    Exercise 1.1: not attempted yet. Fill in your answer and run this cell again.
    >>> check("1.1", 0.5 / (2 * 3.14159) ** 0.5)
    Exercise 1.1: right. The lift is s / sqrt(2 pi), proportional to the noise.
    """
    verdict = grade(exercise, answer, *given)
    note(exercise, verdict.state)
    print(f"Exercise {exercise}: {verdict.state}. {verdict.sentence}")


def grade(exercise: str, answer: object, *given: object) -> Verdict:
    """`check` without the printing."""
    if exercise not in GRADERS:
        raise ValueError(f"Expected one of the exercises {sorted(GRADERS)}, got {exercise!r}")
    if answer is None or answer is ...:
        return Verdict(NOT_ATTEMPTED, "Fill in your answer and run this cell again.")
    try:
        return GRADERS[exercise](answer, *given)
    except NotImplementedError:
        return Verdict(
            NOT_ATTEMPTED, "Replace the NotImplementedError by your lines and run this cell again."
        )
    except Exception as error:
        if not callable(answer):
            raise
        return Verdict(WRONG, _as_stopped(error))


def _as_stopped(error: Exception) -> str:
    """What went wrong in a student's function, and in which of its lines: not where in ours it was called."""
    message = f"{type(error).__name__}: {error}".rstrip(".")
    ours = (__name__.partition(".")[0], "torch")
    theirs = [
        line
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_globals.get("__name__", "").partition(".")[0] not in ours
    ]
    if theirs:
        return f"Your function stopped in line {theirs[-1]} of its cell: {message}."
    if "NoneType" in message:
        return f"Your function seems to return nothing ({message}): is a return missing?"
    return f"What your function takes or returns is not what was asked for ({message})."


def progress(lesson: str | None = None) -> None:
    """Print how many exercises of a lesson `check` has found right in this kernel, and which are left.

    lesson: its two digits, say "03"; None for all lessons, a line or two each.
    Raises ValueError for a lesson that does not exist.

    >>> progress("42")
    Traceback (most recent call last):
    ...
    ValueError: Expected one of the lessons ['00', '01', ..., '08'], got '42'
    """
    lessons: dict[str, list[str]] = {}
    for exercise in GRADERS:
        lessons.setdefault(f"{int(exercise.partition('.')[0]):02d}", []).append(exercise)
    if lesson is not None and lesson not in lessons:
        raise ValueError(f"Expected one of the lessons {sorted(lessons)}, got {lesson!r}")
    for each in lessons if lesson is None else [lesson]:
        print(account(each, lessons[each]))


def predict(question: str, options: Sequence[str], answer: int, because: str) -> None:
    """Ask a question before the panel that answers it; choosing an option reveals the answer.

    options: in words; answer: the index of the right one; because: the explanation. Where no
    kernel runs the page shows question, options and a folded answer instead.
    """
    if not 0 <= answer < len(options):
        raise ValueError(f"Expected answer between 0 and {len(options) - 1}, got {answer}")
    buttons = widgets.ToggleButtons(options=list(options), value=None, style={"button_width": "auto"})
    reveal = widgets.HTML(layout=widgets.Layout(min_height="3.6em"))

    def chosen(change: dict) -> None:
        mark = "Yes." if change["new"] == options[answer] else f"No: {options[answer]}."
        reveal.value = f'<div role="status" aria-live="polite">{html.escape(f"{mark} {because}")}</div>'

    buttons.observe(chosen, names="value")
    asked = widgets.HTML(f"<b>Predict.</b> {html.escape(question)}")
    box = widgets.VBox([asked, buttons, reveal])
    listed = "".join(f"<li>{html.escape(option)}</li>" for option in options)
    folded = html.escape(f"{options[answer]}. {because}")
    display(
        {
            **live_view(box),
            "text/html": f"<p><b>Predict.</b> {html.escape(question)}</p><ul>{listed}</ul>"
            f"<details><summary>Answer</summary>{folded}</details>",
            "text/plain": f"Predict. {question} ({' / '.join(options)})",
        },
        raw=True,
    )


def _half_point(answer: object, curve: NoiseCurve) -> Verdict:
    """0.1: the smallest noise on the slider at which fewer than half of the digits are read."""
    below = curve.sigmas[curve.mean < 0.5]
    if len(below) == 0:
        return Verdict(WRONG, "This network reads half of the digits at every noise of its curve.")
    difference = number(answer) - below[0].item()
    if math.isnan(difference):
        return Verdict(WRONG, f"Expected a number, got {answer!r}.")
    if abs(difference) < 1e-6:
        return Verdict(RIGHT, "From there on the plain network is wrong more often than right.")
    side = "above" if difference > 0 else "below"
    return Verdict(WRONG, f"{answer} lies {side} the first such point of the curve.")


def _lift(answer: object) -> Verdict:
    """1.1: the mean of relu(z) for z ~ N(0, 0.5^2)."""
    true, value = expectation(torch.relu, 0.0, 0.5**2).item(), number(answer)
    if abs(value - true) < 1e-3:
        return Verdict(RIGHT, "The lift is s / sqrt(2 pi), proportional to the noise.")
    if abs(value) < 1e-3:
        return Verdict(WRONG, "relu(mean) is 0, but the mean of relu(z) counts only what lies above 0.")
    if abs(value - expectation(torch.relu, 0.0, 0.5**4).item()) < 1e-3:
        return Verdict(WRONG, "This is the answer for std 0.25: you have used the variance as a std.")
    if abs(value - 2 * true) < 1e-3:
        return Verdict(WRONG, "This is E|z|, twice too much: the ReLU keeps only one side.")
    return Verdict(
        WRONG, f"Got {answer!r}; set the panel to mean 0, sigma 0.5 and read the sentence below it."
    )


def _leaky_by_hand(answer: Callable[[Tensor, Tensor, float], Tensor]) -> Verdict:
    """1.2: a function (mean, var, slope) -> mean of leaky ReLU."""
    if not callable(answer):
        return Verdict(WRONG, f"Expected a function of mean, var and slope, got {answer!r}.")
    mean, var = (
        torch.tensor([-1.3, 0.0, 0.4, 2.0], dtype=torch.float64),
        torch.tensor(4.0, dtype=torch.float64),
    )
    slope = 0.2
    true = torch.stack([expectation(lambda z: torch.where(z > 0, z, slope * z), it, var) for it in mean])
    got = torch.as_tensor(answer(mean, var, slope))
    if got.shape != true.shape:
        return Verdict(
            WRONG, f"Expected one number for each mean, shape {tuple(true.shape)}, got {tuple(got.shape)}."
        )
    for mistaken, sentence in (
        (relu_mean(mean, var), "This is the plain ReLU's mean: the negative side, slope * z, is missing."),
        (
            relu_mean(mean, var**2) - slope * relu_mean(-mean, var**2),
            "You have used the variance where the standard deviation belongs.",
        ),
        (
            relu_mean(mean, var) + slope * relu_mean(-mean, var),
            "The sign of the negative side: there leaky ReLU is negative.",
        ),
    ):
        if torch.allclose(got.double(), mistaken, atol=1e-4):
            return Verdict(WRONG, sentence)
    worst = (got.double() - true).abs().argmax()
    if (got.double() - true).abs()[worst] < 1e-4:
        return Verdict(RIGHT, "Your numbers agree with numerical integration at four means.")
    return Verdict(
        WRONG,
        f"At mean {mean[worst]:.1f}, var {var:.1f}, slope {slope} the integral gives {true[worst]:.4f}, "
        f"your function {got[worst]:.4f}.",
    )


def _hidden_mean(answer: object) -> Verdict:
    """1.3: the mean of z ~ N(mean, 1) for which E[relu(z)] = 0.2."""
    value = number(answer)
    if not math.isfinite(value):
        return Verdict(WRONG, f"Expected a number, got {answer!r}.")
    output = expectation(torch.relu, value, 1.0).item()
    if abs(output - 0.2) < 1e-3:
        return Verdict(
            RIGHT, "So a unit whose input is negative on average can still have a positive output."
        )
    if abs(value - 0.2) < 1e-6:
        return Verdict(WRONG, "0.2 is the output's mean. Noise lifts a ReLU, so the input's mean lies lower.")
    side = "high" if output > 0.2 else "low"
    return Verdict(WRONG, f"A mean of {value:g} gives an output of {output:.3f}: too {side}.")


def _opposites(answer: object) -> Verdict:
    """1.4: Cov[relu(z), relu(-z)] for z ~ N(0, 1)."""
    value, mean = number(answer), expectation(torch.relu, 0.0, 1.0).item()
    if abs(value + mean**2) < 1e-3:
        return Verdict(RIGHT, "Never on together, and yet related: one on means the other off.")
    if abs(value) < 1e-3:
        return Verdict(WRONG, "0 is the mean of the product; take the product of the means away.")
    if abs(value - mean**2) < 1e-3:
        return Verdict(WRONG, "The size is right. When one is above its mean, where is the other?")
    return Verdict(WRONG, f"Got {answer!r}; the panel's preset 'opposites' shows the number.")


def _input_and_output(answer: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Verdict:
    """1.5: a function (cov, mean2, var2) -> Cov[z1, relu(z2)], by integrating over z2."""
    if not callable(answer):
        return Verdict(WRONG, f"Expected a function of cov, mean2 and var2, got {answer!r}.")
    cov, mean, var = (torch.tensor(it, dtype=torch.float64) for it in (1.2, -0.7, 4.0))
    # given z2, z1 is cov / var (z2 - mean) on average
    true = expectation(lambda z: cov / var * (z - mean) * z.relu(), mean, var)
    got = torch.as_tensor(answer(cov, mean, var)).double()
    if got.shape != true.shape:
        return Verdict(WRONG, f"Expected one number, got a tensor of shape {tuple(got.shape)}.")
    if abs(got - true) < 1e-6:
        return Verdict(RIGHT, "Your number agrees with numerical integration.")
    if abs(got - cov * torch.special.ndtr(mean / var)) < 1e-6:
        return Verdict(WRONG, "You have used the variance where the standard deviation belongs.")
    if abs(got - cov) < 1e-6:
        return Verdict(WRONG, "As if unit 2 were always on: it passes only a share of the covariance.")
    return Verdict(
        WRONG, f"At cov 1.2, mean -0.7, var 4 the integral gives {true:.4f}, your function {got:.4f}."
    )


ONE = {"1.1": _lift, "1.2": _leaky_by_hand, "1.3": _hidden_mean}
TWO = {"1.4": _opposites, "1.5": _input_and_output}
LATER = {**PROPAGATION, **LOSSES, **GRADIENTS, **SPECTRAL, **PERTURBATION, **ROBUSTNESS, **EXPLORE}
GRADERS = {"0.1": _half_point, **ONE, **TWO, **LATER}
