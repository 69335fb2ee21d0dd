"""Finished runs, kept in a file that outlives whatever ends the program.

A store is a file of JSON lines. Where a sweep began, or went on, a line says how the runs below it were made:

    {"about": {"run": "module.function", "gaussreg_lab": "0.1.0", "torch": "2.9.0", ...}}

and then, one line each, the runs in the order in which they ended:

    {"setting": {"sigma": 0.5}, "seed": 271, "result": {"accuracy": 0.93}, "error": null, "seconds": 4.2}

A line is on the disk before the program goes on. So all that can be lost is the last line, where the program
was killed while it wrote: half a line is dropped when the store is next opened. Damage anywhere else has
another cause, and is reported instead.

NaN and infinite results are written as NaN, Infinity and -Infinity. The standard of JSON has no word for
them, but Python's json and many other readers know these. All other numbers come back bit for bit.

Lesson: notebooks/08_explore.ipynb
"""

import json
import os
import weakref
from pathlib import Path
from typing import NamedTuple

from gaussreg_lab.settings import canonical

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
    import msvcrt

FIRST = b'{"about": {'  # the first bytes of every store
FAR = 2**30  # Windows locks bytes, not files: this one will never be written


class Run(NamedTuple):
    """One finished run.

    setting: what it was called with. seed: what its random numbers began with. result: what it returned, None
    where it failed. error: type and message, say "ValueError: ...", where it failed, else None. seconds: of
    wall clock.
    """

    setting: dict
    seed: int
    result: dict | None
    error: str | None
    seconds: float


class Store:
    """The runs of one file, open for more. Use it in a `with` block.

    runs: those in the file, by `canonical(setting)`; of several with one setting the last. The file is made
    where there is none, and half a line at its end is dropped.
    Raises FileNotFoundError where its folder does not exist, ValueError for a file that is damaged or none of
    ours (both are left as they are), RuntimeError where another sweep holds the file.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        if not self.path.parent.is_dir():
            raise FileNotFoundError(f"Expected store in a folder that exists, got {self.path}; make it first")
        # unbuffered: a process forked from this one must find nothing that it would write a second time
        self._file = open(self.path, "ab+", buffering=0)  # noqa: SIM115
        try:
            self._lock()
            self._file.seek(0)
            content = self._file.readall()
            self.runs, whole = _parse(content, self.path)
            self._file.truncate(whole)
            if whole and content[whole - 1 : whole] != b"\n":
                self._file.write(b"\n")  # only this was missing
        except BaseException:
            self._file.close()
            raise
        _open_stores.add(self)

    def begin(self, about: dict) -> None:
        """Write down what the runs that follow were made with."""
        self._append({"about": about})

    def add(self, run: Run) -> None:
        """Keep one more run; it is on the disk when this returns."""
        self._append(run._asdict())
        self.runs[canonical(run.setting)] = run

    def close(self) -> None:
        """Let the file go."""
        self._file.close()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _append(self, record: dict) -> None:
        line = json.dumps(record).encode() + b"\n"
        if self._file.write(line) < len(line):
            raise OSError(
                f"Expected room for one more run in {self.path}, got half of it written: disk full?"
            )
        os.fsync(self._file.fileno())

    def _lock(self) -> None:
        """Take hold of the file, until it is closed or the process ends, in whatever way."""
        try:
            if fcntl is not None:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            else:
                self._file.seek(FAR)
                msvcrt.locking(self._file.fileno(), msvcrt.LK_NBLCK, 1)
        except (BlockingIOError, PermissionError) as error:
            raise RuntimeError(
                f"Expected store {self.path} to be free, but another sweep is writing to it; wait until that "
                "one has ended, or pass another store"
            ) from error


_open_stores: "weakref.WeakSet[Store]" = weakref.WeakSet()


def _leave_to_the_parent() -> None:
    """In a forked process: close its copies of the files, which it would hold after the parent's end."""
    for store in list(_open_stores):
        store.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_the_parent)


def stored_runs(path: str | os.PathLike) -> list[Run]:
    """The runs in a store, in the order of their first appearance; of several with one setting the last.

    Only reads, so it may be called while a sweep is writing. Raises FileNotFoundError where there is no such
    file, ValueError where it is damaged or none of ours.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with Store(f"{folder}/runs.jsonl") as store:
    ...         store.begin({"run": "by hand"})
    ...         store.add(Run({"sigma": 0.5}, 271, {"accuracy": 0.93}, None, 4.2))
    ...     stored_runs(f"{folder}/runs.jsonl")
    [Run(setting={'sigma': 0.5}, seed=271, result={'accuracy': 0.93}, error=None, seconds=4.2)]
    """
    return list(_parse(Path(path).read_bytes(), Path(path))[0].values())


def _parse(content: bytes, path: Path) -> tuple[dict[str, Run], int]:
    """The runs in a file, and how many of its bytes are whole lines."""
    *lines, last = content.split(b"\n")
    if last and _record(last) is not None:
        lines, last = [*lines, last], b""
    if not any(lines) and last[: len(FIRST)] != FIRST[: len(last)]:
        raise ValueError(_not_ours(path, last))
    runs = {}
    for number, line in enumerate(lines, start=1):
        if number > 1 and not line.strip():
            continue  # left by an editor
        record = _record(line)
        if number == 1 and (record is None or "about" not in record):
            raise ValueError(_not_ours(path, line))
        if record is None:
            raise ValueError(
                f"Expected a run in line {number} of {path}, got {line[:80]!r}: it is damaged. Nothing "
                "has been changed. Delete that line, and its run will be made again"
            )
        if "about" not in record:
            runs[canonical(record["setting"])] = Run(**record)
    return runs, len(content) - len(last)


def _record(line: bytes) -> dict | None:
    """The content of a line; None where it is neither a run nor a line about runs."""
    try:
        record = json.loads(line.decode())
    except ValueError:
        return None
    known = isinstance(record, dict) and set(record) in ({"about"}, set(Run._fields))
    return record if known else None


def _not_ours(path: Path, line: bytes) -> str:
    return f"Expected store to be a file that a sweep has made, or a new one, got {path}, with {line[:80]!r}"
