"""For the tests of the studies: one run made again, and a study whose every run is recorded already."""

import pytest
import torch

from gaussreg_lab.experiments.bench import Bench
from gaussreg_lab.records import recorded


def expect_equal(
    run, setting: dict, record: str, key: str, tolerance: float, root: str | None = None, **rel: float
) -> None:
    """One run, made now, has the recorded numbers, but for the seconds.

    rel: relative tolerance of single fields, with _ for a space; 0.01 for all others.
    """
    seed = int(key.rsplit(" ", 1)[1])
    torch.manual_seed(seed)
    got, wanted = run(**setting, seed=seed, root=root), recorded(record)["runs"][key]
    assert got.keys() == wanted.keys()
    for field in wanted.keys() - {"seconds"}:
        loose = rel.get(field.replace(" ", "_"), 0.01)
        about = None if wanted[field] is None else pytest.approx(wanted[field], abs=tolerance, rel=loose)
        assert got[field] == about, field


def from_record(study, size: str, name: str, root: str | None = None) -> tuple[dict, dict]:
    """The study's own account and its results, where nothing is left to run but what the record holds."""
    record = recorded(name)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("Expected every run to stand in the record")

    bench = Bench(size, range(record["about"].get("seeds", 5)), root, earlier=record["runs"], progress=False)
    bench._sweep = never
    return study(bench), bench.results
