"""What the page costs: a panel that follows a slider, a converged operator norm, the package's import."""

import subprocess
import sys

import torch
from ratios import Ratios, compare, elapsed
from torch import nn

import gaussreg_lab as lab
from gaussreg_lab.figures import bars, curve


def panel_update() -> Ratios:
    """A move of a slider, against a figure that is built and drawn anew: a curve of 400 points, 40 bars."""
    x, generator = torch.linspace(-3, 3, 400), torch.Generator().manual_seed(0)
    heights = torch.rand(40, generator=generator)

    def scenery():
        figure, (left, right) = lab.new_figure((1, 1))
        left.set(xlim=(-3, 3), ylim=(-2, 2), xlabel="x", ylabel="y", title="a curve")
        right.set(xlim=(0, 40), ylim=(0, 1), xlabel="bin", ylabel="share", title="bars")
        return figure, left, right

    def draw(left, right, level: float) -> str:
        curve(left, x, level * torch.sin(3 * x))
        bars(right, torch.arange(40), level * heights, width=4)
        return f"Level {level:.2f}."

    figure, left, right = scenery()
    panel = lab.explore(lambda level: draw(left, right, level), figure, level=(0, 1, 0.5))
    levels = [0.025 * k for k in range(41)] * 100

    def rebuilt() -> None:
        figure, left, right = scenery()
        lab.explore(lambda level: draw(left, right, level), figure, level=(0, 1, levels.pop()))

    return compare(rebuilt, {"moved": lambda: panel.set(level=levels.pop())}, turns=31)


def operator_norm() -> Ratios:
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


def imports() -> Ratios:
    """A fresh Python that imports torch, and one that imports the package."""

    def fresh(module: str) -> float:
        return elapsed(lambda: subprocess.run([sys.executable, "-c", f"import {module}"], check=True))

    return compare(lambda: fresh("torch"), {"gaussreg_lab": lambda: fresh("gaussreg_lab")}, turns=11)


def sections() -> dict:
    return {
        "a panel's move, in figures built anew": panel_update,
        "operator norm of 64x64x3x3 at 16x16, in 100 power iterations": operator_norm,
        "import, in imports of torch": imports,
    }
