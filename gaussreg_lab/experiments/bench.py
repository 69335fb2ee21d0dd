"""What the studies share: where their runs are made, the data they learn from, and training itself.

A study is a function of a `Bench`. It names its runs, the bench makes them, and what the first ones gave
decides what the next ones are:

    tried  = bench.make(run, {"validation, cap 1": {...}, "validation, cap 2": {...}}, seeds=[0])
    chosen = best(tried, lambda result: result["accuracy"])
    bench.make(run, {"caps": {... chosen ...}}, bench.seeds)

Every call of `make` is a sweep over one store, so that all of a study resumes where it was stopped. Nothing
is chosen by test images: `tried` is judged on images cut from the training set.

Lesson: notebooks/08_explore.ipynb
"""

import hashlib
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from functools import lru_cache, partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import nn

from gaussreg_lab.datasets import Images, Split, batches, cifar10, digits, mnist
from gaussreg_lab.losses import Loss
from gaussreg_lab.models import lenet
from gaussreg_lab.records import SEED
from gaussreg_lab.sweep import sweep
from gaussreg_lab.training import fit

small_lenet = partial(lenet, channels=(6, 16), hidden=84)  # of the widths of Varga et al. (2017)
CIFAR_SUBSET = "cifar10-12k.npz"  # arrays x_train, y_train, x_test, y_test; x uint8 (count, 32, 32, 3)


class Bench:
    """Makes the runs of one study and keeps what they returned.

    size: which of the study's sizes. seeds: of its final runs. root: folder of the large data sets. device:
    where the networks are. executor, store, progress: as `sweep` takes them. earlier: results by key, made
    before and not to be made again.
    results: everything so far, by key "name | seed 0". imported: keys of those made before. seconds: of wall
    clock, of all the others.
    """

    def __init__(
        self,
        size: str,
        seeds: Iterable[int],
        root: str | None = None,
        device: str = "cpu",
        executor: Executor | None = None,
        store: Path | None = None,
        earlier: dict[str, dict] | None = None,
        progress: bool = True,
    ) -> None:
        self.size, self.seeds, self.root, self.device = size, list(seeds), root, device
        self.executor, self.store, self.progress = executor, store, progress
        self.earlier = earlier or {}
        self.results: dict[str, dict] = {}
        self.imported: set[str] = set()
        self.seconds = 0.0

    def make(self, run: Callable[..., dict], named: dict[str, dict], seeds: Iterable[int]) -> dict[str, dict]:
        """Results by key of every named setting with every seed, in this order.

        run: takes a setting, `seed`, `root` and `device` as keywords; importable from a module.
        Raises RuntimeError where a run fails, after the others have been made and stored.
        """
        settings = {
            f"{name}{SEED}{seed}": {**setting, "seed": seed}
            for seed, (name, setting) in product(seeds, named.items())
        }
        known = {key: self.earlier[key] for key in settings if _equals(self.earlier.get(key), settings[key])}
        missing = {key: setting for key, setting in settings.items() if key not in known}
        made = self._sweep(partial(run, root=self.root, device=self.device), missing) if missing else {}
        self.imported |= known.keys()
        here = {key: known[key] if key in known else made[key] for key in settings}
        self.results |= here
        return here

    def _sweep(self, run: Callable[..., dict], settings: dict[str, dict]) -> dict[str, dict]:
        runs = sweep(run, list(settings.values()), self.executor, self.store, self.progress)
        failed = {key: one.error for key, one in zip(settings, runs, strict=True) if one.error}
        if failed:
            key, error = next(iter(failed.items()))
            raise RuntimeError(
                f"Expected every run of the study to end well, but {len(failed)} of {len(runs)} failed, "
                f"{key!r} with {error}; those that ended well are stored, the others made again next time"
            )
        self.seconds += sum(one.seconds for one in runs)
        return {key: one.result for key, one in zip(settings, runs, strict=True)}


