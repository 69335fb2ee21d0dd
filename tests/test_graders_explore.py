"""The exercises of lesson 08: right, and wrong in the ways that students are wrong."""

import math
import random

import pytest
import torch

from gaussreg_lab.exercises import grade
from gaussreg_lab.store import Store, stored_runs
from gaussreg_lab.sweep import sweep
from gaussreg_lab.verdicts import NOT_ATTEMPTED, RIGHT, WRONG


def square_moments(mean, var):
    return mean**2 + var, 4 * mean**2 * var + 2 * var**2


def by_fourth_moment(mean, var):
    first = mean.square() + var
    return [first, mean**4 + 6 * mean**2 * var + 3 * var**2 - first**2]


def by_quadrature(mean, var):
    nodes = torch.linspace(-12, 12, 20_001, dtype=torch.float64)
    weights = torch.exp(-(nodes**2) / 2)
    squares = (mean[:, None] + var.sqrt()[:, None] * nodes) ** 2
    first = (squares * weights).sum(1) / weights.sum()
    return first, (squares**2 * weights).sum(1) / weights.sum() - first**2


def with_variance(var_of_square):
    return lambda mean, var: (mean**2 + var, var_of_square(mean, var))


def noise(sigma, seed, count=1000):
    return sigma * torch.randn(count, 64, generator=torch.Generator().manual_seed(seed))


def noise_length(sigma, seed):
    return {"length": noise(sigma, seed).norm(dim=1).mean().item()}


def from_the_sweeps_generator(sigma, seed):
    return {"length": (sigma * torch.randn(1000, 64)).norm(dim=1).mean().item()}


def one_by_one(seed, sigma):
    lengths = [math.sqrt(sum(pixel * pixel for pixel in row)) for row in noise(sigma, seed).tolist()]
    return {"length": sum(lengths) / len(lengths)}


def as_tensor(sigma, seed):
    return {"length": noise(sigma, seed).norm(dim=1).mean()}


def one_seed_for_all(sigma, seed):
    return noise_length(sigma, 0)


def one_start_for_all(sigma, seed):
    torch.manual_seed(0)
    return from_the_sweeps_generator(sigma, seed)


def anybodys_numbers(sigma, seed):
    return {"length": 8 * sigma + 0.001 * random.random()}


def failing(sigma, seed):
    if seed == 1:
        raise ValueError("no good")
    return noise_length(sigma, seed)


def length_of(scale):
    return lambda sigma, seed: {"length": noise_length(scale(sigma), seed)["length"]}


def accuracies(runs, method):
    """By seed."""
    mine = [run for run in runs if run.setting["method"] == method and run.result is not None]
    return {run.setting["seed"]: run.result["accuracy"] for run in mine}


def pairs(runs, method, baseline):
    first, second = accuracies(runs, method), accuracies(runs, baseline)
    return torch.tensor([[first[it], second[it]] for it in sorted(first.keys() & second.keys())]).T


def gain_by_seed(runs, method, baseline):
    first, second = pairs(runs, method, baseline)
    return (first - second).mean(), (first - second).std() / math.sqrt(len(first))


def by_hand(runs, method, baseline):
    first, second = accuracies(runs, method), accuracies(runs, baseline)
    differences = [accuracy - second[seed] for seed, accuracy in first.items() if seed in second]
    mean = sum(differences) / len(differences)
    squares = sum((it - mean) ** 2 for it in differences)
    return [mean, math.sqrt(squares / (len(differences) - 1) / len(differences))]


def in_the_order_of_the_list(runs, method, baseline):
    first, second = accuracies(runs, method), accuracies(runs, baseline)
    first = {seed: accuracy for seed, accuracy in first.items() if seed in second}
    differences = torch.tensor([a - b for a, b in zip(first.values(), second.values(), strict=True)])
    return differences.mean(), differences.std() / math.sqrt(len(differences))


def of_all_seeds(runs, method, baseline):
    first, second = (torch.tensor(list(accuracies(runs, it).values())) for it in (method, baseline))
    return first.mean() - second.mean(), torch.tensor(0.0)


