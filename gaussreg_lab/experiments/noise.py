"""Training for noisy images: noise drawn anew, noise frozen once, and noise in closed form.

The claim (Alfadly, Bibi, Ghanem, arXiv 1904.11005): the expected-output loss makes a network as robust as 3
to 21 folds of data augmentation, at the price of one more pass.

    plain                      cross entropy
    paper, alpha A, sigma S    cross entropy + A times that of the expected output for noise S
    N fresh folds              each image and N noisy copies of it, all of one weight; fresh noise each step
    N frozen folds             the published baseline: N noisy copies, one noise image each for all images
    noise only, N samples      N noisy copies alone
    second order               cross entropy + the second-order loss, with and without the first

All at equal steps, and the strongest also for the processor time that the second-order loss takes. The weight
of its trace is chosen on images cut from the training set.
Lesson: notebooks/03_losses.ipynb
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product

import torch
from torch import nn

from gaussreg_lab.datasets import Images
from gaussreg_lab.experiments.bench import (
    Bench,
    best,
    data_of,
    digest,
    generator,
    on,
    part_of,
    small_lenet,
    train_with,
)
from gaussreg_lab.losses import Loss, NoisyLoss, cross_entropy, weighted_sum
from gaussreg_lab.models import lenet, lenet8
from gaussreg_lab.moment_losses import AnalyticalMomentLoss, SecondOrderLoss
from gaussreg_lab.records import SEED
from gaussreg_lab.robustness import gaussian_robustness, noise_curve

SIGMA = 0.5
LEVELS = [0.0, 0.25, 0.5, 0.75, 1.0]
TRACE_WEIGHTS = (1.0, 2.0, 4.0, 8.0)
ALPHAS, SIGMAS, FOLDS = (1.0, 5.0, 20.0), (0.125, 0.5, 1.0), (1, 5, 10, 20)
HELD_OUT = 5  # every fifth training image is held out while the weight is chosen
NETWORKS = {
    "lenet8": lenet8,
    "lenet": lenet,
    "small lenet": small_lenet,
    "the paper's lenet": partial(lenet, channels=(32, 64), hidden=1024, pool=nn.MaxPool2d),
}


@dataclass(frozen=True)
class Size:
    """What is learned, and for how long; what a run has to know.

    train_size, test_size: None for all images there are.
    """

    data: str
    train_size: int | None
    test_size: int | None
    network: str
    epochs: int
    batch: int
    rate: float


SIZES = {
    "digits": Size("digits", None, None, "lenet8", epochs=20, batch=64, rate=0.003),
    "mnist": Size("mnist", 10_000, None, "lenet", epochs=4, batch=128, rate=0.001),
    "grid": Size("mnist", 4_000, 2_000, "small lenet", epochs=8, batch=128, rate=0.001),
    "full": Size("mnist", None, None, "lenet", epochs=20, batch=128, rate=0.001),
}
# on MNIST the claim's grid takes as long as all the rest, so it is a size of its own
COMPARED, GRIDS = ("digits", "mnist", "full"), ("digits", "grid", "full")
LONG = {"digits": 40}  # a second number of epochs for the main methods
CHOOSING_SEEDS = {"digits": 3, "mnist": 1, "full": 1}


def noise(bench: Bench) -> dict:
    """Choose the trace's weight, compare at equal steps and equal time, then measure the claim."""
    size = SIZES[bench.size]
    data = data_of(size.data, bench.root, size.train_size)
    about = {
        "data": size.data,
        "data SHA-256": digest(data),
        "training images": len(data.train.y),
        "test images": len(data.test.y[: size.test_size]),
        "network": size.network,
        "sigma": SIGMA,
        "noise levels": LEVELS,
        "epochs": size.epochs,
        "batch": size.batch,
        "learning rate": size.rate,
    }
    if bench.size in COMPARED:
        about["trace weight"] = _choose_trace_weight(bench, size)
        _compare(bench, size, about["trace weight"])
    if bench.size in GRIDS:
        _measure_the_claim(bench, size)
    return about


def _choose_trace_weight(bench: Bench, size: Size) -> float:
    """The weight with the best accuracy at the noise trained for."""
    named = {
        f"validation, trace weight {weight:g}": _setting(
            size, "second order", trace_weight=weight, part="validation"
        )
        for weight in TRACE_WEIGHTS
    }
    tried = bench.make(run, named, range(CHOOSING_SEEDS[bench.size]))
    return named[best(tried, lambda result: result["accuracy"][LEVELS.index(SIGMA)])]["trace_weight"]


def _compare(bench: Bench, size: Size, weight: float) -> None:
    """All at equal steps; then each for the processor time that the second-order loss takes."""
    methods = {
        "plain": _setting(size, "plain"),
        "paper, alpha 1": _setting(size, "paper", alpha=1.0, sigma=SIGMA),
        "noise only, 1 sample": _setting(size, "noise only", samples=1),
        "noise only, 5 samples": _setting(size, "noise only", samples=5),
        "1 fresh fold": _setting(size, "fresh folds", count=1),
        "5 fresh folds": _setting(size, "fresh folds", count=5),
        "second order": _setting(size, "second order", trace_weight=weight),
        "second order alone": _setting(size, "second order alone", trace_weight=weight),
    }
    bench.make(run, methods, bench.seeds)
    budget = size.epochs * _seconds_per_epoch(bench, "second order")
    rivals = {}
    for name in ("plain", "1 fresh fold", "5 fresh folds", "noise only, 1 sample"):
        epochs = max(1, round(budget / _seconds_per_epoch(bench, name)))
        # the name makes it another setting than the same number of epochs for another reason
        rivals[f"{name}, equal time"] = {**methods[name], "epochs": epochs, "why": "equal time"}
    bench.make(run, rivals, bench.seeds)
    if bench.size in LONG:
        names, epochs = ("plain", "1 fresh fold", "5 fresh folds", "second order"), LONG[bench.size]
        longer = {f"{name}, {epochs} epochs": {**methods[name], "epochs": epochs} for name in names}
        bench.make(run, longer, bench.seeds)


