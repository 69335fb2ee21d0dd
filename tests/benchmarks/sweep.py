"""What a second worker is worth: 8 equal trainings on two processes, over the same on one, and in process.

    .venv/bin/python tests/benchmarks/sweep.py       # some two minutes; writes sweep.json

Every figure is a ratio measured in one run, turn by turn (ratios.py). Run it on a quiet machine of two cores
or more. Workers are started before the clock is. Perfect halves would be 0.5; the aim is at most 1 / 1.7.
"""

import json
import platform
import tempfile
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path

import torch
from ratios import compare

import gaussreg_lab as lab

RUNS = 8
TURNS = 7


def train(index: int) -> dict:
    """Some seconds of a lesson's work, the same for every index: a small network of the digits."""
    train, test = lab.digits()
    model = lab.lenet8(seed=0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    lab.fit(model, lab.batches(train, 64, seed=0), lab.cross_entropy, optimizer, epochs=15, progress=False)
    return {"accuracy": lab.accuracy(model, *test)}


def swept(executor: Executor | None) -> None:
    """A whole sweep, with a store of its own: what it costs to keep the runs is part of the time."""
    with tempfile.TemporaryDirectory() as folder:
        lab.sweep(train, {"index": range(RUNS)}, executor, f"{folder}/runs.jsonl", progress=False)


def main() -> None:
    with ProcessPoolExecutor(1) as one, ProcessPoolExecutor(2) as two:
        ways = {"two processes": lambda: swept(two), "in process": lambda: swept(None)}
        ratios = compare(lambda: swept(one), ways, TURNS)
    report = {
        "about": {"torch": torch.__version__, "threads of a run": 1, "machine": platform.machine()},
        f"{RUNS} equal runs, in the time of one process": ratios,
        "two processes are faster by": round(1 / ratios["two processes"]["median"], 3),
    }
    Path(__file__).with_name("sweep.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
