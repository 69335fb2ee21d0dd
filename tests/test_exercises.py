"""`check` knows right, wrong in this way and not attempted; `predict` reveals after the choice."""

import math

import ipywidgets as widgets
import pytest
import torch
from IPython.testing.globalipapp import start_ipython
from IPython.utils.capture import capture_output

from gaussreg_lab import exercises
from gaussreg_lab.exercises import GRADERS, NOT_ATTEMPTED, RIGHT, WRONG, check, grade, predict
from gaussreg_lab.robustness import NoiseCurve

CURVE = NoiseCurve(torch.linspace(0, 1, 21), torch.linspace(1, 0, 21), torch.zeros(21))
GIVEN = {"0.1": (CURVE,)}


def phi(t):
    return torch.exp(-(t**2) / 2) / math.sqrt(2 * math.pi)


def cdf(t):
    return torch.distributions.Normal(0, 1).cdf(t)


def leaky_by_hand(mean, var, slope):
    std = var.sqrt()
    above = mean * cdf(mean / std) + std * phi(mean / std)
    return above + slope * (mean - above)


def plain_relu(mean, var, slope):
    return leaky_by_hand(mean, var, 0)


def variance_for_std(mean, var, slope):
    return leaky_by_hand(mean, var**2, slope)


def wrong_sign(mean, var, slope):
    return leaky_by_hand(mean, var, -slope)


def stub(mean, var, slope):
    raise NotImplementedError


@pytest.mark.parametrize("exercise", sorted(GRADERS))
@pytest.mark.parametrize("answer", [None, ...])
def test_an_empty_answer_is_not_an_attempt(exercise, answer):
    assert grade(exercise, answer, *GIVEN.get(exercise, ())).state == NOT_ATTEMPTED


def test_a_stub_is_not_an_attempt():
    assert grade("1.2", stub).state == NOT_ATTEMPTED


@pytest.mark.parametrize(
    ("exercise", "answer"),
    [
        ("0.1", 0.55),
        ("0.1", torch.tensor(0.55)),
        ("1.1", 0.5 / math.sqrt(2 * math.pi)),
        ("1.1", 0.1995),
        ("1.2", leaky_by_hand),
        ("1.3", -0.4929),
        ("1.4", -1 / (2 * math.pi)),
        ("1.5", lambda cov, mean2, var2: cov * cdf(mean2 / var2.sqrt())),
    ],
)
def test_right_answers_are_right(exercise, answer):
    assert grade(exercise, answer, *GIVEN.get(exercise, ())).state == RIGHT


@pytest.mark.parametrize(
    ("exercise", "answer", "hint"),
    [
        ("0.1", 0.8, "above"),
        ("0.1", 0.5, "below"),  # half is not fewer than half
        ("0.1", "a lot", "Expected a number"),
        ("1.1", 0.0, "only what lies above 0"),
        ("1.1", 0.25 / math.sqrt(2 * math.pi), "variance as a std"),
        ("1.1", 1 / math.sqrt(2 * math.pi), "one side"),
        ("1.1", 7, "panel"),
        ("1.2", plain_relu, "negative side"),
        ("1.2", variance_for_std, "standard deviation"),
        ("1.2", wrong_sign, "sign"),
        ("1.2", lambda mean, var, slope: mean, "the integral gives"),
        ("1.2", lambda mean, var, slope: mean.sum(), "one number for each mean"),
        ("1.2", lambda mean, var, slope: mean * float("nan"), "the integral gives"),
        ("1.2", 3, "Expected a function"),
        ("1.3", 0.2, "output's mean"),
        ("1.3", 0.0, "too high"),
        ("1.3", -1.0, "too low"),
        ("1.3", "minus a half", "Expected a number"),
        ("1.4", 0.0, "mean of the product"),
        ("1.4", 1 / (2 * math.pi), "size is right"),
        ("1.4", -1.0, "opposites"),
        ("1.5", lambda cov, mean2, var2: cov * cdf(mean2 / var2), "standard deviation"),
        ("1.5", lambda cov, mean2, var2: cov, "always on"),
        ("1.5", lambda cov, mean2, var2: cov + 1, "the integral gives"),
        ("1.5", lambda cov, mean2, var2: cov.expand(2), "Expected one number"),
        ("1.5", 3, "Expected a function"),
    ],
)
def test_wrong_answers_are_told_in_which_way(exercise, answer, hint):
    verdict = grade(exercise, answer, *GIVEN.get(exercise, ()))
    assert verdict.state == WRONG
    assert hint in verdict.sentence


