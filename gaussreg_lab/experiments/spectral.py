"""Training against attacks, with and without caps on the layers' norms.

The claim (Farnia, Zhang, Tse, ICLR 2019): under adversarial training the gap between training and test
accuracy is large, and capping the spectral norm of every layer closes much of it; without attacks caps hardly
matter.

ERM, FGM, PGM and WRM, each without caps and with the best of a few. Attacks as the authors have them: radius
0.05 and price 0.04 of the mean length of a training image, on the network's own predictions; on the digits,
where so small a jolt hardly matters, the radius is three times as large. Training and test accuracy are under
the attack of training. Each cap is chosen on images that are neither trained on nor tested on.
Lesson: notebooks/05_spectral.ipynb
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product

import torch
from torch import nn

from gaussreg_lab.attacks import AdversarialLoss, Attack, fgm, pgm, wrm
from gaussreg_lab.datasets import Images
from gaussreg_lab.experiments.bench import (
    Bench,
    best,
    data_of,
    digest,
    images_of,
    on,
    small_lenet,
    train_with,
)
from gaussreg_lab.lipschitz import lipschitz_bound
from gaussreg_lab.losses import cross_entropy
from gaussreg_lab.models import mlp
from gaussreg_lab.records import SEED
from gaussreg_lab.robustness import accuracy
from gaussreg_lab.spectral import cap_network

RATE = 0.001
WAYS = ("ERM", "FGM", "PGM", "WRM")
BOUNDS = (1.0, 2.0, 4.0)
NETWORKS: dict[str, Callable[..., nn.Sequential]] = {
    "mlp 64-512-10": partial(mlp, (64, 512, 10)),
    "mlp 784-512-10": partial(mlp, (784, 512, 10)),
    "small lenet": small_lenet,
}


@dataclass(frozen=True)
class Size:
    """What is learned; what a run has to know.

    train_size: images loaded; the first held_out of them, in an order that is always the same, are held out.
    test_size: images judged on. times: the radius in units of the authors'.
    """

    data: str
    train_size: int | None
    held_out: int
    test_size: int
    network: str
    times: float
    steps: int
    batch: int = 128


SIZES = {
    "digits": Size("digits", None, 400, 355, "mlp 64-512-10", times=3.0, steps=1500),
    "mnist": Size("mnist", 4_000, 2_000, 2_000, "mlp 784-512-10", times=1.0, steps=1500),
    # few images in small batches: many epochs for little time, so that there is a gap to close
    "convnet": Size("mnist", 3_000, 2_000, 2_000, "small lenet", times=1.0, steps=800, batch=32),
    "full": Size("mnist", None, 5_000, 10_000, "small lenet", times=1.0, steps=80_000),
}


def spectral(bench: Bench) -> dict:
    """Choose a cap for each way of training, then run each without caps and with the chosen one."""
    size = SIZES[bench.size]
    train, held, test = images_of(size.data, size.train_size, size.held_out, size.test_size, bench.root)
    tried = {
        f"validation, {way}, cap {bound:g}": _setting(size, way, bound, "validation")
        for way, bound in product(WAYS, BOUNDS)
    }
    results = bench.make(run, tried, seeds=[0])
    chosen, final = {}, {}
    for way in WAYS:
        of_way = {key: result for key, result in results.items() if tried[key.split(SEED)[0]]["way"] == way}
        chosen[way] = tried[best(of_way, lambda result: result["test accuracy"])]["bound"]
        final |= {way: _setting(size, way, None), f"{way} with caps": _setting(size, way, chosen[way])}
    bench.make(run, final, bench.seeds)
    attacks = attacks_for(train, size.times)
    return {
        "data": size.data,
        "data SHA-256": digest(data_of(size.data, bench.root, size.train_size)),
        "training images": len(train.y),
        "test images": len(test.y),
        "network": size.network,
        "validation images": len(held.y),
        "radius": round(attacks["PGM"].keywords["radius"], 4),
        "gamma": round(attacks["WRM"].keywords["gamma"], 4),
        "chosen caps": chosen,
        "steps": size.steps,
        "batch": size.batch,
        "learning rate": RATE,
    }


def _setting(size: Size, way: str, bound: float | None, part: str = "test") -> dict:
    return {**asdict(size), "way": way, "bound": bound, "part": part}


# one run


def run(
    data: str,
    train_size: int | None,
    held_out: int,
    test_size: int,
    network: str,
    times: float,
    steps: int,
    batch: int,
    way: str,
    bound: float | None,
    part: str,
    seed: int,
    root: str | None = None,
    device: str = "cpu",
) -> dict:
    """Train one network in one way, and judge it on test or on validation images.

    bound: of every layer's norm, None for no caps.
    """
    train, held, test = images_of(data, train_size, held_out, test_size, root)
    train, test = on(device, train), on(device, test if part == "test" else held)
    attacks = attacks_for(train, times)
    attack = attacks[way]
    model = NETWORKS[network](seed=seed).to(device)
    if bound is not None:
        cap_network(model, train.x[:1], bound)
    loss = cross_entropy if attack is None else AdversarialLoss(attack)
    adam = torch.optim.Adam(model.parameters(), lr=RATE)
    epochs = round(steps / -(-len(train.y) // batch))
    seconds = train_with(adam, model, train, loss, seed, epochs, batch)
    return {
        "bound": bound,
        "seconds": seconds,
        "training accuracy": _under(attack, model, train),
        "test accuracy": _under(attack, model, test),
        "clean test accuracy": accuracy(model, *test),
        "test accuracy under PGM, true labels": accuracy(model, attacks["PGM"](model, *test), test.y),
        "Lipschitz bound": round(lipschitz_bound(model, train.x[:1]), 2),
    }


def attacks_for(train: Images, times: float) -> dict[str, Attack | None]:
    """The attacks at the authors' strengths, which follow from the mean length of a training image.

    >>> attacks_for(Images(torch.ones(2, 1, 3, 3), torch.zeros(2)), times=2.0)["FGM"].keywords["radius"]
    0.30000000000000004
    """
    length = train.x.flatten(1).norm(dim=1).mean().item()
    radius = times * 0.05 * length
    return {
        "ERM": None,
        "FGM": partial(fgm, radius=radius),
        "PGM": partial(pgm, radius=radius),
        "WRM": partial(wrm, gamma=0.04 * length),
    }


def _under(attack: Attack | None, model: nn.Module, images: Images) -> float:
    x = images.x if attack is None else torch.cat([attack(model, x, None) for x in images.x.split(500)])
    return accuracy(model, x, images.y)
