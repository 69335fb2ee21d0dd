"""How the cost of a step grows with width, depth, batch, classes and image size: slopes on log axes.

Written to data/results/cost_growth.json, where the lessons read it.
"""

import json
import math
import statistics
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path

import torch
from ratios import elapsed
from torch import nn

import gaussreg_lab as lab
from gaussreg_lab.training import step

RECORD = Path(__file__).parents[2] / "data" / "results" / "cost_growth.json"
TURNS = 9
USUAL = {"width": 16, "depth": 3, "batch": 64, "classes": 10, "image size": 16}
AXES = {
    "width": (8, 16, 32, 64),
    "depth": (2, 4, 8, 16),
    "batch": (32, 64, 128, 256),
    "classes": (5, 10, 20, 40),
    "image size": (8, 16, 32, 64),
}
METHODS: dict[str, lab.Loss] = {
    "plain": lab.cross_entropy,
    "expected output": lab.AnalyticalMomentLoss(0.25),
    "second order": lab.SecondOrderLoss(0.25),
    "FrobReg, 1 projection": lab.Penalized(lab.FrobReg(1), 1e-3),
    "FrobReg, exact": lab.Penalized(lab.FrobReg(), 1e-3),
    "caps": lab.cross_entropy,
    "PGM, 15 steps": lab.AdversarialLoss(partial(lab.pgm, radius=0.5)),
    "AMP": lab.cross_entropy,
}


def network(width: int, depth: int, classes: int) -> nn.Sequential:
    """3x3 convolutions of one width, ReLUs, an average of the pixels, a linear layer."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs in (1, *[width] * (depth - 1)):
        layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AvgPool2d(4), nn.Flatten(), nn.LazyLinear(classes))


def step_of(method: str, at: dict[str, int]) -> Callable[[], float]:
    generator = torch.Generator().manual_seed(0)
    side, batch, classes = at["image size"], at["batch"], at["classes"]
    x = torch.rand(batch, 1, side, side, generator=generator)
    y = torch.randint(classes, (batch,), generator=generator)
    model = network(at["width"], at["depth"], classes).train()
    model(x[:1])
    if method == "caps":
        lab.cap_network(model, x[:1], bound=1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    if method == "AMP":
        optimizer = lab.AMP(optimizer, epsilon=1e-3)
    return lambda: step(model, x, y, METHODS[method], optimizer)


def slope(sizes: tuple[int, ...], times: list[float]) -> float:
    """Of the straight line through log time over log size: 1 if twice the size takes twice as long."""
    x, y = ([math.log(it) for it in several] for several in (sizes, times))
    return statistics.linear_regression(x, y).slope


def measure() -> dict:
    runs = {}
    for axis, sizes in AXES.items():
        steps = {(m, size): step_of(m, {**USUAL, axis: size}) for m in METHODS for size in sizes}
        times = {key: [] for key in steps}
        for turn in range(TURNS + 1):
            for key, one_step in steps.items():
                seconds = elapsed(one_step)
                if turn:  # the first one allocates
                    times[key].append(seconds)
        for method in METHODS:
            ms = [round(1000 * statistics.median(times[method, size]), 3) for size in sizes]
            runs[f"{axis} | {method}"] = {"sizes": sizes, "ms": ms, "slope": round(slope(sizes, ms), 2)}
    about = {"usual": USUAL, "threads": torch.get_num_threads(), "torch": torch.__version__}
    record = {"about": {**about, "date": date.today().isoformat()}, "runs": runs}
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
    return {key: {"slope": run["slope"], "ms": run["ms"]} for key, run in runs.items()}


def sections() -> dict:
    return {"growth of a step's time: slopes on log axes": measure}
