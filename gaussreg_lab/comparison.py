"""Every way of training, on one network, with the same batches, steps and rates: the course in one table.

    compare(train, test)  ->  {"about": ..., "runs": {"plain | seed 0": {"accuracy": ..., ...}, ...}}

`records.averages(record, field)` makes means and standard errors of it. The fields of a run:

    accuracy, training accuracy, gap       without noise; the gap is the second less the first
    under noise, noise 0.5, ...            accuracy at all levels; at some of them as a field of its own
    PGM 0.3, ...                           accuracy under PGM of that radius that knows the labels
    accuracy, few images                   when trained on a few of the images instead
    Lipschitz bound                        nan for a network whose bound is not known
    seconds per step, cost                 processor time; cost: in steps of plain training, timed beside it

All but the last two are the same at every call, on one machine with one number of threads. Noise and
attacks are judged with common random numbers: the same draws for every method and seed. A seed stands for the
initial weights, the order of the images, the draws of the loss and which few images; it does not stand for
the split into training and test, so standard errors do not say what other digits would do.

Lesson: notebooks/07_robustness.ipynb
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from gaussreg_lab.attacks import pgm
from gaussreg_lab.cache import cached
from gaussreg_lab.datasets import Images, batches
from gaussreg_lab.lipschitz import lipschitz_bound
from gaussreg_lab.methods import METHODS, Method
from gaussreg_lab.models import mlp
from gaussreg_lab.records import SEED, standard_error
from gaussreg_lab.robustness import NoiseCurve, accuracy, noise_curve
from gaussreg_lab.spectral import cap_network
from gaussreg_lab.training import fit

PLAIN_STEPS = 20  # timed beside each run
SMALL = partial(mlp, (64, 64, 64, 10))
WARM_UP = 3  # steps before them; the very first one imports a good deal of torch


@dataclass(frozen=True)
class Protocol:
    """What is the same for every method.

    network: given seed=, a new one. epochs, batch, rate: of Adam with a cosine schedule. few, few_epochs:
    images of the training on few, and its epochs. sigmas: levels of noise in pixel units; shown: those with
    a field of their own. draws: of the noise at each level. radii: of the attacks, Euclidean, in pixel
    units. The defaults are sized for the digits, in a lesson.

    >>> Protocol().network(seed=0)(torch.zeros(1, 1, 8, 8)).shape
    torch.Size([1, 10])
    """

    network: Callable[..., nn.Sequential] = SMALL
    epochs: int = 8
    batch: int = 64
    rate: float = 0.01
    few: int = 200
    few_epochs: int = 24
    sigmas: tuple[float, ...] = tuple(level / 20 for level in range(21))
    shown: tuple[float, ...] = (0.25, 0.5, 0.75)
    draws: int = 2
    radii: tuple[float, ...] = (0.3, 0.6)

    def __post_init__(self) -> None:
        if not set(self.shown) <= set(self.sigmas):
            raise ValueError(f"Expected shown to be some of sigmas {self.sigmas}, got {self.shown}")


def compare(
    train: Images,
    test: Images,
    seeds: Iterable[int] = (0, 1, 2),
    methods: Mapping[str, Method] = METHODS,
    protocol: Protocol | None = None,
    folder: str | Path | None = None,
    progress: bool = True,
) -> dict:
    """Train and judge every method with every seed: a record, as the module's first lines say.

    train, test: images in [0, 1]. methods: by name. protocol: by default Protocol(). folder: where runs are
    kept, see `cache.cached`; a run that is there is not made again. progress: show a bar, one tick a run.
    Raises ValueError for no seeds, no methods or fewer training images than protocol.few; and what training
    raises, a loss that is not finite for one. Runs finished before are kept then.
    """
    seeds, protocol = list(seeds), protocol or Protocol()
    if not seeds or not methods:
        raise ValueError(f"Expected at least one seed and one method, got {seeds} and {list(methods)}")
    if len(train.y) < protocol.few:
        raise ValueError(f"Expected at least {protocol.few} training images, got {len(train.y)}")
    runs = {}
    for name, seed in _bar([(name, seed) for name in methods for seed in seeds], progress):
        run = partial(train_and_judge, methods[name], train, test, protocol, seed)
        runs[f"{name}{SEED}{seed}"] = cached(run, folder)["run"]
    return {"about": _about(train, test, methods, protocol), "runs": runs}


def trained_networks(
    train: Images,
    test: Images,
    seed: int = 0,
    methods: Mapping[str, Method] = METHODS,
    protocol: Protocol | None = None,
    folder: str | Path | None = None,
) -> dict[str, nn.Sequential]:
    """The networks that `compare` has judged, in eval mode, by method: loaded, or else trained."""
    protocol, networks = protocol or Protocol(), {}
    for name, method in methods.items():
        run = partial(train_and_judge, method, train, test, protocol, seed)
        network = _network(method, train, protocol, seed)
        network.load_state_dict(cached(run, folder)["weights"])
        networks[name] = network.eval()
    return networks


def noise_curves(record: dict) -> dict[str, NoiseCurve]:
    """Accuracy against noise for each method of a record of `compare`: mean over seeds with standard error.

    >>> runs = {f"plain | seed {seed}": {"under noise": [1.0, 0.5 + 0.2 * seed]} for seed in (0, 1)}
    >>> curve = noise_curves({"about": {"sigmas": [0.0, 1.0]}, "runs": runs})["plain"]
    >>> curve.mean, curve.standard_error
    (tensor([1.0000, 0.6000], dtype=torch.float64), tensor([0.0000, 0.1000], dtype=torch.float64))
    """
    rows: dict[str, list[list[float]]] = {}
    for key, run in record["runs"].items():
        rows.setdefault(key.split(SEED)[0], []).append(run["under noise"])
    sigmas = torch.tensor(record["about"]["sigmas"])
    curves = {}
    for name, several in rows.items():
        values = torch.tensor(several, dtype=torch.float64)
        curves[name] = NoiseCurve(sigmas, values.mean(dim=0), standard_error(values))
    return curves


def train_and_judge(method: Method, train: Images, test: Images, protocol: Protocol, seed: int) -> dict:
    """One run: {"run": its fields, "weights": the trained network's state}."""
    plain_seconds = _plain_seconds_per_step(train, protocol)
    network, seconds = trained(method, train, protocol, seed, protocol.epochs)
    some = torch.randperm(len(train.y), generator=torch.Generator().manual_seed(seed))[: protocol.few]
    few, _ = trained(method, Images(train.x[some], train.y[some]), protocol, seed, protocol.few_epochs)
    run = judged(network, train, test, protocol)
    run |= {"accuracy, few images": accuracy(few, *test)}
    run |= {"seconds per step": seconds, "cost": seconds / plain_seconds}
    return {"run": run, "weights": dict(network.state_dict())}


def trained(
    method: Method, train: Images, protocol: Protocol, seed: int, epochs: int
) -> tuple[nn.Sequential, float]:
    """A network trained by the method, and processor seconds per step.

    Raises KeyboardInterrupt when stopped by hand: half a training is no result.
    """
    network = _network(method, train, protocol, seed)
    optimizer = method.optimizer(network.parameters(), protocol.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
    loss = method.loss(torch.Generator().manual_seed(seed))
    begin = time.process_time()
    history = fit(
        network, batches(train, protocol.batch, seed), loss, optimizer, epochs, schedule, progress=False
    )
    if history.interrupted:
        raise KeyboardInterrupt
    return network, (time.process_time() - begin) / len(history.losses)


def judged(network: nn.Sequential, train: Images, test: Images, protocol: Protocol) -> dict:
    """The fields of a run that need the network alone."""
    curve = noise_curve(network, *test, protocol.sigmas, protocol.draws)
    at = dict(zip(protocol.sigmas, curve.mean.tolist(), strict=True))
    clean, seen = accuracy(network, *test), accuracy(network, *train)
    run = {"accuracy": clean, "training accuracy": seen, "gap": seen - clean}
    run |= {"under noise": curve.mean.tolist()} | {f"noise {sigma:g}": at[sigma] for sigma in protocol.shown}
    for radius in protocol.radii:
        run[f"PGM {radius:g}"] = accuracy(network, _attacked(network, test, radius), test.y)
    try:
        run["Lipschitz bound"] = lipschitz_bound(network, train.x[:1])
    except (TypeError, NotImplementedError):
        run["Lipschitz bound"] = math.nan
    return run


def _network(method: Method, train: Images, protocol: Protocol, seed: int) -> nn.Sequential:
    network = protocol.network(seed=seed)
    return cap_network(network, train.x[:1], method.cap) if method.cap < math.inf else network


def _attacked(network: nn.Sequential, test: Images, radius: float) -> torch.Tensor:
    parts = zip(test.x.split(500), test.y.split(500), strict=True)
    return torch.cat([pgm(network, x, y, radius=radius) for x, y in parts])


def _plain_seconds_per_step(train: Images, protocol: Protocol) -> float:
    """Of plain training, now: what else the machine does changes from minute to minute."""
    for batches_seen in (WARM_UP, PLAIN_STEPS):
        some = Images(*(it[: batches_seen * protocol.batch] for it in train))
        _, seconds = trained(METHODS["plain"], some, protocol, seed=0, epochs=1)
    return seconds


def _about(train: Images, test: Images, methods: Mapping[str, Method], protocol: Protocol) -> dict:
    steps, few_steps = (
        epochs * math.ceil(count / protocol.batch)
        for epochs, count in ((protocol.epochs, len(train.y)), (protocol.few_epochs, protocol.few))
    )
    settings = {name: it for name, it in asdict(protocol).items() if name != "network"}
    counts = {"training images": len(train.y), "test images": len(test.y), "steps": steps}
    words = {name: method.words for name, method in methods.items()}
    return {**counts, "few steps": few_steps, **settings, "methods": words, "torch": torch.__version__}


def _bar(runs: Sequence[tuple[str, int]], progress: bool) -> Iterable[tuple[str, int]]:
    if not progress:
        return runs
    from tqdm.auto import tqdm  # here, because in a notebook it brings ipywidgets along

    return tqdm(runs, desc="training", unit="run")
