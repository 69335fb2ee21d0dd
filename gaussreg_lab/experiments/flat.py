r"""AMP against plain SGD, weight decay, short training and SAM: with wrong labels, and on CIFAR-10.

The claim (Zheng, Zhang, Mao, CVPR 2021): training at the worst weights in a ball around the weights finds
flatter minima, which generalize better; on CIFAR-10 the error falls by a fifth.

Every method is SGD with momentum 0.9 and a cosine schedule:

    SGD                  as it is, and for twice the epochs, which costs as much as AMP
    fewer epochs         how many is chosen
    weight decay         its weight is chosen
    AMP                  a ball for each weight tensor, inner_lr 1, one step uphill; the radius is chosen
    SAM                  one ball for all weights, each jolt taken to its surface; the radius is chosen

Chosen on images with right labels that are neither trained on nor tested on.
Lesson: notebooks/06_perturbation.ipynb
"""

from dataclasses import asdict, dataclass, replace
from functools import partial

import torch
from torch import nn
from torch.optim import SGD, Optimizer

from gaussreg_lab.datasets import Images
from gaussreg_lab.experiments.bench import (
    Bench,
    best,
    data_of,
    digest,
    generator,
    on,
    part_of,
    shuffled,
    small_lenet,
    train_with,
)
from gaussreg_lab.losses import cross_entropy
from gaussreg_lab.models import Normalize, mlp
from gaussreg_lab.perturbation import AMP
from gaussreg_lab.robustness import accuracy
from gaussreg_lab.sharpness import sharpness


def colour_lenet(seed: int = 0) -> nn.Sequential:
    """LeNet for 32x32 colour images: shallow enough to begin to learn at once, without batch norm.

    >>> colour_lenet()(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return nn.Sequential(
            Normalize(),
            nn.Conv2d(3, 16, 5, padding=2),
            nn.ReLU(),
            nn.AvgPool2d(2),
            nn.Conv2d(16, 32, 5, padding=2),
            nn.ReLU(),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(2048, 128),
            nn.ReLU(),
            nn.Linear(128, 10),
        )


NETWORKS = {
    "digits": partial(mlp, (64, 128, 10)),
    "mnist": small_lenet,
    "cifar10": colour_lenet,
}
TO_THE_SURFACE = 1e6  # an inner_lr with which every jolt is as long as its ball is wide: SAM
RULER = 0.2  # radius of each tensor's ball in which the rise of the loss is measured


@dataclass(frozen=True)
class Task:
    """What is learned, for how long, and among which weights of each method is chosen.

    images: to learn from, other ones for each seed. held_out: cut from the training set, to choose by. wrong:
    share of labels that are wrong. weights: by method.
    """

    data: str
    network: str
    images: int
    held_out: int
    wrong: float
    epochs: int
    batch: int
    rate: float
    choosing_seeds: int
    weights: dict[str, tuple[float, ...]]

    @property
    def name(self) -> str:
        """As it stands in the names of runs."""
        return f"{self.data}, {self.wrong:.0%} wrong labels"

    def setting(self) -> dict:
        """What a run has to know of it."""
        kept = asdict(self)
        del kept["weights"], kept["choosing_seeds"]
        return kept


DIGITS = Task(
    "digits", "digits", images=400, held_out=400, wrong=0.4, epochs=60, batch=50, rate=0.1, choosing_seeds=3,
    weights={
        "fewer epochs": (6, 10, 15), "weight decay": (0.003, 0.01, 0.03), "AMP": (0.2, 0.4, 0.8),
        "SAM": (0.2, 0.4, 0.8, 1.6),
    },
)  # fmt: skip
MNIST = Task(
    "mnist", "mnist", images=1000, held_out=2000, wrong=0.4, epochs=40, batch=50, rate=0.05, choosing_seeds=3,
    weights={
        "fewer epochs": (6, 12, 20), "weight decay": (0.01, 0.02, 0.03, 0.05), "AMP": (0.05, 0.1, 0.2, 0.4),
        "SAM": (0.05, 0.1, 0.15, 0.2),
    },
)  # fmt: skip
CIFAR = Task(
    "cifar10", "cifar10", images=4000, held_out=2000, wrong=0.0, epochs=20, batch=50, rate=0.02,
    choosing_seeds=1,
    weights={
        "fewer epochs": (5, 10, 15), "weight decay": (0.001, 0.003, 0.01, 0.03),
        "AMP": (0.025, 0.05, 0.1, 0.2), "SAM": (0.025, 0.05, 0.1, 0.2),
    },
)  # fmt: skip
WHOLE_CIFAR = Task(
    "whole cifar10", "cifar10", images=40_000, held_out=5000, wrong=0.0, epochs=100, batch=50, rate=0.02,
    choosing_seeds=1, weights={**CIFAR.weights, "fewer epochs": (25, 50)},
)  # fmt: skip
SIZES = {
    "digits": [DIGITS],
    "mnist": [MNIST, CIFAR],
    "full": [
        MNIST,
        WHOLE_CIFAR,
        replace(WHOLE_CIFAR, wrong=0.4),
    ],
}


def flat(bench: Bench) -> dict:
    """For each task: choose every method's weight, then run all methods with all seeds."""
    chosen, hashes = {}, {}
    for task in SIZES[bench.size]:
        hashes[task.data] = digest(data_of(task.data, bench.root))
        weights = chosen[task.name] = {
            method: _choose(bench, task, method, several) for method, several in task.weights.items()
        }
        methods = {"SGD": {}, "SGD, twice the epochs": {"epochs": 2 * task.epochs}}
        methods |= {method: {"method": method, "weight": weight} for method, weight in weights.items()}
        named = {f"{task.name}, {name}": _setting(task, **method) for name, method in methods.items()}
        bench.make(run, named, bench.seeds)
    tasks = {task.name: task.setting() for task in SIZES[bench.size]}
    return {"data SHA-256": hashes, "tasks": tasks, "chosen": chosen, "radius of the ruler": RULER}


