"""Tables of data/results/README.md, computed from the records that they name.

    python tests/results_tables.py     writes the numbers of every table anew

Above a table a comment names its record and the fields of its columns; its first column names the runs:

    <!-- record: small_data; fields: accuracy, test loss -->
"""

import re
from pathlib import Path

from gaussreg_lab.records import SEED, averages, recorded

README = Path(__file__).parent.parent / "data" / "results" / "README.md"
TABLE = re.compile(r"<!-- record: (?P<record>\w+); fields: (?P<fields>[^>]+) -->\n\n(?P<table>(?:\|.*\n)+)")


def cells(record: dict, name: str, fields: list[str]) -> list[str]:
    """Mean and standard error over the seeds for every field; a dash where the runs do not have it."""
    runs = {key: run for key, run in record["runs"].items() if key.split(SEED)[0] == name}
    if not runs:
        raise KeyError(f"Expected runs of {name!r} in the record, got none")
    return [_cell(runs, name, field) for field in fields]


def _cell(runs: dict, name: str, field: str) -> str:
    level = re.fullmatch(r"(.+)\[(\d)\]", field)  # one number of a list, as accuracy[2]
    if level:
        runs = {key: {field: run[level[1]][int(level[2])]} for key, run in runs.items()}
    if not all(field in run for run in runs.values()):
        return "-"
    it = averages({"runs": runs}, field)[name]
    digits = 4 if it.mean < 0.9995 else 3 if it.mean < 9.9995 else 2
    return f"{it.mean:.{digits}f} ± {it.standard_error:.{digits}f}"


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
