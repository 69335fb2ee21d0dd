"""What the studies share: runs by name and seed, each stored as soon as it is done and never run twice."""

import json
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch

import gaussreg_lab as lab

SEEDS = range(5)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def split_off(train: lab.Images, every: int) -> tuple[lab.Images, lab.Images]:
    held = torch.arange(len(train.y)) % every == 0
    return lab.Images(train.x[~held], train.y[~held]), lab.Images(train.x[held], train.y[held])


def train_one(model, train: lab.Images, loss, seed: int, epochs: int, batch: int, rate: float, decay=0.0):
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
    begin = time.process_time()
    lab.fit(model, lab.batches(train, batch, seed), loss, optimizer, epochs, schedule, progress=False)
    return model, time.process_time() - begin


class Store:
    """The file of one study: {"about": ..., "runs": {"name | seed 0": ...}}."""

    def __init__(self, name: str, about: dict) -> None:
        self.file = Path(__file__).parent / "results" / f"{name}.json"
        about = {**about, "torch": torch.__version__, "date": date.today().isoformat()}
        known = self.file.exists()
        self.results = json.loads(self.file.read_text()) if known else {"about": about, "runs": {}}

    def run(self, name: str, seed: int, make: Callable[[], dict]) -> dict:
        key = f"{name} | seed {seed}"
        if key not in self.results["runs"]:
            self.results["runs"][key] = make()
            self.save()
            print(key, self.results["runs"][key], flush=True)
        return self.results["runs"][key]

    def forget(self, name: str, seed: int, unless: dict) -> None:
        """Drop a stored run that was made with other settings than these."""
        known = self.results["runs"].get(f"{name} | seed {seed}")
        if known is not None and not unless.items() <= known.items():
            del self.results["runs"][f"{name} | seed {seed}"]

    def save(self) -> None:
        self.file.write_text(json.dumps(self.results, indent=1) + "\n")