def with_error(error):
    def answer(runs, method, baseline):
        first, second = pairs(runs, method, baseline)
        return (first - second).mean(), error(first, second)

    return answer


def stub(*_, **__):
    raise NotImplementedError


def stub_of_a_run(sigma, seed):
    raise NotImplementedError


RIGHT_ANSWERS = [
    ("8.1", 39),
    ("8.1", "39"),
    ("8.1", 3 * 4 * 5 - (23 - 2)),
    ("8.2", square_moments),
    ("8.2", by_fourth_moment),
    ("8.2", by_quadrature),
    ("8.2", lambda mean, var: tuple(it.float() for it in square_moments(mean, var))),
    ("8.3", noise_length),
    ("8.3", from_the_sweeps_generator),
    ("8.3", one_by_one),
    ("8.4", gain_by_seed),
    ("8.4", by_hand),
    ("8.4", lambda *given: torch.stack(gain_by_seed(*given)).unbind()),
]
WRONG_ANSWERS = [
    ("8.1", 37, "they are tried again"),
    ("8.1", 38, "Half a line is no result"),
    ("8.1", 36, "Neither half a line"),
    ("8.1", 60, "are not made again"),
    ("8.1", 21, "need not be made"),
    ("8.1", 7, "Got 7; count all settings"),
    ("8.1", "many", "Got 'many'; count all settings"),
    ("8.1", float("nan"), "Got nan; count all settings"),
    ("8.1", stub, "count all settings"),
    ("8.2", 3, "Expected a function of mean and var, got 3"),
    ("8.2", lambda mean, var: mean**2 + var, "Expected a pair, mean and variance, got Tensor"),
    ("8.2", lambda mean, var: (mean**2 + var, torch.tensor(1.0)), "Expected one variance for each unit"),
    ("8.2", lambda mean, var: (1.0, var), "Expected one mean for each unit, shape (4,), got shape ()"),
    ("8.2", lambda mean, var: (mean**2, 2 * var**2), "Noise makes squares larger"),
    ("8.2", lambda mean, var: (mean**2 + var.sqrt(), var), "the variance itself"),
    ("8.2", lambda mean, var: (mean**2 + var**2, var), "the variance itself"),
    ("8.2", lambda mean, var: (mean, var), "The mean: at mean -1.3 and var 0.5 the integral gives 2.1900"),
    ("8.2", with_variance(lambda mean, var: 2 * var**2), "right for mean 0"),
    ("8.2", with_variance(lambda mean, var: 4 * mean**2 * var), "this is the tangent's"),
    ("8.2", with_variance(lambda mean, var: mean**4 + 6 * mean**2 * var + 3 * var**2), "away from the mean"),
    ("8.2", with_variance(lambda mean, var: (4 * mean**2 * var + 2 * var**2).sqrt()), "square it"),
    ("8.2", with_variance(lambda mean, var: 4 * mean**2 * var + 3 * var**2), "the mean of n^4"),
    ("8.2", with_variance(lambda mean, var: var), "integral gives 3.8800, your function 0.5000"),
    ("8.3", 3, "Expected a function of sigma and seed, got 3"),
    ("8.3", lambda sigma: {"length": 8 * sigma}, "Expected run to take the setting"),
    ("8.3", as_tensor, "write .tolist()"),
    ("8.3", lambda sigma, seed: noise_length(sigma, seed)["length"], "Expected run to return a dict"),
    ("8.3", lambda sigma, seed: {"mean": 8 * sigma}, "Expected {'length': a number}, got {'mean': 12.0}"),
    ("8.3", lambda sigma, seed: {"length": None}, "Expected {'length': a number}, got {'length': None}"),
    ("8.3", failing, "With {'sigma': 1.5, 'seed': 1} it raises ValueError: no good."),
    ("8.3", one_seed_for_all, "let the generator begin with the seed"),
    ("8.3", one_start_for_all, "let the generator begin with the seed"),
    ("8.3", anybodys_numbers, "The same seed has given two results"),
    ("8.3", length_of(lambda sigma: sigma**2), "standard deviation sigma^2"),
    ("8.3", length_of(lambda sigma: sigma**0.5), "used sigma as a variance"),
    ("8.3", length_of(lambda sigma: 1.0), "does not depend on sigma"),
    ("8.3", lambda sigma, seed: {"length": noise(sigma, seed).abs().mean().item()}, "mean size of a pixel"),
    ("8.3", lambda sigma, seed: {"length": noise(sigma, seed).norm().item()}, "expected a length near 12.0"),
    ("8.4", 3, "Expected a function of runs, method and baseline, got 3"),
    ("8.4", lambda *_: 0.03, "Expected a pair, gain and standard error, got float"),
    ("8.4", lambda runs, method, baseline: gain_by_seed(runs, baseline, method), "The sign"),
    ("8.4", lambda runs, method, _: gain_by_seed(runs, method, "other"), "The gain should be 0.03"),
    ("8.4", lambda *_: ("much", 0.0), "The gain should be 0.03"),
    ("8.4", of_all_seeds, "Seed 5 has a result for one of the two methods only"),
    ("8.4", in_the_order_of_the_list, "paired the runs in the order of the list"),
    ("8.4", with_error(lambda a, b: ((a.var() + b.var()) / 5).sqrt()), "two separate means"),
    ("8.4", with_error(lambda a, b: (a - b).std()), "the mean of five is known better"),
    ("8.4", with_error(lambda a, b: (a - b).var() / 5), "square of the standard error"),
    ("8.4", with_error(lambda a, b: (a - b).std() / 5), "root of the number of seeds"),
    ("8.4", with_error(lambda a, b: (a - b).std(correction=0) / 5**0.5), "n - 1 = 4"),
    ("8.4", with_error(lambda a, b: 0.5), "should be 0.00707, got 0.5"),
    ("8.4", with_error(lambda a, b: float("nan")), "should be 0.00707, got nan"),
]


