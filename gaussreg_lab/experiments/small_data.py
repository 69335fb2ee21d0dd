"""Penalties on the Jacobian when there is little data, against weight decay and dropout.

The claim (Varga, Csiszarik, Zombori, arXiv 1712.09936): on a few hundred or thousand images, gradient
regularization improves accuracy beyond what dropout and weight decay do.

The same number of steps for every method and size. Each weight is chosen among a few, for each method and
size, on images that are neither trained on nor tested on: the last ones of the training set.
Lesson: notebooks/04_gradients.ipynb
"""

from dataclasses import dataclass

import torch
from torch import nn

from gaussreg_lab.datasets import Images, Split
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
from gaussreg_lab.gradients import DataGrad, FrobReg, JacReg, Penalized, SpectReg
from gaussreg_lab.losses import Loss, cross_entropy
from gaussreg_lab.models import lenet8
from gaussreg_lab.robustness import accuracy, accuracy_under_noise

BATCH, RATE = 50, 0.001
CHOOSING_SEEDS = range(2)
# for pixels in [0, 1]; the authors' are for standardised inputs, ten times as large on MNIST
WEIGHTS = {
    "weight decay": (1e-4, 1e-3, 1e-2, 1e-1),
    "DataGrad": (0.3, 1.0, 3.0, 10.0),
    "SpectReg": (3e-4, 1e-3, 3e-3, 1e-2),
    "FrobReg, 1 projection": (3e-4, 1e-3, 3e-3, 1e-2),
    "JacReg, 1 projection": (0.03, 0.1, 0.3, 1.0, 3.0),
}
NETWORKS = {
    "digits": lenet8,
    "mnist": small_lenet,
}


@dataclass(frozen=True)
class Size:
    """What is learned: `counts` images at a time; train_size and held_out: images loaded, and held out."""

    data: str
    train_size: int | None
    counts: tuple[int, ...]
    held_out: int
    steps: int = 1000


SIZES = {
    "digits": Size("digits", None, (200, 500, 1000), held_out=400),
    "mnist": Size("mnist", 5_000, (200, 500, 1000, 2000), held_out=2000),
    "full": Size("mnist", None, (500, 1000, 2000, 5000, 20_000), held_out=10_000, steps=10_000),
}


def small_data(bench: Bench) -> dict:
    """For each number of images: choose every method's weight, then run all methods with all seeds."""
    size = SIZES[bench.size]
    data = data_of(size.data, bench.root, size.train_size)
    for count in size.counts:
        weights = {"plain": 0.0, "dropout": 0.0}
        weights |= {method: _choose(bench, size, method, count) for method in WEIGHTS}
        weights["dropout and DataGrad"] = weights["DataGrad"]
        named = {
            f"{method}, {count} images": _setting(size, count, method, weight)
            for method, weight in weights.items()
        }
        bench.make(run, named, bench.seeds)
    return {
        "data": size.data,
        "data SHA-256": digest(data),
        "sizes": list(size.counts),
        "validation images": size.held_out,
        "test images": len(data.test.y),
        "steps": size.steps,
        "batch": BATCH,
        "learning rate": RATE,
    }


def _choose(bench: Bench, size: Size, method: str, count: int) -> float:
    named = {
        f"validation, {method}, weight {weight:g}, {count} images": _setting(
            size, count, method, weight, "validation"
        )
        for weight in WEIGHTS[method]
    }
    tried = bench.make(run, named, CHOOSING_SEEDS)
    return named[best(tried, lambda result: result["accuracy"])]["weight"]


def _setting(size: Size, count: int, method: str, weight: float, part: str = "test") -> dict:
    loaded = {"data": size.data, "train_size": size.train_size, "held_out": size.held_out}
    return {**loaded, "steps": size.steps, "count": count, "method": method, "weight": weight, "part": part}


# one run


def run(
    data: str,
    train_size: int | None,
    held_out: int,
    steps: int,
    count: int,
    method: str,
    weight: float,
    part: str,
    seed: int,
    root: str | None = None,
    device: str = "cpu",
) -> dict:
    """Train one network on `count` images with one penalty, and judge it on test or on validation images."""
    torch.manual_seed(seed)  # dropout's masks
    train, test = _images(data_of(data, root, train_size), count, held_out, part, seed)
    train, test = on(device, train), on(device, test)
    model = network(data, method, seed).to(device)
    decay = weight if method == "weight decay" else 0.0
    adam = torch.optim.Adam(model.parameters(), lr=RATE, weight_decay=decay)
    epochs = round(steps / -(-count // BATCH))
    loss = loss_of(method, weight, generator(seed, device))
    seconds = train_with(adam, model, train, loss, seed, epochs, BATCH)
    with torch.no_grad():
        z = torch.cat([model(x) for x in test.x.split(1000)])
    return {
        "weight": weight,
        "seconds": seconds,
        "accuracy": accuracy(model, *test),
        "test loss": round(nn.functional.cross_entropy(z, test.y).item(), 5),
        "under noise": accuracy_under_noise(model, *test, sigma=0.25, draws=1).mean,
    }


def _images(data: Split, count: int, held_out: int, part: str, seed: int) -> tuple[Images, Images]:
    """The same images for every seed to choose by, others for each seed in the end."""
    every = shuffled(data.train)
    if part == "validation":
        return part_of(every, slice(count)), part_of(every, slice(-held_out, None))
    pool = part_of(every, slice(-held_out))
    picked = torch.randperm(len(pool.y), generator=generator(seed))[:count]
    return part_of(pool, picked), data.test


def network(data: str, method: str, seed: int) -> nn.Sequential:
    """With dropout before the last layer where the method has it, as the authors' network.

    >>> network("digits", "dropout", seed=0)[-2]
    Dropout(p=0.5, inplace=False)
    """
    *layers, last = NETWORKS[data](seed=seed)
    return nn.Sequential(*layers, *([nn.Dropout(0.5)] if "dropout" in method else []), last)


def loss_of(method: str, weight: float, drawn: torch.Generator) -> Loss:
    """Cross entropy, with the method's penalty if it has one; random draws come from `drawn`.

    >>> loss_of("DataGrad", 3.0, torch.Generator()).weight
    3.0
    """
    penalties = {
        "DataGrad": DataGrad(),
        "SpectReg": SpectReg(drawn),
        "FrobReg, 1 projection": FrobReg(1, drawn),
        "JacReg, 1 projection": JacReg(1, drawn),
        "dropout and DataGrad": DataGrad(),
    }
    return Penalized(penalties[method], weight) if method in penalties else cross_entropy
