"""Tables of data/results/README.md, computed from the records that they name.

    python tests/results_tables.py     writes the numbers of every table anew

Above a table a comment names its record and the fields of its columns; its first column names the runs:

    <!-- record: small_data; fields: accuracy; test loss -->

A row called "a minus b" has differences between runs of one seed, whose spread is smaller than either's own.
"""

import re
from pathlib import Path

from gaussreg_lab.records import SEED, averages, recorded

README = Path(__file__).parent.parent / "data" / "results" / "README.md"
TABLE = re.compile(r"<!-- record: (?P<record>\w+); fields: (?P<fields>[^>]+) -->\n\n(?P<table>(?:\|.*\n)+)")


def cells(record: dict, name: str, fields: list[str]) -> list[str]:
    """Mean and standard error over the seeds for every field; a dash where the runs do not have it."""
    first, *second = (_by_seed(record, one) for one in name.split(" minus "))
    return [_cell(first, second, field) for field in fields]


def _by_seed(record: dict, name: str) -> dict[str, dict]:
    runs = {key.split(SEED)[1]: run for key, run in record["runs"].items() if key.split(SEED)[0] == name}
    if not runs:
        raise KeyError(f"Expected runs of {name!r} in the record, got none")
    return runs


def _cell(first: dict, second: list[dict], field: str) -> str:
    try:
        less = {seed: sum(_value(other[seed], field) for other in second) for seed in first}
        values = {seed: _value(run, field) - less[seed] for seed, run in first.items()}
    except KeyError:
        return "-"
    runs = {f"it{SEED}{seed}": {"it": value} for seed, value in values.items()}
    mean, error, _ = averages({"runs": runs}, "it")["it"]
    digits = 4 if abs(mean) < 0.9995 else 3 if mean < 9.9995 else 2
    return f"{mean:{'+' if second else ''}.{digits}f} ± {error:.{digits}f}"


def _value(run: dict, field: str) -> float:
    """A number of a run; accuracy[2] is one of a list."""
    level = re.fullmatch(r"(.+)\[(\d)\]", field)
    return run[level[1]][int(level[2])] if level else run[field]


def renewed(match: re.Match) -> str:
    """The table with its numbers computed; heads and first column stay."""
    head, line, *rows = match["table"].splitlines()
    record, fields = recorded(match["record"]), match["fields"].split("; ")
    names = [row.split("|")[1].strip() for row in rows]
    rows = [f"| {name} | {' | '.join(cells(record, name, fields))} |" for name in names]
    comment = f"<!-- record: {match['record']}; fields: {match['fields']} -->"
    return "\n".join([comment, "", head, line, *rows, ""])


if __name__ == "__main__":
    README.write_text(TABLE.sub(renewed, README.read_text()))
