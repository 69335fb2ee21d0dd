"""The study behind lesson 04: penalties on the Jacobian when there is little data, over five seeds.

    python data/make_gradient_study.py digits                # some 10 minutes on one core
    python data/make_gradient_study.py mnist --root FOLDER   # some 30 minutes; FOLDER holds MNIST

Writes data/results/gradients_<name>.json after every run, and goes on where an earlier start ended.
The same number of steps for every method and size. Each weight is chosen among a few, for each method and
size, on images that are neither trained on nor tested on: the part of the training set that is left over.
"""

import argparse
from collections.abc import Callable
from functools import partial

import torch
from study import SEEDS, Store, train_one
from torch import nn

import gaussreg_lab as lab

STEPS, BATCH, RATE = 1000, 50, 0.001
CHOSEN_WITH = range(2)  # seeds that a weight is chosen with
# weights for pixels in [0, 1]; the authors' are for standardised inputs, ten times as large on MNIST
WEIGHTS = {
    "weight decay": (1e-4, 1e-3, 1e-2, 1e-1),
    "DataGrad": (0.3, 1.0, 3.0, 10.0),
    "SpectReg": (3e-4, 1e-3, 3e-3, 1e-2),
    "FrobReg, 1 projection": (3e-4, 1e-3, 3e-3, 1e-2),
    "JacReg, 1 projection": (0.03, 0.1, 0.3, 1.0, 3.0),
}


def loss_of(method: str, weight: float, seed: int) -> lab.Loss:
    drawn = torch.Generator().manual_seed(seed)
    penalties = {
        "DataGrad": lab.DataGrad(),
        "SpectReg": lab.SpectReg(drawn),
        "FrobReg, 1 projection": lab.FrobReg(1, drawn),
        "JacReg, 1 projection": lab.JacReg(1, drawn),
        "dropout and DataGrad": lab.DataGrad(),
    }
    return lab.Penalized(penalties[method], weight) if method in penalties else lab.cross_entropy


def network(make: Callable, method: str, seed: int) -> nn.Sequential:
    """Dropout, where the method has it, before the last layer, as the authors' network has it."""
    *layers, last = make(seed=seed)
    return (
        nn.Sequential(*layers, nn.Dropout(0.5), last) if "dropout" in method else nn.Sequential(*layers, last)
    )


def run(make: Callable, train: lab.Images, test: lab.Images, method: str, weight: float, seed: int) -> dict:
    torch.manual_seed(seed)  # dropout's masks
    decay = weight if method == "weight decay" else 0.0
    epochs = round(STEPS / -(-len(train.y) // BATCH))
    model, seconds = train_one(
        network(make, method, seed), train, loss_of(method, weight, seed), seed, epochs, BATCH, RATE, decay
    )
    with torch.no_grad():
        z = torch.cat([model(x) for x in test.x.split(1000)])
    return {
        "weight": weight,
        "seconds": round(seconds, 2),
        "accuracy": lab.accuracy(model, *test),
        "test loss": round(nn.functional.cross_entropy(z, test.y).item(), 5),
        "under noise": lab.accuracy_under_noise(model, *test, sigma=0.25, draws=1).mean,
    }


def study(name: str, make: Callable, data: lab.Split, sizes: tuple[int, ...], validation: int) -> None:
    store = Store(
        f"gradients_{name}",
        {
            "data": name,
            "sizes": sizes,
            "validation images": validation,
            "test images": len(data.test.y),
            "steps": STEPS,
            "batch": BATCH,
            "learning rate": RATE,
        },
    )
    held = lab.Images(*(it[-validation:] for it in data.train))
    for size in sizes:
        weights = {"plain": 0.0, "dropout": 0.0}
        for method, several in WEIGHTS.items():
            scores = {}
            for weight in several:
                label = f"validation, {method}, weight {weight:g}, {size} images"
                small = lab.Images(*(it[:size] for it in data.train))
                tried = [
                    store.run(label, seed, partial(run, make, small, held, method, weight, seed))
                    for seed in CHOSEN_WITH
                ]
                scores[weight] = sum(it["accuracy"] for it in tried)
            weights[method] = max(scores, key=scores.get)
        weights["dropout and DataGrad"] = weights["DataGrad"]
        for seed in SEEDS:
            train = lab.Images(*(it[:-validation] for it in data.train))
            picked = torch.randperm(len(train.y), generator=torch.Generator().manual_seed(seed))[:size]
            small = lab.Images(train.x[picked], train.y[picked])
            for method, weight in weights.items():
                label = f"{method}, {size} images"
                store.forget(label, seed, unless={"weight": weight})  # another one has been chosen since
                store.run(label, seed, partial(run, make, small, data.test, method, weight, seed))


def shuffled(data: lab.Split) -> lab.Split:
    order = torch.randperm(len(data.train.y), generator=torch.Generator().manual_seed(0))
    return lab.Split(lab.Images(*(it[order] for it in data.train)), data.test)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("name", choices=["digits", "mnist"])
    parser.add_argument("--root", help="folder of MNIST")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.name == "digits":
        study("digits", lab.lenet8, shuffled(lab.digits()), sizes=(200, 500, 1000), validation=400)
    else:
        data = shuffled(lab.mnist(arguments.root, train_size=5_000))
        small = partial(lab.lenet, channels=(6, 16), hidden=84)  # as the authors' network
        study("mnist", small, data, sizes=(200, 500, 2000), validation=2000)


if __name__ == "__main__":
    main()
