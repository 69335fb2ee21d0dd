"""The studies on the command line.

    python -m gaussreg_lab.experiments list
    python -m gaussreg_lab.experiments NAME [--data ROOT] [--seeds N] [--workers N | --dask ADDRESS]
                                            [--device auto] [--size SIZE | --full]

Lesson: notebooks/08_explore.ipynb
"""

import argparse
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import torch

from gaussreg_lab.experiments.catalogue import STUDIES, Study
from gaussreg_lab.experiments.perform import DEFAULT, RESULTS, perform


def main(arguments: list[str] | None = None) -> None:
    """Perform the study that the command line names; on a mistake say what was expected, and exit."""
    asked = parser().parse_args(arguments)
    if asked.name == "list":
        print(listing())
        return
    study = STUDIES[asked.name]
    try:
        print(
            estimate(asked.name, STUDIES[asked.name], asked.size, asked.seeds, asked.workers), file=sys.stderr
        )
        with executor_of(asked.workers, asked.dask) as executor:
            file = perform(
                asked.name,
                study,
                asked.size,
                asked.seeds,
                root=asked.data,
                device=device_of(asked.device),
                executor=executor,
                folder=asked.results,
                afresh=asked.afresh,
            )
    except KeyboardInterrupt:
        sys.exit("Stopped. What had ended is stored; the same command goes on from there.")
    except (ValueError, FileNotFoundError, ConnectionError, RuntimeError, ImportError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    print(file)


def parser() -> argparse.ArgumentParser:
    """What the command line may say."""
    made = argparse.ArgumentParser(
        prog="python -m gaussreg_lab.experiments",
        description="Makes the runs of a study and writes its record; goes on where it was killed.",
    )
    add = made.add_argument
    add("name", choices=["list", *STUDIES], help="a study, or list to see what there is")
    sizes = sorted({size for study in STUDIES.values() for size in study.minutes})
    much = made.add_mutually_exclusive_group()
    much.add_argument("--size", default=DEFAULT, choices=sizes, help="mnist for two cores, digits for a try")
    much.add_argument("--full", action="store_const", const="full", dest="size", help="all images, on a GPU")
    add("--data", metavar="ROOT", help="folder that holds MNIST and CIFAR-10; by default the course's own")
    add("--seeds", type=_count, metavar="N", help="seeds of each final run; by default as recorded")
    where = made.add_mutually_exclusive_group()
    where.add_argument("--workers", type=_count, default=1, metavar="N", help="processes on this computer")
    where.add_argument("--dask", metavar="ADDRESS", help="scheduler of a Dask cluster, tcp://...")
    add("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda, cuda:1, ...")
    add("--results", default=RESULTS, type=Path, metavar="FOLDER", help="where the record is written")
    add("--afresh", action="store_true", help="make all runs, whatever is recorded already")
    return made


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"Expected a whole number >= 1, got {text!r}")
    return int(text)


def listing() -> str:
    """The studies with their sizes, and how long each takes.

    >>> listing().splitlines()[0].split()[0]
    'noise'
    """
    lines = []
    for name, study in STUDIES.items():
        lines.append(f"{name:<12}{study.question}")
        times = [f"{size} {_minutes(minutes)}" for size, minutes in study.minutes.items()]
        lines.append(f"{'':<12}{', '.join(times)}; with {study.seeds} seeds, on one core")
    return "\n".join(lines)


def _minutes(minutes: float | None) -> str:
    return "not timed" if minutes is None else f"{minutes:g} min"


def estimate(name: str, study: Study, size: str, seeds: int | None, workers: int) -> str:
    """How long the study will take at most: runs that are recorded or stored already cost nothing.

    >>> estimate("flat", STUDIES["flat"], "full", None, 1)
    'flat, full, 5 seeds: nobody has timed it; the bar below tells'
    """
    seeds = seeds or study.seeds
    minutes = study.minutes.get(size)
    if minutes is None:
        return f"{name}, {size}, {seeds} seeds: nobody has timed it; the bar below tells"
    # what is chosen takes as long with any number of seeds; here taken to be a third
    expected = minutes * (1 + 2 * seeds / study.seeds) / 3 / workers
    return f"{name}, {size}, {seeds} seeds: up to {expected:.0f} minutes, less what is recorded already"


def device_of(name: str) -> str:
    """The device called `name`; for "auto" the first GPU, or the CPU where there is none.

    >>> device_of("cpu")
    'cpu'
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"Expected a device that this computer has, got {name!r} ({error})") from None
    return name


@contextmanager
def executor_of(workers: int, dask: str | None) -> Iterator[Executor | None]:
    """What makes the runs: this process, several, or a cluster. Given back when the study ends."""
    if dask is not None:
        from distributed import Client

        with Client(dask) as client:
            yield client.get_executor()
    elif workers > 1:
        # a forked process would share the threads that torch has begun, and may hang
        with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
            yield pool
    else:
        yield None


if __name__ == "__main__":
    main()
