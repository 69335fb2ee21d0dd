"""Runs for the tests of sweep, in a module that other processes can import.

python tests/some_runs.py STORE FOLDER WORKERS     sweeps `slow` over COUNT, as a user's script would
"""

import multiprocessing
import os
import signal
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from torch import nn

from gaussreg_lab import sweep

COUNT = 8


def train(width: int, rate: float) -> dict:
    """A small training that draws from torch's generator; its sums are long enough for several threads."""
    model = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, 1))
    x, y = torch.randn(2000, 64), torch.randn(2000, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return {"losses": losses, "norm": model[0].weight.norm().item(), "threads": torch.get_num_threads()}


def slow(index: int, folder: str, seed: int) -> dict:
    """Leaves a mark that it was called; like `fit`, it ends early on Ctrl-C and returns all the same."""
    mark(index, folder)
    whole = True
    try:
        time.sleep(0.25)
    except KeyboardInterrupt:
        whole = False
    return {"seed": seed, "draw": torch.randn(()).item(), "whole": whole}


def fragile(index: int, folder: str) -> dict:
    """The first call with index 3 kills its own process."""
    if index == 3 and marks(folder).count(3) == 0:
        mark(index, folder)
        os.kill(os.getpid(), signal.SIGKILL)
    mark(index, folder)
    return {"draw": torch.randn(()).item()}


def sometimes(index: int, folder: str) -> dict:
    """The first call with an odd index fails."""
    mark(index, folder)
    if index % 2 and marks(folder).count(index) == 1:
        raise ValueError(f"no good: {index}")
    return {"draw": torch.randn(()).item()}


def tensor(index: int) -> dict:
    return {"index": torch.tensor(index)}


def mark(index: int, folder: str) -> None:
    with open(Path(folder) / str(index), "a") as file:
        file.write("x")


def marks(folder: str) -> list[int]:
    """The index of every call, in numerical order."""
    return sorted(int(file.name) for file in Path(folder).iterdir() for _ in file.read_text())


def main(store: str, folder: str, workers: int) -> None:
    grid = {"index": list(range(COUNT)), "folder": [folder]}
    if not workers:
        sweep(slow, grid, store=store, progress=False)
        return
    forking = multiprocessing.get_context("fork")  # the workers inherit whatever is open
    with ProcessPoolExecutor(workers, forking) as executor:
        sweep(slow, grid, executor, store, progress=False)


if __name__ == "__main__":
    import some_runs  # so that a run has one name, whoever calls it

    some_runs.main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
