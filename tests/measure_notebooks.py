"""Time, memory and size of every notebook, each in a fresh kernel with one thread and an empty cache.

As on a hub that grants a gigabyte: JupyterHub says so in MEM_LIMIT, and lesson 08 then starts no processes.

    python tests/measure_notebooks.py              # all of them, a few minutes on a quiet machine
    python tests/measure_notebooks.py notebooks/02_propagation.ipynb
    python tests/measure_notebooks.py --write      # and the computer's time into the headers

Writes tests/benchmarks/notebooks.json and its table in tests/benchmarks/README.md. A header says the time in
words that are wide apart, so that it changes when a lesson does, and not from run to run.
"""

import argparse
import json
import os
import re
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import nbformat
import psutil
from between_marks import write_between
from course import NOTEBOOKS, ROOT, WIDGET, name_of
from nbclient import NotebookClient

RECORD = ROOT / "tests" / "benchmarks" / "notebooks.json"
README = ROOT / "tests" / "benchmarks" / "README.md"
BEGIN, END = "<!-- table: written by measure_notebooks.py -->", "<!-- end of notebooks -->"
COLUMNS = ("seconds", "megabytes", "file_kilobytes", "panels", "figures", "exercises")
HEADER = re.compile(r"(\*Time\*: \d+ minutes, of which the computer needs )([^.,]+)")
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
A_SMALL_HUB = {"MEM_LIMIT": "1000000000"}  # bytes
EVERY = 0.2  # seconds between two looks at the memory


def in_words(seconds: float) -> str:
    """What follows "N minutes, of which the computer needs": each word spans a factor of two or more."""
    for below, words in ((7, "a few seconds"), (20, "a quarter of one"), (45, "half of one")):
        if seconds < below:
            return words
    return "about one" if seconds < 90 else f"about {round(seconds / 60)}"


def with_time(text: str, words: str) -> str:
    """The text of a notebook's file with those words in its header, and nothing else changed."""
    renewed, count = HEADER.subn(lambda found: found[1] + words, text)
    if count != 1:
        raise ValueError(f"Expected one line that says what the computer needs, got {count}")
    return renewed


def counts(notebook: nbformat.NotebookNode) -> dict[str, int]:
    """How many panels, figures that stand still, and exercises a notebook has."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    shown = [output.get("data", {}) for cell in cells for output in cell.outputs]
    pictures = [WIDGET in data for data in shown if "image/png" in data]
    exercises = re.findall(r'lab\.check\("([\d.]+)"', "\n".join(cell.source for cell in cells))
    return {"panels": sum(pictures), "figures": len(pictures) - sum(pictures), "exercises": len(exercises)}


class Watch:
    """The most memory that a process and all its children have held together, in MB.

    Pages that several of them share count once where the system tells (Linux), as for a container's limit.
    """

    def __init__(self, pid: int) -> None:
        self.most, self.process, self.over = 0.0, psutil.Process(pid), threading.Event()
        self.thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "Watch":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()

    def _look(self) -> None:
        while not self.over.wait(EVERY):
            with suppress(psutil.Error):  # the kernel or a child has just ended
                tree = [self.process, *self.process.children(recursive=True)]
                self.most = max(self.most, sum(map(held, tree)) / 1e6)


def held(process: psutil.Process) -> int:
    """Memory of one process in bytes, 0 if it has ended."""
    try:
        memory = process.memory_full_info()
    except psutil.Error:
        return 0
    return getattr(memory, "pss", memory.rss)


@contextmanager
def course_without_cache(beside: Path):
    """The folder of that notebook in a copy of the course that has computed nothing yet."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        (copy / "gaussreg_lab").symlink_to(ROOT / "gaussreg_lab")
        (copy / "data").mkdir()
        for path in (ROOT / "data").iterdir():
            if path.name != "cache":
                (copy / "data" / path.name).symlink_to(path)
        inside = beside.parent.relative_to(ROOT) if beside.is_relative_to(ROOT) else Path("notebooks")
        (copy / inside).mkdir(parents=True)
        yield copy / inside


def measure(path: Path) -> dict[str, float]:
    """Run a notebook and say what it took, with what its file holds. A cell that fails raises."""
    notebook = nbformat.read(path, as_version=4)
    with course_without_cache(path) as folder:
        client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}})
        with (
            client.setup_kernel(env={**os.environ, **ONE_THREAD, **A_SMALL_HUB}),
            Watch(client.km.provisioner.pid) as memory,
        ):
            begin = time.perf_counter()
            for number, cell in enumerate(notebook.cells):
                client.execute_cell(cell, number)
            seconds = time.perf_counter() - begin
    size = round(path.stat().st_size / 1000)
    return {
        "seconds": round(seconds, 1),
        "megabytes": round(memory.most),
        "file_kilobytes": size,
        **counts(notebook),
    }


def table(record: dict[str, dict]) -> str:
    """The record as a table of Markdown."""
    head = f"| notebook | {' | '.join(column.replace('_', ' ') for column in COLUMNS)} |"
    rows = [
        f"| {name} | {' | '.join(str(row[column]) for column in COLUMNS)} |" for name, row in record.items()
    ]
    return "\n".join([head, "|---" * (1 + len(COLUMNS)) + "|", *rows])


def store(record: dict[str, dict]) -> None:
    """Write record and table, the notebooks in their order."""
    in_order = {name: record[name] for name in map(name_of, NOTEBOOKS) if name in record}
    RECORD.write_text(json.dumps(in_order, indent=1) + "\n")
    write_between(BEGIN, END, table(in_order), README)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("notebooks", nargs="*", type=Path, help="by default all")
    parser.add_argument("--write", action="store_true", help="write the time in words into the headers, too")
    given = parser.parse_args(arguments)
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    for path in [path.resolve() for path in given.notebooks] or NOTEBOOKS:
        record[name_of(path)] = measure(path)
        print(name_of(path), record[name_of(path)], flush=True)
        store(record)  # each at once: what was measured is kept, whatever comes next
    for path in NOTEBOOKS:
        if given.write and path.parent.name != "solutions" and name_of(path) in record:
            words = in_words(record[name_of(path)]["seconds"])
            path.write_text(with_time(path.read_text(), words))


if __name__ == "__main__":
    main()
