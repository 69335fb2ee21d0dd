"""Graders of lesson 08: what a sweep has left to do, a rule of one's own, a run, a gain seed by seed.

The rule is judged by numerical integration, the run by making a small sweep of it.

Lesson: notebooks/08_explore.ipynb
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from gaussreg_lab.quadrature import expectation
from gaussreg_lab.store import Run
from gaussreg_lab.sweep import sweep
from gaussreg_lab.verdicts import RIGHT, WRONG, Verdict, number

PIXELS, IMAGES = 64, 1000  # of exercise 8.3
# of exercise 8.4: accuracies by seed, and the order in which the first method's seeds come
PLAIN, NEW, ORDER = [0.70, 0.80, 0.75, 0.90, 0.65], [0.72, 0.85, 0.76, 0.94, 0.68, 0.99], [3, 0, 4, 1, 2, 5]


def _runs_to_make(answer: object) -> Verdict:
    """8.1: 3 x 4 x 5 settings; the store has 23 whole lines, 2 with an error, and half a line."""
    value = number(answer)
    if value == 60 - 21:
        return Verdict(RIGHT, "21 settings have a result; what failed or was cut off is made again.")
    mistakes = {
        60 - 23: "The two runs that failed are in the store, but have no result: they are tried again.",
        60 - 22: "Half a line is no result: it is dropped, and its run made again.",
        60 - 24: "Neither half a line nor a run that failed is a result.",
        60: "Whole lines with a result are safe: their runs are not made again.",
        21: "These are the runs that need not be made.",
        3 + 4 + 5 - 21: "A grid has all combinations: 3 times 4 times 5 settings.",
    }
    return Verdict(
        WRONG, mistakes.get(value, f"Got {answer!r}; count all settings, and those that have a result.")
    )


def _square_moments(answer: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Verdict:
    """8.2: a function (mean, var) -> mean and variance of the square."""
    if not callable(answer):
        return Verdict(WRONG, f"Expected a function of mean and var, got {answer!r}.")
    mean = torch.tensor([-1.3, 0.0, 0.4, 2.0], dtype=torch.float64)
    var = torch.tensor([0.5, 0.7, 3.0, 1.5], dtype=torch.float64)
    first = torch.stack([expectation(torch.square, *it) for it in zip(mean, var, strict=True)])
    fourth = torch.stack([expectation(lambda z: z**4, *it) for it in zip(mean, var, strict=True)])
    pair = answer(mean.clone(), var.clone())
    if not (isinstance(pair, tuple | list) and len(pair) == 2):
        return Verdict(WRONG, f"Expected a pair, mean and variance, got {type(pair).__name__}.")
    got_mean, got_var = (torch.as_tensor(it).double() for it in pair)
    for name, got in (("mean", got_mean), ("variance", got_var)):
        if got.shape != mean.shape:
            return Verdict(
                WRONG, f"Expected one {name} for each unit, shape (4,), got shape {tuple(got.shape)}."
            )
    if not torch.allclose(got_mean, first, atol=1e-6):
        return Verdict(WRONG, _about_the_mean(got_mean, mean, var, first))
    return _on_variance(got_var, mean, var, fourth - first**2)


def _about_the_mean(got: Tensor, mean: Tensor, var: Tensor, true: Tensor) -> str:
    if torch.allclose(got, mean**2):
        return "The mean: this is the square of the mean. Noise makes squares larger on average."
    if torch.allclose(got, mean**2 + var.sqrt()) or torch.allclose(got, mean**2 + var**2):
        return "The mean: what is added to the square of the mean is the variance itself."
    return f"The mean: at mean -1.3 and var 0.5 the integral gives {true[0]:.4f}, your function {got[0]:.4f}."


def _on_variance(got: Tensor, mean: Tensor, var: Tensor, true: Tensor) -> Verdict:
    if torch.allclose(got, true, atol=1e-6):
        return Verdict(RIGHT, "Mean and variance agree with numerical integration at four units.")
    for mistaken, sentence in (
        (2 * var**2, "The variance: right for mean 0. Elsewhere the part 2 mean n moves the square, too."),
        (4 * mean**2 * var, "The variance: this is the tangent's; n^2 has a variance of its own."),
        (true + (mean**2 + var) ** 2, "The variance: take the square of the mean away from the mean of z^4."),
        (true.sqrt(), "This is the standard deviation: square it."),
        (4 * mean**2 * var + 3 * var**2, "The variance: 3 var^2 is the mean of n^4; its variance is less."),
    ):
        if torch.allclose(got, mistaken, atol=1e-6):
            return Verdict(WRONG, sentence)
    return Verdict(
        WRONG,
        f"The variance: at mean -1.3 and var 0.5 the integral gives {true[0]:.4f}, your function "
        f"{got[0]:.4f}.",
    )


def _noise_length(answer: Callable[..., dict]) -> Verdict:
    """8.3: a run (sigma, seed) -> {"length": mean length of 1,000 images of noise}."""
    if not callable(answer):
        return Verdict(WRONG, f"Expected a function of sigma and seed, got {answer!r}.")
    with torch.random.fork_rng(devices=[]):
        _called_alone(answer)
    settings = [{"sigma": sigma, "seed": seed} for sigma in (1.5, 0.5) for seed in (0, 1)]
    try:
        runs = sweep(answer, settings, progress=False)
        again = sweep(answer, settings[::-1], progress=False)[::-1]
    except TypeError as error:  # not a plain number, not a dict, other arguments
        return Verdict(WRONG, f"{error}.")
    return _on_runs(runs, again)


def _called_alone(answer: Callable[..., dict]) -> None:
    """A stub says so; whatever else goes wrong the sweep says better."""
    try:
        answer(sigma=0.5, seed=0)
    except NotImplementedError:
        raise
    except Exception:
        return


def _on_runs(runs: list[Run], again: list[Run]) -> Verdict:
    for run in runs:
        if run.error:
            return Verdict(WRONG, f"With {run.setting} it raises {run.error}.")
        if set(run.result) != {"length"} or not isinstance(run.result["length"], int | float):
            return Verdict(WRONG, f"Expected {{'length': a number}}, got {run.result!r}.")
    lengths, repeated = ([run.result["length"] for run in it] for it in (runs, again))
    if lengths != repeated:
        return Verdict(WRONG, "The same seed has given two results: some numbers do not come from the seed.")
    if lengths[0] == lengths[1] or lengths[2] == lengths[3]:
        return Verdict(WRONG, "Seeds 0 and 1 give the same result: let the generator begin with the seed.")
    return _on_lengths(lengths)


def _on_lengths(lengths: list[float]) -> Verdict:
    unit = math.sqrt(2) * math.exp(math.lgamma((PIXELS + 1) / 2) - math.lgamma(PIXELS / 2))  # of a chi law
    error = math.sqrt((PIXELS - unit**2) / IMAGES)
    large, small = lengths[0] / 1.5, lengths[2] / 0.5
    if all(abs(it - unit) < 4.5 * error for it in (large, small)):
        return Verdict(RIGHT, "Plain numbers, equal for equal seeds, and near sigma times the root of 64.")
    for factor, sentence in (
        ((1.5, 0.5), "Your images have the standard deviation sigma^2: multiply by sigma."),
        ((1.5**-0.5, 0.5**-0.5), "You have used sigma as a variance: it is the standard deviation."),
        ((1 / 1.5, 1 / 0.5), "The length does not depend on sigma."),
    ):
        if all(abs(it / by - unit) < 4.5 * error for it, by in zip((large, small), factor, strict=True)):
            return Verdict(WRONG, sentence)
    if abs(large - math.sqrt(2 / math.pi)) < 0.05:
        return Verdict(WRONG, "This is the mean size of a pixel. The length is that of the whole image.")
    return Verdict(WRONG, f"At sigma 1.5 expected a length near {1.5 * unit:.1f}, got {lengths[0]:.4g}.")


def _gain_by_seed(answer: Callable[[list[Run], str, str], tuple[float, float]]) -> Verdict:
    """8.4: a function (runs, method, baseline) -> mean difference and its standard error, seed by seed."""
    if not callable(answer):
        return Verdict(WRONG, f"Expected a function of runs, method and baseline, got {answer!r}.")
    pair = answer(_runs_in_any_order(), "new", "plain")
    if not (isinstance(pair, tuple | list) and len(pair) == 2):
        return Verdict(WRONG, f"Expected a pair, gain and standard error, got {type(pair).__name__}.")
    gain, error = (number(it) for it in pair)
    new, plain = torch.tensor(NEW, dtype=torch.float64), torch.tensor(PLAIN, dtype=torch.float64)
    differences = new[:5] - plain  # their mean is 0.03, their variance 0.00025
    if abs(gain + 0.03) < 1e-6:
        return Verdict(WRONG, "The sign: the first method is ahead where its scores are higher.")
    if abs(gain - (new.mean() - plain.mean())) < 1e-6:
        return Verdict(WRONG, "Seed 5 has a result for one of the two methods only: leave it out.")
    if not abs(gain - 0.03) < 1e-6:
        return Verdict(WRONG, f"The gain should be 0.03, the mean over seeds 0 to 4, got {pair[0]}.")
    true = math.sqrt(0.00025 / 5)
    apart = torch.sqrt((new[:5].var() + plain.var()) / 5).item()
    by_place = (new[ORDER[:5]] - plain).std().item() / math.sqrt(5)
    for value, sentence in (
        (by_place, "You have paired the runs in the order of the list: look at their seeds."),
        (apart, "You have added the errors of two separate means: take one difference for each seed."),
        (math.sqrt(0.00025), "This is the scatter of single seeds; the mean of five is known better."),
        (0.00025 / 5, "This is the square of the standard error."),
        (math.sqrt(0.00025) / 5, "Divide by the root of the number of seeds, not by the number."),
        (differences.std(correction=0).item() / 5**0.5, "Divide the squares by n - 1 = 4, not by 5."),
    ):
        if abs(error - value) < 1e-6:
            return Verdict(WRONG, sentence)
    if abs(error - true) < 1e-6:
        return Verdict(RIGHT, "Seed by seed, what two runs have in common does not blur their difference.")
    return Verdict(WRONG, f"The standard error should be {true:.5f}, got {pair[1]}.")


def _runs_in_any_order() -> list[Run]:
    """Of three methods; the last of "plain" has failed."""
    new = [Run({"method": "new", "seed": it}, it, {"accuracy": NEW[it]}, None, 1.0) for it in ORDER]
    plain = [Run({"method": "plain", "seed": it}, it, {"accuracy": PLAIN[it]}, None, 1.0) for it in range(5)]
    failed = Run({"method": "plain", "seed": 5}, 5, None, "ValueError: no good", 1.0)
    other = [Run({"method": "other", "seed": it}, it, {"accuracy": 0.5}, None, 1.0) for it in range(6)]
    return [run for three in zip(new, [*plain, failed], other, strict=True) for run in three]


EXPLORE = {"8.1": _runs_to_make, "8.2": _square_moments, "8.3": _noise_length, "8.4": _gain_by_seed}
