"""The studies by name: what each asks, how long it takes, which earlier records are its own.

Lesson: notebooks/08_explore.ipynb
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from gaussreg_lab.experiments.bench import Bench
from gaussreg_lab.experiments.compare import compare
from gaussreg_lab.experiments.flat import flat
from gaussreg_lab.experiments.noise import noise
from gaussreg_lab.experiments.small_data import small_data
from gaussreg_lab.experiments.spectral import spectral


@dataclass(frozen=True)
class Study:
    """One question, put to the same networks in several ways.

    make: makes the runs on a bench, and returns what the record tells about them. question: in one line.
    minutes: of one core for each size with `seeds` seeds, as measured; None where nobody has. records:
    earlier ones, by size, whose runs are the study's own and need not be made again.
    """

    make: Callable[[Bench], dict]
    question: str
    seeds: int
    minutes: dict[str, float | None]
    records: dict[str, str] = field(default_factory=dict)


STUDIES = {
    "noise": Study(
        noise,
        "training for noisy images, sampled and in closed form: is the paper's loss worth 3 to 21 folds?",
        seeds=5,
        minutes={"digits": 25, "mnist": 80, "grid": 130, "full": None},
        records={"digits": "noise_digits", "mnist": "noise_mnist"},
    ),
    "small_data": Study(
        small_data,
        "few images: do penalties on the Jacobian beat weight decay and dropout?",
        seeds=5,
        minutes={"digits": 15, "mnist": 60, "full": None},
        records={"digits": "gradients_digits", "mnist": "gradients_mnist"},
    ),
    "spectral": Study(
        spectral,
        "adversarial training: do caps on the layers' norms close its gap?",
        seeds=5,
        minutes={"digits": 8, "mnist": 45, "convnet": 105, "full": None},
        records={"digits": "attacks_digits", "mnist": "attacks_mnist"},
    ),
    "flat": Study(
        flat,
        "wrong labels and CIFAR-10: do minima found by jolted weights generalize better?",
        seeds=5,
        minutes={"digits": 1, "mnist": 25, "full": None},
    ),
    "compare": Study(
        compare,
        "every way of training side by side: what remains of each advantage beside the others?",
        seeds=3,
        minutes={"digits": None, "mnist": 75, "full": None},
    ),
}
