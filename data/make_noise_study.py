"""The study behind lesson 03: training with noise, sampled and in closed form, over five seeds.

    python data/make_noise_study.py digits                    # some 25 minutes on one core
    python data/make_noise_study.py mnist --root FOLDER       # some 35 minutes; FOLDER holds MNIST

Writes data/results/noise_<name>.json after every run, and goes on where an earlier start ended.
The weight of the trace is chosen on images cut from the training set, never on the test set.
"""

import argparse
from itertools import product

import torch
from study import SEEDS, Store, generator, split_off, train_one

import gaussreg_lab as lab

SIGMA = 0.5
LEVELS = [0.0, 0.25, 0.5, 0.75, 1.0]
WEIGHTS = [1.0, 2.0, 4.0, 8.0]


def noise_only(samples: int):
    return lambda seed: lab.NoisyLoss(SIGMA, samples=samples, generator=generator(seed))


def folds(count: int):
    """The digit as it is and `count` noisy copies of it, all of one weight: fresh noise at each step."""
    return lambda seed: lab.weighted_sum(
        (1 / (count + 1), lab.cross_entropy),
        (count / (count + 1), lab.NoisyLoss(SIGMA, samples=count, generator=generator(seed))),
    )


def second_order(weight: float):
    def loss(seed: int):
        closed = lab.SecondOrderLoss(SIGMA, trace_weight=weight, generator=generator(seed))
        return lab.weighted_sum((1.0, lab.cross_entropy), (1.0, closed))

    return loss


def moments(alpha: float, sigma: float = SIGMA):
    return lambda seed: lab.AnalyticalMomentLoss(sigma, alpha)


def frozen_folds(train: lab.Images, count: int) -> lab.Images:
    """The published baseline: `count` noisy copies with one noise image each, the same for all digits."""
    one_image = [torch.randn(train.x.shape[1:], generator=generator(fold)) for fold in range(count)]
    copies = [train.x, *(train.x + SIGMA * noise for noise in one_image)]
    return lab.Images(torch.cat(copies), train.y.repeat(count + 1))


def judge(model, images: lab.Images) -> dict:
    curve = lab.noise_curve(model, *images, LEVELS, draws=5)
    return {
        "accuracy": [round(value, 5) for value in curve.mean.tolist()],
        "robustness": round(lab.gaussian_robustness(model, images.x).mean, 5),
    }


class Study:
    """One network on one data set, for one number of epochs: trained with one loss after the other."""

    def __init__(self, name: str, make, data: lab.Split, epochs: int, batch: int, rate: float) -> None:
        self.make, self.data, self.epochs, self.batch, self.rate = make, data, epochs, batch, rate
        about = {
            "data": name,
            "training images": len(data.train.y),
            "test images": len(data.test.y),
            "sigma": SIGMA,
            "noise levels": LEVELS,
            "epochs": epochs,
            "batch": batch,
            "learning rate": rate,
        }
        self.store = Store(f"noise_{name}", about)
        self.results = self.store.results

    def run(self, name: str, loss, seed: int, epochs=None, train=None, judged_by=None) -> dict:
        epochs, train = epochs or self.epochs, train or self.data.train

        def once() -> dict:
            model, seconds = train_one(
                self.make(seed=seed), train, loss(seed), seed, epochs, self.batch, self.rate
            )
            judged = judge(model, judged_by or self.data.test)
            return {"epochs": epochs, "seconds": round(seconds, 2), **judged}

        return self.store.run(name, seed, once)

    def seconds_per_epoch(self, name: str) -> float:
        runs = [run for key, run in self.results["runs"].items() if key.startswith(f"{name} | ")]
        return sorted(run["seconds"] / run["epochs"] for run in runs)[len(runs) // 2]


def choose_weight(study: Study, every: int, seeds=range(3)) -> float:
    """The weight with the best accuracy at the noise trained for, on images held out from training."""
    fit_on, held_out = split_off(study.data.train, every)
    scores = {}
    for weight in WEIGHTS:
        runs = [
            study.run(
                f"validation, trace weight {weight:g}", second_order(weight), seed, None, fit_on, held_out
            )
            for seed in seeds
        ]
        scores[weight] = sum(run["accuracy"][LEVELS.index(SIGMA)] for run in runs) / len(runs)
    study.results["about"]["trace weight"] = best = max(scores, key=scores.get)
    return best


def compare(study: Study, weight: float, long: int) -> None:
    """All at equal steps; then each for the processor time that the second-order loss takes."""
    methods = {
        "plain": lambda seed: lab.cross_entropy,
        "paper, alpha 1": moments(1.0),
        "noise only, 1 sample": noise_only(1),
        "noise only, 5 samples": noise_only(5),
        "1 fresh fold": folds(1),
        "5 fresh folds": folds(5),
        "second order": second_order(weight),
        "second order alone": lambda seed: lab.SecondOrderLoss(SIGMA, 1, weight, generator(seed)),
    }
    for seed, (name, loss) in product(SEEDS, methods.items()):
        study.run(name, loss, seed)
    budget = study.epochs * study.seconds_per_epoch("second order")
    for name in ("plain", "1 fresh fold", "5 fresh folds", "noise only, 1 sample"):
        epochs = max(1, round(budget / study.seconds_per_epoch(name)))
        for seed in SEEDS:
            study.run(f"{name}, equal time", methods[name], seed, epochs)
    if long:
        for seed, name in product(SEEDS, ("plain", "1 fresh fold", "5 fresh folds", "second order")):
            study.run(f"{name}, {long} epochs", methods[name], seed, long)


def measure_the_claim(study: Study) -> None:
    """Robustness of the paper's loss over its grid, against fresh folds and against the published ones."""
    for seed, alpha, sigma in product(SEEDS, (1.0, 5.0, 20.0), (0.125, 0.5, 1.0)):
        study.run(f"paper, alpha {alpha:g}, sigma {sigma:g}", moments(alpha, sigma), seed)
    for seed, count in product(SEEDS, (10, 20)):
        study.run(f"{count} fresh folds", folds(count), seed)
    for seed, count in product(SEEDS, (1, 5, 10, 20)):
        # the copies make an epoch longer, so fewer epochs are as many steps
        epochs = max(1, round(study.epochs / (count + 1)))
        train = frozen_folds(study.data.train, count)
        study.run(f"{count} frozen folds", lambda seed: lab.cross_entropy, seed, epochs, train)
        study.run(
            f"{count} frozen folds, all epochs", lambda seed: lab.cross_entropy, seed, study.epochs, train
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("name", choices=["digits", "mnist"])
    parser.add_argument("--root", help="folder of MNIST")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.name == "digits":
        study = Study("digits", lab.lenet8, lab.digits(), epochs=20, batch=64, rate=0.003)
        compare(study, choose_weight(study, every=5), long=40)
        measure_the_claim(study)
    else:
        data = lab.mnist(arguments.root, train_size=10_000)
        study = Study("mnist", lab.lenet, data, epochs=4, batch=128, rate=0.001)
        compare(study, choose_weight(study, every=5, seeds=range(1)), long=0)


if __name__ == "__main__":
    main()
