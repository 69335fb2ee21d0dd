"""The course laid out in a student's folder: what is missing is copied, what is there stays as it is.

    in the folder      what happens
    nothing            the file is copied, whole or not at all
    the same file      nothing
    something else     nothing: it may hold somebody's work, so it is counted and left alone

So laying out twice changes nothing, and neither does laying out a newer course over an older one, except for
the files that are new in it.

Lesson: notebooks/00_start_here.ipynb
"""

import filecmp
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

LEFT_OUT = {"__pycache__", ".ipynb_checkpoints"}  # what Python and JupyterLab add by themselves
AN_HOUR = 3600


class LaidOut(NamedTuple):
    """What `lay_out` did: the files it copied and those it found there that differ, within the folder."""

    copied: list[Path]
    kept: list[Path]


def lay_out(parts: Mapping[str, Path], folder: Path) -> LaidOut:
    """Copy into `folder`, which is made where needed, all files of the parts that are not there yet.

    parts: {where within the folder: the directory that is copied there, with all below it}.
    Nothing that is there is written to, be it a file, a directory or a link that leads nowhere.
    Raises OSError, as the system words it, where a file can be neither made nor compared; what was copied
    before stays, and the next call goes on from there.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as mine:
    ...     first = lay_out({"code": Path(__file__).parent}, Path(mine))
    ...     again = lay_out({"code": Path(__file__).parent}, Path(mine))
    >>> Path("code/course_folder.py") in first.copied, again
    (True, LaidOut(copied=[], kept=[]))
    """
    copied, kept = [], []
    for place, source in _files(parts):
        target = folder / place
        if not os.path.lexists(target):
            _copy_whole(source, target)
            copied.append(place)
        elif not (target.is_file() and filecmp.cmp(source, target, shallow=False)):
            kept.append(place)
    return LaidOut(copied, kept)


def _files(parts: Mapping[str, Path]) -> Iterator[tuple[Path, Path]]:
    for where, directory in parts.items():
        for source in sorted(directory.rglob("*")):
            inside = source.relative_to(directory)
            if source.is_file() and LEFT_OUT.isdisjoint(inside.parts):
                yield Path(where) / inside, source


def _copy_whole(source: Path, target: Path) -> None:
    """Under a hidden name first: a crash half-way leaves nothing that could be taken for the file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        # the content alone: what is installed may be read-only, what is laid out is there to be changed
        shutil.copyfile(source, part)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)  # still there only where something went wrong
    for left_over in target.parent.glob(f".{target.name}.*.part"):  # of a process that was killed
        if left_over.stat().st_mtime < time.time() - AN_HOUR:
            left_over.unlink(missing_ok=True)
