"""Where the course lies on this machine: a clone has it beside the package, a wheel brings it inside.

                           in a clone       from a wheel
    lessons                ../notebooks     course
    digits and records     ../data          data
    what is made or        ../data          a folder of the user's own: the package may be read-only, and
    downloaded later                        is gone with the next version

Lesson: notebooks/00_start_here.ipynb
"""

import os
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent


def from_a_wheel() -> bool:
    """Whether the course came with the package, and is not a clone.

    >>> from_a_wheel()  # in a clone
    False
    """
    return lessons_folder().parent == PACKAGE


def lessons_folder() -> Path:
    """The folder of the notebooks; in a damaged installation it need not exist.

    >>> (lessons_folder() / "00_start_here.ipynb").exists()
    True
    """
    return _brought_or_beside("course", "notebooks")


def data_folder() -> Path:
    """The folder with the digits and, in results, the records; in a damaged installation it need not exist.

    >>> (data_folder() / "digits.npz").exists()
    True
    """
    return _brought_or_beside("data", "data")


def own_folder() -> Path:
    """A folder of the user's for what can be had again, named by the system's custom; it need not exist yet.

    >>> own_folder().name
    'gaussreg_lab'
    """
    own = {"win32": "LOCALAPPDATA"}.get(sys.platform, "XDG_CACHE_HOME")
    return Path(os.environ.get(own) or Path.home() / ".cache") / "gaussreg_lab"


def _brought_or_beside(inside: str, beside: str) -> Path:
    brought = PACKAGE / inside
    return brought if brought.is_dir() else PACKAGE.parent / beside
