"""Lesson 07's table on MNIST: every way of training on one network, with the same images, steps and rates.

The claims meet here: each paper compares its method with plain training; what remains of the advantage beside
the others, under the same noise, the same attacks and with few images?

The numbers of each method are chosen among a few on images cut from the training set, by the mean of three
accuracies: without noise, under noise 0.5, under PGM. The fields of a run are those of `comparison.judged`,
with the accuracy when trained on few images instead, and the processor time.
Lesson: notebooks/07_robustness.ipynb
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

import torch
from torch import nn

from gaussreg_lab import methods as ways
from gaussreg_lab.comparison import Protocol, judged
from gaussreg_lab.datasets import Images
from gaussreg_lab.experiments.bench import (
    Bench,
    best,
    data_of,
    digest,
    generator,
    images_of,
    on,
    part_of,
    small_lenet,
    train_with,
)
from gaussreg_lab.models import lenet, lenet8
from gaussreg_lab.robustness import accuracy
from gaussreg_lab.spectral import cap_network

SIGMAS = (0.0, 0.25, 0.5, 0.75, 1.0)
FACTORIES: dict[str, Callable[..., ways.Method]] = {
    "plain": lambda: ways.METHODS["plain"],
    "weight decay": ways.weight_decay,
    "fresh noise": ways.fresh_noise,
    "expected output": ways.expected_output,
    "second order": ways.second_order,
    "gradient penalty": ways.gradient_penalty,
    "Jacobian penalty": ways.jacobian_penalty,
    "spectral penalty": ways.spectral_penalty,
    "spectral caps": ways.spectral_caps,
    "FGM": ways.fgm_training,
    "PGM": ways.pgm_training,
    "WRM": ways.wrm_training,
    "AMP": ways.amp,
}
GRID: dict[str, list[tuple[float, ...]]] = {
    "plain": [()],
    "weight decay": [(0.01,), (0.1,), (1.0,)],
    "fresh noise": [(0.3,), (0.5,)],
    "expected output": [(0.25, 1), (0.5, 1), (0.5, 5)],
    "second order": [(0.3, 8), (0.5, 4), (0.5, 8)],
    "gradient penalty": [(0.3,), (1.0,), (3.0,)],
    "Jacobian penalty": [(0.001,), (0.003,), (0.01,)],
    "spectral penalty": [(0.01,), (0.03,), (0.1,)],
    "spectral caps": [(1.0,), (2.0,), (4.0,)],
    "FGM": [(0.5,), (1.0,), (2.0,)],
    "PGM": [(0.5,), (1.0,), (2.0,)],
    "WRM": [(0.1,), (0.3,), (1.0,)],
    "AMP": [(0.05,), (0.1,), (0.2,)],
}
NETWORKS: dict[str, Callable[..., nn.Sequential]] = {
    "lenet8": lenet8,
    "small lenet": small_lenet,
    "lenet": lenet,
}


@dataclass(frozen=True)
class Size:
    """What is learned, and for how long; what a run has to know.

    train_size: images loaded; the first held_out of them, in an order that is always the same, are held out.
    test_size: images judged on. radius: of the attack that networks are judged by, and half of it.
    """

    data: str
    train_size: int | None
    held_out: int
    test_size: int
    network: str
    epochs: int
    batch: int
    rate: float
    few: int
    few_epochs: int
    radius: float


SIZES = {
    "digits": Size("digits", None, 400, 355, "lenet8", 12, 64, 0.003, few=200, few_epochs=24, radius=0.6),
    "mnist": Size(
        "mnist", 5000, 1000, 2000, "small lenet", 8, 128, 0.003, few=500, few_epochs=24, radius=1.0
    ),
    "full": Size("mnist", None, 5000, 10_000, "lenet", 20, 128, 0.001, few=500, few_epochs=200, radius=1.0),
}


def compare(bench: Bench) -> dict:
    """Choose every method's numbers, then train and judge all of them with all seeds."""
    size = SIZES[bench.size]
    data = data_of(size.data, bench.root, size.train_size)
    chosen = {method: _choose(bench, size, method) for method in GRID}
    named = {method: _setting(size, method, numbers) for method, numbers in chosen.items()}
    bench.make(run, named, bench.seeds)
    return {
        **asdict(size),
        "data SHA-256": digest(data),
        "sigmas": list(SIGMAS),
        "methods": {method: FACTORIES[method](*numbers).words for method, numbers in chosen.items()},
    }


def _choose(bench: Bench, size: Size, method: str) -> list[float]:
    if len(GRID[method]) == 1:
        return list(GRID[method][0])
    named = {
        f"validation, {FACTORIES[method](*numbers).words}": _setting(size, method, numbers, "validation")
        for numbers in GRID[method]
    }
    tried = bench.make(run, named, seeds=[0])
    return named[best(tried, partial(_score, radius=size.radius))]["numbers"]


def _score(result: dict, radius: float) -> float:
    return (result["accuracy"] + result["noise 0.5"] + result[f"PGM {radius:g}"]) / 3


def _setting(size: Size, method: str, numbers: tuple[float, ...] | list[float], part: str = "test") -> dict:
    return {**asdict(size), "method": method, "numbers": list(numbers), "part": part}


# one run


def run(
    data: str,
    train_size: int | None,
    held_out: int,
    test_size: int,
    network: str,
    epochs: int,
    batch: int,
    rate: float,
    few: int,
    few_epochs: int,
    radius: float,
    method: str,
    numbers: list[float],
    part: str,
    seed: int,
    root: str | None = None,
    device: str = "cpu",
) -> dict:
    """Train one network in one way, and judge it on test or on validation images."""
    train, held, test = images_of(data, train_size, held_out, test_size, root)
    train, test = on(device, train), on(device, test if part == "test" else held)
    way = FACTORIES[method](*numbers)
    model, seconds = _trained(way, NETWORKS[network], train, seed, epochs, batch, rate)
    protocol = Protocol(sigmas=SIGMAS, shown=SIGMAS[1:], radii=(radius / 2, radius))
    result = judged(model, train, test, protocol) | {"seconds": seconds}
    if part == "test":
        some = torch.randperm(len(train.y), generator=generator(seed))[:few]
        model, _ = _trained(way, NETWORKS[network], part_of(train, some), seed, few_epochs, batch, rate)
        result |= {"accuracy, few images": accuracy(model, *test)}
    return result


def _trained(
    way: ways.Method, make: Callable, train: Images, seed: int, epochs: int, batch: int, rate: float
) -> tuple[nn.Sequential, float]:
    model = make(seed=seed).to(train.x.device)
    if way.cap < float("inf"):
        cap_network(model, train.x[:1], way.cap)
    loss = way.loss(generator(seed, train.x.device.type))
    optimizer = way.optimizer(model.parameters(), rate)
    return model, train_with(optimizer, model, train, loss, seed, epochs, batch)
