"""The exercises of lesson 07: right, and wrong in the ways that students are wrong."""

import math
import statistics
from functools import partial

import pytest
import torch

from gaussreg_lab.exercises import grade
from gaussreg_lab.graders import robustness
from gaussreg_lab.losses import NoisyLoss, cross_entropy
from gaussreg_lab.methods import Method, amp, fresh_noise, spectral_caps, together, weight_decay
from gaussreg_lab.perturbation import AMP
from gaussreg_lab.verdicts import NOT_ATTEMPTED, RIGHT, WRONG


def paired(first, second):
    difference = first - second
    return difference.mean(), difference.std() / len(difference) ** 0.5


def with_lists(first, second):
    differences = [a - b for a, b in zip(first.tolist(), second.tolist(), strict=True)]
    return statistics.mean(differences), statistics.stdev(differences) / math.sqrt(len(differences))


def with_error(error):
    return lambda first, second: ((first - second).mean(), error(first, second))


def unpaired(first, second):
    return ((first.var() + second.var()) / len(first)).sqrt()


def by_hand(sigma=0.3, epsilon=0.2, cap=2.0, optimizer=None, loss=None):
    own = loss or (lambda draws: NoisyLoss(sigma, generator=draws))
    jolted = optimizer or (lambda weights, rate: AMP(torch.optim.Adam(weights, lr=rate), epsilon))
    return Method("mine", own, jolted, cap)


def noisy_cross_entropy(draws):
    def loss(model, x, y):
        return cross_entropy(model, x + 0.3 * torch.randn(x.shape, generator=draws), y)

    return loss


def simulated(count=16, draws=20_000):
    samples = torch.randn(draws, count, generator=torch.Generator().manual_seed(0))
    return samples.amax(dim=1).mean().item()


def stub(*_):
    raise NotImplementedError


MIXED = together(fresh_noise(0.3), amp(0.2), spectral_caps(2.0))
RIGHT_ANSWERS = [
    ("7.1", paired),
    ("7.1", with_lists),
    ("7.1", lambda first, second: torch.stack(paired(first, second))),
    ("7.1", lambda first, second: list(paired(first, second))),
    ("7.2", MIXED),
    ("7.2", by_hand()),
    ("7.2", by_hand(loss=noisy_cross_entropy)),
    ("7.3", 1900),
    ("7.3", torch.tensor(1900.0)),
    ("7.3", "1900"),
    ("7.4", 1.77),
    ("7.4", simulated()),
    ("7.4", simulated(draws=5000)),
]
WRONG_ANSWERS = [
    ("7.1", 3, "Expected a function of two tensors of accuracies, got 3"),
    ("7.1", lambda first, second: (first - second).mean(), "Expected two numbers"),
    ("7.1", lambda first, second: paired(second, first), "The sign is turned"),
    ("7.1", lambda first, second: (first.mean(), 0.0), "the mean difference is 0.0175, got 0.9425"),
    ("7.1", with_error(unpaired), "error for independent runs"),
    ("7.1", with_error(lambda a, b: (a - b).std()), "spread of one difference"),
    ("7.1", with_error(lambda a, b: (a - b).std(correction=0) / len(a) ** 0.5), "Divide the squares by 3"),
    ("7.1", with_error(lambda a, b: (a - b).var() / len(a)), "square of the standard error"),
    ("7.1", with_error(lambda a, b: 1.0), "the error is 0.00479, got 1.00000"),
    ("7.1", with_error(lambda a, b: torch.nan), "got nan"),
    ("7.2", 3, "Expected a Method"),
    ("7.2", together(fresh_noise(0.3), amp(0.2)), "The caps: expected 2, got inf"),
    ("7.2", together(fresh_noise(0.3), weight_decay(0.2), spectral_caps(2.0)), "expected AMP, got AdamW"),
    ("7.2", by_hand(epsilon=0.1), "expected epsilon 0.2"),
    (
        "7.2",
        by_hand(optimizer=lambda weights, rate: AMP(torch.optim.Adam(weights), 0.2)),
        "the rate that is given",
    ),
    ("7.2", together(amp(0.2), spectral_caps(2.0)), "still the plain one"),
    ("7.2", by_hand(sigma=0.5), "fresh noise of sigma 0.3"),
    (
        "7.2",
        by_hand(loss=lambda draws: NoisyLoss(0.3)),
        "fresh noise of sigma 0.3",
    ),  # not from the draws given
    ("7.3", 1800, "first has to look which class"),
    ("7.3", 1500, "the training step itself, and before it"),
    ("7.3", 1600, "still have to be trained on"),
    ("7.3", 300 * 3 / 19, "The other way round"),
    ("7.3", 300, "equal steps"),
    ("7.3", 7, "Got 7; count units"),
    ("7.3", float("nan"), "Got nan; count units"),
    ("7.3", stub, "count units"),
    ("7.4", 0, "the one that came out best"),
    ("7.4", 3.53, "from the worst to the best"),
    ("7.4", simulated(count=2), "better one of two"),
    ("7.4", 1.0, "Got 1.0; draw 16 numbers"),
    ("7.4", "much", "Got 'much'; draw 16 numbers"),
    ("7.4", float("nan"), "Got nan; draw 16 numbers"),
]


def test_a_stub_is_not_an_attempt():
    assert grade("7.1", stub).state == NOT_ATTEMPTED


@pytest.mark.parametrize(("exercise", "answer"), RIGHT_ANSWERS)
def test_right_answers_are_right(exercise, answer):
    verdict = grade(exercise, answer)
    assert verdict.state == RIGHT, verdict.sentence


@pytest.mark.parametrize(("exercise", "answer", "hint"), WRONG_ANSWERS)
def test_wrong_answers_are_told_in_which_way(exercise, answer, hint):
    verdict = grade(exercise, answer)
    assert verdict.state == WRONG
    assert hint in verdict.sentence


def test_the_mistakes_of_the_first_exercise_are_told_apart_by_its_numbers():
    """On data where two mistakes give one number the sentence would be a guess."""
    first, second = (torch.tensor(it, dtype=torch.float64) for it in (robustness.FIRST, robustness.SECOND))
    difference = first - second
    errors = [
        paired(first, second)[1],
        unpaired(first, second),
        difference.std(),
        difference.std(correction=0) / 2,
        difference.var() / 4,
    ]
    assert all(abs(a - b) > 1e-4 for number, a in enumerate(errors) for b in errors[:number])


@pytest.mark.parametrize(("exercise", "answer"), [("7.2", MIXED), ("7.4", 1.77), ("7.1", paired)])
def test_grading_leaves_the_global_generator_alone(exercise, answer):
    before = torch.get_rng_state()
    grade(exercise, answer)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_winner_is_graded_for_as_many_methods_as_the_lesson_has():
    from gaussreg_lab.methods import METHODS

    assert len(METHODS) == 16
    assert partial(grade, "7.4")(simulated(len(METHODS))).state == RIGHT
