"""What Jacobian penalties, spectral caps and adversarial training cost, in plain training steps.

    .venv/bin/python tests/benchmarks/jolts.py       # some four minutes; writes jolts.json

Every figure is a ratio measured in one run, turn by turn (ratios.py). Run it on a quiet machine. The ways
that a user would otherwise take stand beside ours: one backward pass per class without sharing the forward
pass, and torch's spectral norm of the flattened kernel, which is another number for a convolution.
"""

import copy
import json
import platform
from functools import partial
from pathlib import Path

import torch
from ratios import compare
from torch import nn

import gaussreg_lab as lab
from gaussreg_lab.training import step

THREADS = 2
BATCH = 128


def step_of(model: nn.Module, loss: lab.Loss):
    """One training step on random images, as `fit` makes it."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(BATCH, 1, 28, 28, generator=generator)
    y = torch.randint(10, (BATCH,), generator=generator)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    return lambda: step(model, x, y, loss, optimizer)


def textbook_frobenius(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Cross entropy, and the penalty with a forward pass of its own, class by class."""
    at = x.clone().requires_grad_()
    z = model(at)
    rows = [torch.autograd.grad(z[:, c].sum(), at, create_graph=True)[0] for c in range(z.shape[1])]
    return lab.cross_entropy(model, x, y) + 1e-3 * sum(row.square().sum() for row in rows) / len(x)


def flattened(model: nn.Module) -> nn.Module:
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.utils.parametrizations.spectral_norm(layer)
    return model


def penalties(model: nn.Module) -> dict:
    ways = {
        "cross entropy + DataGrad": lab.Penalized(lab.DataGrad(), 1e-3),
        "cross entropy + SpectReg": lab.Penalized(lab.SpectReg(), 1e-3),
        "cross entropy + FrobReg, 1 projection": lab.Penalized(lab.FrobReg(1), 1e-3),
        "cross entropy + DifferenceReg, 1 direction": lab.Penalized(lab.DifferenceReg(), 1e-3),
        "cross entropy + FrobReg, all 10 classes": lab.Penalized(lab.FrobReg(), 1e-3),
        "the same, textbook": textbook_frobenius,
    }
    return compare(
        step_of(model, lab.cross_entropy), {name: step_of(model, way) for name, way in ways.items()}
    )


def caps(make) -> dict:
    example = torch.zeros(1, 1, 28, 28)
    ways = {
        "caps on all layers": lab.cap_network(make(), example, bound=1.0),
        "caps that do nothing": lab.cap_network(make(), example, bound=1e6),
        "torch's spectral norm, flattened": flattened(make()),
    }
    return compare(
        step_of(make(), lab.cross_entropy),
        {name: step_of(model, lab.cross_entropy) for name, model in ways.items()},
        turns=31,
    )


def attacks(model: nn.Module) -> dict:
    ways = {
        "FGM": lab.AdversarialLoss(partial(lab.fgm, radius=0.5)),
        "PGM, 15 steps": lab.AdversarialLoss(partial(lab.pgm, radius=0.5)),
        "WRM, 15 steps": lab.AdversarialLoss(partial(lab.wrm, gamma=0.4)),
    }
    return compare(
        step_of(model, lab.cross_entropy), {name: step_of(model, way) for name, way in ways.items()}, turns=7
    )


def norms() -> dict:
    """A converged norm by Lanczos, against 100 power iterations, which get less far."""
    torch.manual_seed(0)
    layer = nn.Conv2d(64, 64, 3, padding=1).double()
    linear = lab.layer_map(layer, (16, 16))
    start = lab.random_start(linear, layer.weight)
    return compare(
        lambda: lab.power_iteration(linear, start, tolerance=0.0, most=100),
        {"Lanczos to a residual of 0.03, an error of about 0.001": lambda: lab.lanczos(linear, start, 0.03)},
        turns=7,
    )


def main() -> None:
    torch.set_num_threads(THREADS)
    networks = {  # the papers pool by the maximum, the lab by the average, whose kernels are slower
        "LeNet": partial(lab.lenet, channels=(6, 16), hidden=84, pool=nn.MaxPool2d),
        "wide LeNet": partial(lab.lenet, channels=(32, 64), hidden=1024, pool=nn.MaxPool2d),
        "the lab's LeNet": lab.lenet,
    }
    report = {"about": {"torch": torch.__version__, "threads": THREADS, "machine": platform.machine()}}
    for name, make in networks.items():
        model = make()
        report[f"{name}: penalties, in plain steps"] = penalties(model)
        report[f"{name}: caps, in plain steps"] = caps(make)
        report[f"{name}: adversarial training, in plain steps"] = attacks(copy.deepcopy(model))
    report["operator norm of 64x64x3x3 at 16x16, in 100 power iterations"] = norms()
    Path(__file__).with_name("jolts.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
