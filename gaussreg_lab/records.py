"""Results that were recorded earlier, because they take longer than a lesson.

A record is a JSON file in data/results: what was done ("about"), and every run by name and seed, with
its scores and its processor time. `python -m gaussreg_lab.experiments` makes them.

Lesson: notebooks/03_losses.ipynb
"""

import json
from typing import NamedTuple

import torch
from torch import Tensor

from gaussreg_lab.places import data_folder

SEED = " | seed "  # between the name of a run and its seed


class Summary(NamedTuple):
    """Mean over the seeds of one method, with standard errors.

    accuracy, accuracy_error: one number for each noise level. robustness and its error, seconds of
    processor time for a run: numbers. epochs, seeds: how many.
    """

    accuracy: Tensor
    accuracy_error: Tensor
    robustness: float
    robustness_error: float
    seconds: float
    epochs: int
    seeds: int


def recorded(name: str) -> dict:
    """The record called `name`, as it was stored: {"about": ..., "runs": {"method | seed 0": ...}}.

    Raises FileNotFoundError with the names there are, ValueError for a file that is damaged.

    >>> recorded("noise_digits")["about"]["sigma"]
    0.5
    """
    folder = data_folder() / "results"
    file = folder / f"{name}.json"
    if not file.exists():
        known = sorted(file.stem for file in folder.glob("*.json"))
        raise FileNotFoundError(f"Expected one of the records {known}, got {name!r}")
    try:
        return json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"Expected a record in {file}, got a damaged file ({error})") from error


def summaries(record: dict) -> dict[str, Summary]:
    """The runs of a record by method, over their seeds; in the order in which they were made.

    >>> summary = summaries(recorded("noise_digits"))["plain"]
    >>> summary.seeds, summary.accuracy.shape
    (5, torch.Size([5]))
    """
    runs: dict[str, list[dict]] = {}
    for key, run in record["runs"].items():
        runs.setdefault(key.split(SEED)[0], []).append(run)
    return {name: _summary(of_one) for name, of_one in runs.items()}


class Average(NamedTuple):
    """Mean over the seeds with its standard error, and how many seeds there were."""

    mean: float
    standard_error: float
    seeds: int


def averages(record: dict, field: str) -> dict[str, Average]:
    """One number of each run by method, as a mean over its seeds.

    Raises KeyError for a field that a run does not have.

    >>> averages(recorded("noise_digits"), "robustness")["plain"].seeds
    5
    """
    runs: dict[str, list[float]] = {}
    for key, run in record["runs"].items():
        runs.setdefault(key.split(SEED)[0], []).append(float(run[field]))
    return {name: _average(torch.tensor(it, dtype=torch.float64)) for name, it in runs.items()}


def _average(values: Tensor) -> Average:
    return Average(values.mean().item(), standard_error(values).item(), len(values))


def _summary(runs: list[dict]) -> Summary:
    accuracy = torch.tensor([run["accuracy"] for run in runs], dtype=torch.float64)
    robustness = torch.tensor([run["robustness"] for run in runs], dtype=torch.float64)
    seconds = sum(run["seconds"] for run in runs) / len(runs)
    return Summary(
        accuracy.mean(dim=0),
        standard_error(accuracy),
        robustness.mean().item(),
        standard_error(robustness).item(),
        seconds,
        runs[0]["epochs"],
        len(runs),
    )


def standard_error(values: Tensor) -> Tensor:
    """Standard error of the mean over the first axis of (count, ...): shape (...), nan for a single value.

    >>> standard_error(torch.tensor([1.0, 3.0]))
    tensor(1.)
    """
    if len(values) == 1:
        return torch.full_like(values[0], torch.nan)
    return values.std(dim=0) / len(values) ** 0.5