def _seconds_per_epoch(bench: Bench, name: str) -> float:
    runs = [result for key, result in bench.results.items() if key.startswith(f"{name} | ")]
    return sorted(result["seconds"] / result["epochs"] for result in runs)[len(runs) // 2]


def _measure_the_claim(bench: Bench, size: Size) -> None:
    """The paper's loss over its grid, against fresh folds and against the published ones."""
    named = {"plain": _setting(size, "plain")}
    for alpha, sigma in product(ALPHAS, SIGMAS):
        setting = _setting(size, "paper", alpha=alpha, sigma=sigma, why="grid")
        named[f"paper, alpha {alpha:g}, sigma {sigma:g}"] = setting
    for count in FOLDS:
        # the copies make an epoch longer, so fewer epochs are as many steps
        fewer = max(1, round(size.epochs / (count + 1)))
        same = _setting(size, "frozen folds", count=count)
        named[f"{count} frozen folds"] = {**same, "epochs": fewer}
        named[f"{count} frozen folds, all epochs"] = same
    for count in FOLDS:
        named[f"{count} fresh fold{'s' * (count > 1)}"] = _setting(size, "fresh folds", count=count)
    missing = {name: it for name, it in named.items() if f"{name}{SEED}{bench.seeds[0]}" not in bench.results}
    bench.make(run, missing, bench.seeds)


def _setting(size: Size, method: str, part: str = "test", why: str = "", **numbers) -> dict:
    return {**asdict(size), "method": method, "part": part, "why": why, **numbers}


# one run


def run(
    data: str,
    train_size: int | None,
    test_size: int | None,
    network: str,
    epochs: int,
    batch: int,
    rate: float,
    method: str,
    part: str,
    seed: int,
    why: str = "",
    root: str | None = None,
    device: str = "cpu",
    **numbers: float,
) -> dict:
    """Train one network with one loss, and judge it under noise on test or on validation images.

    numbers: of the method, as `loss_of` takes them. why: only tells apart settings that are otherwise equal.
    """
    train, test = data_of(data, root, train_size)
    test = part_of(test, slice(test_size))
    if part == "validation":
        held = torch.arange(len(train.y)) % HELD_OUT == 0
        train, test = part_of(train, ~held), part_of(train, held)
    if method == "frozen folds":
        train = frozen_folds(train, **numbers)
        loss = cross_entropy
    else:
        loss = loss_of(method, generator(seed, device), **numbers)
    train, test = on(device, train), on(device, test)
    model = NETWORKS[network](seed=seed).to(device)
    adam = torch.optim.Adam(model.parameters(), lr=rate)
    seconds = train_with(adam, model, train, loss, seed, epochs, batch)
    curve = noise_curve(model, *test, LEVELS, draws=5)
    return {
        "epochs": epochs,
        "seconds": seconds,
        "accuracy": [round(value, 5) for value in curve.mean.tolist()],
        "robustness": round(gaussian_robustness(model, test.x).mean, 5),
    }


def loss_of(method: str, drawn: torch.Generator, **numbers: float) -> Loss:
    """The loss called `method`, with its own numbers; random draws come from `drawn`.

    >>> loss_of("noise only", torch.Generator(), samples=5).samples
    5
    """
    losses: dict[str, Callable[..., Loss]] = {
        "plain": lambda: cross_entropy,
        "paper": lambda alpha, sigma: AnalyticalMomentLoss(sigma, alpha),
        "noise only": lambda samples: NoisyLoss(SIGMA, samples=samples, generator=drawn),
        "fresh folds": lambda count: weighted_sum(
            (1 / (count + 1), cross_entropy),
            (count / (count + 1), NoisyLoss(SIGMA, samples=count, generator=drawn)),
        ),
        "second order": lambda trace_weight: weighted_sum(
            (1.0, cross_entropy),
            (1.0, SecondOrderLoss(SIGMA, trace_weight=trace_weight, generator=drawn)),
        ),
        "second order alone": lambda trace_weight: SecondOrderLoss(
            SIGMA, trace_weight=trace_weight, generator=drawn
        ),
    }
    return losses[method](**numbers)


def frozen_folds(train: Images, count: int) -> Images:
    """The published baseline: `count` noisy copies with one noise image each, the same for all digits.

    >>> frozen_folds(Images(torch.zeros(3, 1, 8, 8), torch.zeros(3)), count=2).x.shape
    torch.Size([9, 1, 8, 8])
    """
    one_image = [torch.randn(train.x.shape[1:], generator=generator(fold)) for fold in range(count)]
    copies = [train.x, *(train.x + SIGMA * noise for noise in one_image)]
    return Images(torch.cat(copies), train.y.repeat(count + 1))
