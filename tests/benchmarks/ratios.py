"""Ratios measured side by side in one run: each candidate against its baseline, turn by turn.

    compare(baseline, {"name": candidate, ...})

Other work on the machine slows both alike, so the ratio of one turn is worth more than either time. What is
timed is the second of two calls in a row: in training, too, a step follows one of its own kind, and finds
its memory warm.
"""

import statistics
import time
from collections.abc import Callable

Ratios = dict[str, dict[str, float]]


def compare(baseline: Callable[[], object], candidates: dict[str, Callable], turns: int = 15) -> Ratios:
    """Time of each candidate over that of the baseline: median, lower and upper quartile over the turns."""
    ratios: dict[str, list[float]] = {name: [] for name in candidates}
    seconds = []
    for _ in range(turns):
        seconds.append(_warm(baseline))
        for name, candidate in candidates.items():
            ratios[name].append(_warm(candidate) / seconds[-1])
    table = {name: _summary(values) for name, values in ratios.items()}
    return {"baseline, ms": {"median": round(1000 * statistics.median(seconds), 2)}, **table}


def elapsed(function: Callable[[], object]) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def _warm(function: Callable[[], object]) -> float:
    function()
    return elapsed(function)


def _summary(values: list[float]) -> dict[str, float]:
    low, median, high = statistics.quantiles(values, n=4)
    return {"median": round(median, 3), "low": round(low, 3), "high": round(high, 3)}