def _equals(earlier: dict | None, setting: dict) -> bool:
    """Whether an earlier result is that of this setting, as far as it tells: its epochs, its weight."""
    return earlier is not None and all(earlier[it] == setting[it] for it in setting.keys() & earlier.keys())


def best(tried: dict[str, dict], score: Callable[[dict], float]) -> str:
    """The name with the highest mean score over its seeds; of equals the first.

    >>> best({"a | seed 0": {"it": 1}, "b | seed 0": {"it": 3}}, lambda run: run["it"])
    'b'
    """
    scores: dict[str, list[float]] = {}
    for key, result in tried.items():
        scores.setdefault(key.split(SEED)[0], []).append(score(result))
    return max(scores, key=lambda name: sum(scores[name]) / len(scores[name]))


# data


@lru_cache(maxsize=2)
def data_of(name: str, root: str | None = None, train_size: int | None = None) -> Split:
    """The images called "digits", "mnist", "cifar10" or "whole cifar10"; read once in each process.

    root: folder that holds them; by default the course's own. "cifar10" is its file cifar10-12k.npz, with
    10,000 and 2,000 images, where there is one. train_size: equally many of each class, as `mnist` has it.
    Raises FileNotFoundError where they are missing, ValueError for another name.
    """
    if name == "digits":
        return digits()
    if name == "mnist":
        return mnist(root, train_size=train_size)
    if name == "cifar10" and root is not None and (Path(root) / CIFAR_SUBSET).exists():
        return _subset(Path(root) / CIFAR_SUBSET)
    if name in ("cifar10", "whole cifar10"):
        return cifar10(root, train_size=train_size)
    raise ValueError(f"Expected data to be digits, mnist, cifar10 or whole cifar10, got {name!r}")


def _subset(file: Path) -> Split:
    with np.load(file) as arrays:
        parts = [
            Images(
                torch.from_numpy(arrays[f"x_{part}"]).permute(0, 3, 1, 2).contiguous() / 255.0,
                torch.from_numpy(arrays[f"y_{part}"]).long(),
            )
            for part in ("train", "test")
        ]
    return Split(*parts)


def digest(data: Split) -> str:
    """SHA-256 of all pixels and labels, training images first.

    >>> digest(digits())[:8]
    '4e1325d0'
    """
    total = hashlib.sha256()
    for tensor in (*data.train, *data.test):
        total.update(tensor.numpy().tobytes())
    return total.hexdigest()


def shuffled(images: Images) -> Images:
    """All images in an order that is always the same."""
    return part_of(images, torch.randperm(len(images.y), generator=generator(0)))


def images_of(
    data: str, train_size: int | None, held_out: int, test_size: int, root: str | None
) -> tuple[Images, Images, Images]:
    """To learn from, held out to choose by, and to judge by: the same whenever it is called.

    Arguments as `data_of`; held_out: training images, test_size: test images.
    """
    every, test = data_of(data, root, train_size)
    order = torch.randperm(len(every.y), generator=generator(0))
    held, train = part_of(every, order[:held_out]), part_of(every, order[held_out:])
    return train, held, part_of(test, slice(test_size))


def part_of(images: Images, which: torch.Tensor | slice) -> Images:
    """Those images that an index or a slice picks."""
    return Images(images.x[which], images.y[which])


def on(device: str, images: Images) -> Images:
    """The images on a device."""
    return Images(images.x.to(device), images.y.to(device))


# training


def generator(seed: int, device: str = "cpu") -> torch.Generator:
    """A generator of its own for every seed."""
    return torch.Generator(device).manual_seed(seed)


def train_with(
    optimizer: torch.optim.Optimizer,
    model: nn.Module,
    train: Images,
    loss: Loss,
    seed: int,
    epochs: int,
    batch: int,
) -> float:
    """Train the model, with a cosine schedule; returns the seconds of processor time."""
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
    begin = time.process_time()
    fit(model, batches(train, batch, seed), loss, optimizer, epochs, schedule, progress=False)
    return round(time.process_time() - begin, 2)