@pytest.mark.parametrize(
    ("exercise", "answer"), [("8.2", stub), ("8.3", stub), ("8.3", stub_of_a_run), ("8.4", stub)]
)
def test_a_stub_is_not_an_attempt(exercise, answer):
    assert grade(exercise, answer).state == NOT_ATTEMPTED


@pytest.mark.parametrize(("exercise", "answer"), RIGHT_ANSWERS)
def test_right_answers_are_right(exercise, answer):
    verdict = grade(exercise, answer)
    assert verdict.state == RIGHT, verdict.sentence


@pytest.mark.parametrize(("exercise", "answer", "hint"), WRONG_ANSWERS)
def test_wrong_answers_are_told_in_which_way(exercise, answer, hint):
    verdict = grade(exercise, answer)
    assert verdict.state == WRONG
    assert hint in verdict.sentence


def test_a_sweep_over_such_a_store_makes_as_many_runs(tmp_path):
    """The answer of 8.1 by the sweep itself: 23 runs in the store, 2 of them failed, and half a line."""
    grid = {"sigma": [0.25, 0.5, 0.75], "method": ["a", "b", "c", "d"], "seed": list(range(5))}
    store, made = tmp_path / "runs.jsonl", []

    def run(sigma, method, seed):
        made.append(1)
        if len(made) in (5, 11):
            raise ValueError("no good")
        if len(made) == 25:
            raise KeyboardInterrupt
        return {"draw": torch.randn(()).item()}

    with pytest.raises(KeyboardInterrupt):
        sweep(run, grid, store=store, progress=False)
    store.write_bytes(store.read_bytes()[:-20])
    with Store(store) as kept:
        assert len(kept.runs) == 23
    made[:] = [1] * 30  # past all accidents
    runs = sweep(run, grid, store=store, progress=False)
    assert grade("8.1", len(made) - 30).state == RIGHT
    assert len(runs) == len(stored_runs(store)) == 60


@pytest.mark.parametrize(("exercise", "answer"), [*RIGHT_ANSWERS, *(it[:2] for it in WRONG_ANSWERS)])
def test_grading_leaves_the_global_generator_alone(exercise, answer):
    before = torch.get_rng_state()
    grade(exercise, answer)
    assert torch.equal(torch.get_rng_state(), before)
