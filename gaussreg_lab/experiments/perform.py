"""A study from its name to its record.

    data/results/NAME.json          about: what was done, with what, when; runs: by name and seed
    data/results/NAME.runs.jsonl    the store of a study that is under way; gone when the record is written

Runs that stand in a record already, the study's own or an earlier one that it names, are not made again: more
seeds cost only the new ones. The record says how many were taken from where.

Lesson: notebooks/08_explore.ipynb
"""

import json
import os
import platform
import sys
import time
from concurrent.futures import Executor
from datetime import datetime, timezone
from pathlib import Path

import torch

from gaussreg_lab.experiments.bench import Bench
from gaussreg_lab.experiments.catalogue import Study
from gaussreg_lab.places import data_folder, from_a_wheel
from gaussreg_lab.records import recorded

# from a wheel, results go to the course laid out in the current folder
RESULTS = (Path("data") if from_a_wheel() else data_folder()) / "results"
DEFAULT = "mnist"  # the size whose record bears the study's name alone


def perform(
    name: str,
    study: Study,
    size: str = DEFAULT,
    seeds: int | None = None,
    *,
    root: str | None = None,
    device: str = "cpu",
    executor: Executor | None = None,
    folder: str | Path = RESULTS,
    afresh: bool = False,
    progress: bool = True,
) -> Path:
    """Make all runs of a study that are missing, write its record, and return where it is.

    size: one of study.minutes. seeds: how many, by default the study's own number. root: folder of the large
    data sets. device, executor, progress: as `Bench` takes them. folder: of the record and its store. afresh:
    make all runs, whatever was recorded before.
    Raises ValueError for another size or seeds < 1; FileNotFoundError where data or folder are missing;
    RuntimeError where runs fail, or while the same study is being performed elsewhere.
    """
    if size not in study.minutes:
        raise ValueError(f"Expected the size of {name} to be one of {sorted(study.minutes)}, got {size!r}")
    seeds = study.seeds if seeds is None else seeds
    if seeds < 1:
        raise ValueError(f"Expected seeds >= 1, got {seeds}")
    folder = Path(folder)
    file = folder / f"{record_name(name, size)}.json"
    if not folder.is_dir():
        raise FileNotFoundError(f"Expected a folder for the results, found none at {folder}; make it")
    sources = {} if afresh else _sources(study, size, file)
    store = file.with_suffix(".runs.jsonl")
    began, clock = datetime.now(timezone.utc), time.perf_counter()
    earlier = {key: run for record in sources.values() for key, run in record["runs"].items()}
    bench = Bench(size, range(seeds), root, device, executor, store, earlier, progress)
    told = study.make(bench)
    if bench.results == sources.get(file.stem, {}).get("runs"):
        return file  # nothing new: the record stays as it was, its date too
    about = {
        "study": name,
        "question": study.question,
        "size": size,
        **told,
        "seeds": seeds,
        **provenance(device),
        "date": began.date().isoformat(),
        "wall seconds": round(time.perf_counter() - clock, 1),
        "run seconds": round(bench.seconds, 1),
        "imported": _imported(bench, sources),
    }
    _write(file, {"about": about, "runs": bench.results})
    store.unlink(missing_ok=True)
    return file


def record_name(name: str, size: str) -> str:
    """What `recorded` takes.

    >>> record_name("noise", "mnist"), record_name("noise", "digits")
    ('noise', 'noise_digits')
    """
    return name if size == DEFAULT else f"{name}_{size}"


def provenance(device: str = "cpu") -> dict[str, str]:
    """What the runs were made with.

    >>> provenance()["torch"] == torch.__version__
    True
    """
    from gaussreg_lab import __version__

    name = torch.cuda.get_device_name() if device.startswith("cuda") else device
    return {
        "gaussreg_lab": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{sys.platform} {platform.machine()}",
        "device": name,
    }


def _sources(study: Study, size: str, file: Path) -> dict[str, dict]:
    """Earlier records by name; of runs that stand in several, the last ones count."""
    sources = {study.records[size]: recorded(study.records[size])} if size in study.records else {}
    if file.exists():
        sources[file.stem] = json.loads(file.read_text())
    return sources


def _imported(bench: Bench, sources: dict[str, dict]) -> list[dict]:
    """How many of the runs come from which record, and how that one was made.

    A record that has been added to holds what it imported itself: the first that has a run made it.
    """
    told, seen = [], set()
    for name, record in sources.items():
        keys = {key for key in bench.imported - seen if record["runs"].get(key) == bench.results[key]}
        seen |= keys
        about = record["about"]
        if keys:
            told.append({"record": name, "runs": len(keys), "date": about["date"], "torch": about["torch"]})
    return told


def _write(file: Path, record: dict) -> None:
    """All of it or nothing: a record is not lost by a crash while its successor is written."""
    new = file.with_suffix(".new")
    new.write_text(json.dumps(record, indent=1) + "\n")
    os.replace(new, file)