def test_an_error_in_the_students_function_reaches_the_student():
    assert "ZeroDivisionError: division by zero" in grade("1.2", lambda mean, var, slope: 1 / 0).sentence


def test_check_prints_one_line(capsys):
    check("1.1", 0.1995)
    assert capsys.readouterr().out.startswith("Exercise 1.1: right. ")


def test_an_unknown_exercise_names_the_known_ones():
    with pytest.raises(ValueError, match=r"'1\.1'.*got '9\.9'"):
        check("9.9", 1)


@pytest.fixture
def asked(monkeypatch):
    start_ipython()
    made = []
    box = widgets.VBox
    monkeypatch.setattr(exercises.widgets, "VBox", lambda children: made.append(box(children)) or made[-1])
    with capture_output() as captured:
        predict("Up or down?", ["up", "down & out"], answer=0, because="1 < 2.")
    return made[0], captured.outputs[0].data


def test_predict_reveals_only_after_a_choice(asked):
    (_, buttons, reveal), _ = asked[0].children, None
    assert reveal.value == ""
    buttons.value = "down & out"
    assert "No: up. 1 &lt; 2." in reveal.value
    buttons.value = "up"
    assert "Yes. 1 &lt; 2." in reveal.value


def test_predict_can_be_read_without_a_kernel(asked):
    bundle = asked[1]
    assert bundle["text/plain"] == "Predict. Up or down? (up / down & out)"
    assert "<details>" in bundle["text/html"]
    assert "down &amp; out" in bundle["text/html"]


def test_predict_refuses_an_answer_that_is_no_option():
    with pytest.raises(ValueError, match="answer between 0 and 1, got 2"):
        predict("?", ["a", "b"], answer=2, because="")


def stops(*given, **more):
    return 1 / 0


WRONG_KINDS = [
    "a lot",
    float("nan"),
    -1e9,
    [1.0, 2.0, 3.0],
    {"answer": 1},
    torch.zeros(2, 3),
    stops,
    lambda: 1.0,
    lambda *given: None,
    lambda *given: torch.zeros(7, 7),
    lambda *given: "text",
    lambda *given: float("nan"),
]


@pytest.mark.parametrize("exercise", sorted(GRADERS))
@pytest.mark.parametrize("answer", WRONG_KINDS, ids=range(len(WRONG_KINDS)))
def test_an_answer_of_the_wrong_kind_is_judged_in_a_sentence(exercise, answer):
    """Whatever a student hands in: no traceback, never right, and more than a bare no."""
    verdict = grade(exercise, answer, *GIVEN.get(exercise, ()))
    assert verdict.state == WRONG
    assert len(verdict.sentence.split()) > 4
    assert verdict.sentence.endswith((".", "?"))


def test_a_function_that_stops_says_in_which_line_of_the_student_s():
    lines = "def answer(mean, var, slope):\n    half = var / 2\n    return half + undefined\n"
    cell = {"__name__": "__main__"}
    exec(compile(lines, "cell", "exec"), cell)
    verdict = grade("1.2", cell["answer"])
    assert "line 3 of its cell: NameError: name 'undefined' is not defined." in verdict.sentence


def test_a_missing_return_is_named():
    assert grade("1.2", lambda *given: None).sentence.endswith("is a return missing?")
