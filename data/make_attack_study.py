"""The study behind lesson 05: adversarial training with and without spectral caps, over five seeds.

    python data/make_attack_study.py digits                # some 6 minutes on one core
    python data/make_attack_study.py mnist --root FOLDER   # some 25 minutes; FOLDER holds MNIST

Writes data/results/attacks_<name>.json after every run, and goes on where an earlier start ended.
Network and attacks as Farnia et al. have them: one hidden layer of 512, radius 0.05 and price 0.04 of the
mean length of a training image, attacks on the network's own predictions. On the digits, where so small a
jolt hardly matters, the radius is three times as large. Training and test accuracy are under the attack of
training. Each cap is chosen on images that are neither trained on nor tested on.
"""

import argparse
import math
from functools import partial

import torch
from study import SEEDS, Store, train_one

import gaussreg_lab as lab

STEPS, BATCH, RATE = 1500, 128, 0.001
BOUNDS = (1.0, 2.0, 4.0)


def attacks_for(train: lab.Images, times: float) -> dict[str, lab.attacks.Attack | None]:
    length = train.x.flatten(1).norm(dim=1).mean().item()
    radius = times * 0.05 * length
    return {
        "ERM": None,
        "FGM": partial(lab.fgm, radius=radius),
        "PGM": partial(lab.pgm, radius=radius),
        "WRM": partial(lab.wrm, gamma=0.04 * length),
    }


def under(attack, model, images: lab.Images) -> float:
    x = images.x if attack is None else torch.cat([attack(model, x, None) for x in images.x.split(500)])
    return lab.accuracy(model, x, images.y)


def run(sizes, train: lab.Images, test: lab.Images, attack, judge, bound: float, seed: int) -> dict:
    model = lab.mlp(sizes, seed=seed)
    if bound < math.inf:
        lab.cap_network(model, train.x[:1], bound)
    loss = lab.cross_entropy if attack is None else lab.AdversarialLoss(attack)
    epochs = round(STEPS / -(-len(train.y) // BATCH))
    model, seconds = train_one(model, train, loss, seed, epochs, BATCH, RATE)
    return {
        "bound": bound if bound < math.inf else None,
        "seconds": round(seconds, 2),
        "training accuracy": under(attack, model, train),
        "test accuracy": under(attack, model, test),
        "clean test accuracy": lab.accuracy(model, *test),
        "test accuracy under PGM, true labels": lab.accuracy(model, judge(model, *test), test.y),
        "Lipschitz bound": round(lab.lipschitz_bound(model, train.x[:1]), 2),
    }


def study(name: str, sizes, times: float, train: lab.Images, held: lab.Images, test: lab.Images) -> None:
    attacks = attacks_for(train, times)
    judge = attacks["PGM"]
    about = {"data": name, "training images": len(train.y), "test images": len(test.y), "network": sizes}
    about |= {"validation images": len(held.y), "radius": round(judge.keywords["radius"], 4)}
    about |= {"gamma": round(attacks["WRM"].keywords["gamma"], 4), "steps": STEPS, "batch": BATCH}
    store = Store(f"attacks_{name}", about)
    for way, attack in attacks.items():
        scores = {
            bound: store.run(
                f"validation, {way}, cap {bound:g}",
                0,
                partial(run, sizes, train, held, attack, judge, bound, 0),
            )["test accuracy"]
            for bound in BOUNDS
        }
        best = max(scores, key=scores.get)
        for label, bound in ((way, math.inf), (f"{way} with caps", best)):
            for seed in SEEDS:
                store.run(label, seed, partial(run, sizes, train, test, attack, judge, bound, seed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("name", choices=["digits", "mnist"])
    parser.add_argument("--root", help="folder of MNIST")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    digits = arguments.name == "digits"
    data = lab.digits() if digits else lab.mnist(arguments.root, train_size=4_000)
    order = torch.randperm(len(data.train.y), generator=torch.Generator().manual_seed(0))
    held = 400 if digits else 2_000
    held_out, train = (lab.Images(*(it[part] for it in data.train)) for part in (order[:held], order[held:]))
    test = data.test if digits else lab.Images(*(it[:2_000] for it in data.test))
    study(arguments.name, (train.x[0].numel(), 512, 10), 3.0 if digits else 1.0, train, held_out, test)


if __name__ == "__main__":
    main()