def _choose(bench: Bench, task: Task, method: str, weights: tuple[float, ...]) -> float:
    named = {
        f"validation, {task.name}, {method} {weight:g}": _setting(
            task, method=method, weight=weight, part="validation"
        )
        for weight in weights
    }
    tried = bench.make(run, named, range(task.choosing_seeds))
    return named[best(tried, lambda result: result["accuracy"])]["weight"]


def _setting(task: Task, method: str = "SGD", weight: float = 0.0, part: str = "test", **changed) -> dict:
    return {**task.setting(), "method": method, "weight": weight, "part": part, **changed}


def run(
    data: str,
    network: str,
    images: int,
    held_out: int,
    wrong: float,
    epochs: int,
    batch: int,
    rate: float,
    method: str,
    weight: float,
    part: str,
    seed: int,
    root: str | None = None,
    device: str = "cpu",
) -> dict:
    """Train one network by one method, and judge it on test or on validation images."""
    torch.manual_seed(seed)
    split = data_of(data, root)
    every = shuffled(split.train)
    others, pool = part_of(every, slice(None, held_out)), part_of(every, slice(held_out, None))
    if len(pool.y) < images:
        raise ValueError(f"Expected {held_out + images} training images of {data}, got {len(every.y)}")
    picked = torch.randperm(len(pool.y), generator=generator(seed))[:images]
    train, bad = spoilt(part_of(pool, picked), wrong, seed)
    train, judge = on(device, train), on(device, split.test if part == "test" else others)
    epochs = int(weight) if method == "fewer epochs" else epochs
    model = NETWORKS[network](seed=seed).to(device)
    optimizer = optimizer_of(method, model, rate, weight)
    seconds = train_with(optimizer, model, train, cross_entropy, seed, epochs, batch)
    few = part_of(train, slice(500))
    result = {"weight": weight, "epochs": epochs, "seconds": seconds, "accuracy": accuracy(model, *judge)}
    result |= {"test loss": _loss(model, judge), "training accuracy": accuracy(model, *train)}
    if bad:  # the first ones
        result |= {"wrong labels learned": accuracy(model, *part_of(train, slice(bad)))}
    rise = sharpness(model, *few, epsilon=RULER, steps=10, directions=2).worst
    return {**result, "worst rise": round(rise, 5)}


def optimizer_of(method: str, model: nn.Module, rate: float, weight: float) -> Optimizer:
    """SGD with momentum; wrapped where the method jolts the weights."""
    decay = weight if method == "weight decay" else 0.0
    sgd = SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=decay)
    if method == "AMP":
        return AMP(sgd, epsilon=weight)
    if method == "SAM":
        return AMP(sgd, epsilon=weight, inner_lr=TO_THE_SURFACE, ball="model")
    return sgd


def spoilt(images: Images, wrong: float, seed: int) -> tuple[Images, int]:
    """The same images with wrong labels on the first ones, and on how many.

    >>> clean = Images(torch.zeros(10, 1), torch.zeros(10, dtype=torch.long))
    >>> bad, count = spoilt(clean, wrong=0.3, seed=0)
    >>> count, (bad.y != 0).tolist() == [True] * 3 + [False] * 7
    (3, True)
    """
    bad = round(wrong * len(images.y))
    shifts = torch.randint(1, 10, (bad,), generator=generator(100 + seed))
    y = images.y.clone()
    y[:bad] = (y[:bad] + shifts) % 10
    return Images(images.x, y), bad


@torch.no_grad()
def _loss(model: nn.Module, images: Images) -> float:
    z = torch.cat([model(x) for x in images.x.split(1000)])
    return round(nn.functional.cross_entropy(z, images.y).item(), 5)
