"""The study behind lesson 07: every way of training side by side on the digits.

    python data/make_comparison_study.py digits          # some 5 minutes on one core
    python data/make_comparison_study.py digits_lenet    # some 10 minutes on one core

Writes data/results/compare_<name>.json: the small network that the lesson trains, over ten seeds, and the
course's LeNet over five. First the numbers of each method are chosen among a few on 400 digits cut from the
training set, and then, by the same digits, pairs that fill different sockets: a loss as it was chosen with
every cap and every AMP of the grid. The three best pairs go into the table. The score is the mean of three
accuracies: without noise, at noise 0.5, under PGM 0.3. Runs are kept in the course's cache, so a second
start goes on where the first one ended.
"""

import argparse
import json
from dataclasses import replace
from datetime import date
from pathlib import Path

import torch

import gaussreg_lab as lab
from gaussreg_lab import methods as ways
from gaussreg_lab.comparison import Protocol, compare

HELD_OUT = 400
SCORE = ("accuracy", "noise 0.5", "PGM 0.3")
GRID = {
    "plain": [ways.METHODS["plain"]],
    "weight decay": [ways.weight_decay(it) for it in (0.01, 0.1, 0.3, 1.0, 3.0)],
    "fresh noise": [ways.fresh_noise(it) for it in (0.2, 0.3, 0.4, 0.5)],
    "expected output": [ways.expected_output(*it) for it in ((0.25, 1), (0.5, 1), (0.5, 5), (0.5, 20))],
    "second order": [ways.second_order(*it) for it in ((0.2, 8), (0.3, 4), (0.3, 8), (0.3, 16), (0.5, 4))],
    "gradient penalty": [ways.gradient_penalty(it) for it in (0.1, 0.3, 1.0, 3.0, 10.0)],
    "Jacobian penalty": [ways.jacobian_penalty(it) for it in (0.001, 0.003, 0.01, 0.03)],
    "spectral penalty": [ways.spectral_penalty(it) for it in (0.01, 0.03, 0.1, 0.3, 1.0)],
    "spectral caps": [ways.spectral_caps(it) for it in (0.7, 1.0, 1.4, 2.0)],
    "FGM": [ways.fgm_training(it) for it in (0.2, 0.4, 0.6, 0.8)],
    "PGM": [ways.pgm_training(it) for it in (0.2, 0.4, 0.6, 0.8)],
    "WRM": [ways.wrm_training(it) for it in (0.25, 0.5, 1.0, 2.0, 4.0)],
    "AMP": [ways.amp(it) for it in (0.05, 0.1, 0.2, 0.5)],
}
WIDER = {  # LeNet's best numbers lie at the ends of that grid or beyond
    "second order": [ways.second_order(0.3, 32)],
    "Jacobian penalty": [ways.jacobian_penalty(0.1)],
    "spectral caps": [ways.spectral_caps(it) for it in (3.0, 5.0)],
    "FGM": [ways.fgm_training(1.0)],
    "PGM": [ways.pgm_training(1.0)],
}
LOSSES = ("fresh noise", "second order", "Jacobian penalty", "PGM", "WRM")
OTHERS = ("spectral caps", "AMP")
PAIRS = 3
STUDIES = {  # what is the same, seeds that numbers are chosen with, seeds of the table, more numbers to try
    "digits": (Protocol(), range(3), range(10), {}),
    "digits_lenet": (Protocol(network=lab.lenet8, epochs=12, rate=0.003), range(1), range(5), WIDER),
}


def scores(methods: dict[str, ways.Method], train, held, protocol: Protocol, seeds) -> dict[str, float]:
    record = compare(train, held, seeds, methods, protocol)
    by_field = [lab.averages(record, field) for field in SCORE]
    return {name: round(sum(it[name].mean for it in by_field) / len(SCORE), 4) for name in methods}


def choose(
    train, held, protocol: Protocol, seeds, grid: dict[str, list]
) -> tuple[dict[str, ways.Method], dict]:
    """Every method with its best numbers, and the best pairs; every score by method and words."""
    chosen, tried = {}, {}
    for name, candidates in grid.items():
        by_words = {method.words: method for method in candidates}
        tried[name] = scores(by_words, train, held, protocol, seeds)
        chosen[name] = by_words[max(tried[name], key=tried[name].get)]
        print(name, tried[name], flush=True)
    pairs, best = {}, {}
    for name, first, second in ((f"{a} + {b}", a, b) for a in LOSSES for b in OTHERS):
        by_words = {it.words: it for it in (ways.together(chosen[first], other) for other in grid[second])}
        tried[name] = scores(by_words, train, held, protocol, seeds)
        pairs[name] = by_words[max(tried[name], key=tried[name].get)]
        best[name] = max(tried[name].values())
        print(name, tried[name], flush=True)
    return chosen | {it: pairs[it] for it in sorted(best, key=best.get, reverse=True)[:PAIRS]}, tried


def rounded(run: dict) -> dict:
    return {
        name: [round(it, 5) for it in value] if isinstance(value, list) else round(value, 6)
        for name, value in run.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("name", choices=list(STUDIES))
    name = parser.parse_args().name
    torch.set_num_threads(1)
    protocol, chosen_with, seeds, more = STUDIES[name]
    train, test = lab.digits()
    order = torch.randperm(len(train.y), generator=torch.Generator().manual_seed(0))
    held, rest = (lab.Images(train.x[it], train.y[it]) for it in (order[:HELD_OUT], order[HELD_OUT:]))
    grid = {name: several + more.get(name, []) for name, several in GRID.items()}
    without_few = replace(protocol, few_epochs=1)  # which play no part in choosing
    methods, tried = choose(rest, held, without_few, chosen_with, grid)
    record = compare(train, test, seeds, methods, protocol)
    about = {"data": "digits", "validation images": HELD_OUT, "validation seeds": list(chosen_with)}
    about |= record["about"] | {"validation": tried, "score": SCORE, "date": date.today().isoformat()}
    runs = {key: rounded(run) for key, run in record["runs"].items()}
    file = Path(__file__).parent / "results" / f"compare_{name}.json"
    file.write_text(json.dumps({"about": about, "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
