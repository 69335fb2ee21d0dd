"""All figures of speed, each a ratio measured in one run, and the table in README.md beside this file.

    .venv/bin/python tests/benchmarks/run.py                  # some fifteen minutes on two quiet cores
    .venv/bin/python tests/benchmarks/run.py caps covariance  # only sections with these words in their names

Writes results.json after every section and the table at the end. Run it on a machine with nothing else to do.
"""

import json
import platform
import sys
from pathlib import Path

import growth
import lab_itself
import moments
import steps
import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from between_marks import write_between  # noqa: E402

THREADS = 2
BEGIN, END = "<!-- table: written by run.py -->", "<!-- end of table -->"


def table(results: dict) -> str:
    lines = ["| what | in | times | quartiles |", "|---|---|---|---|"]
    for section, rows in results.items():
        what, _, unit = section.partition(", in ")
        for name, row in rows.items():
            if isinstance(row, dict) and "low" in row:
                of = unit or "plain steps"
                lines.append(f"| {what}: {name} | {of} | {row['median']} | {row['low']} to {row['high']} |")
    return "\n".join(lines)


def main(words: list[str]) -> None:
    torch.set_num_threads(THREADS)
    file = HERE / "results.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    results.pop("about", None)
    everything = {
        name: measure
        for part in (moments, steps, lab_itself, growth)
        for name, measure in part.sections().items()
    }
    for name, measure in everything.items():
        if not words or any(word in name for word in words):
            results[name] = measure()
            print(name, json.dumps(results[name], indent=1), flush=True)
            about = {"torch": torch.__version__, "threads": THREADS, "machine": platform.machine()}
            kept = {known: results[known] for known in everything if known in results}
            file.write_text(json.dumps({"about": about, **kept}, indent=1) + "\n")
    write_between(BEGIN, END, table(kept), HERE / "README.md")


if __name__ == "__main__":
    main(sys.argv[1:])
