"""`gaussreg-lab`, the same as `python -m gaussreg_lab`: opens the course in JupyterLab.

In a clone of the repository these are the clone's own notebooks. Installed from a wheel, the course is laid
out in a folder first, gaussreg_lab_course unless another is named; whatever is there stays as it is.

Further arguments are JupyterLab's own: gaussreg-lab --course FOLDER --no-browser --port 9999
"""

import argparse
import os
import sys
from pathlib import Path

from gaussreg_lab.course_folder import LaidOut, lay_out
from gaussreg_lab.places import PACKAGE

CLONE = PACKAGE.parent
START = Path("notebooks") / "00_start_here.ipynb"  # in a clone and in a laid-out course alike
FOLDER = "gaussreg_lab_course"
LAB_SETTINGS = PACKAGE / "lab_settings"

# What a wheel brings, and where the lessons' links look for it. Without its __init__.py the copied code is
# there to be read: the one that runs is the installed one.
PARTS = {
    "notebooks": PACKAGE / "course",
    "data": PACKAGE / "data",
    "gaussreg_lab/experiments": PACKAGE / "experiments",
}
QUESTIONS = {"-h", "--help", "--help-all", "--version"}  # JupyterLab answers, and opens nothing


def settings(root: Path) -> list[str]:
    """Nothing but the course, at its first lesson: no news, no look for updates or language servers."""
    return [
        f"--ServerApp.root_dir={root}",
        f"--LabApp.default_url=/lab/tree/{START.as_posix()}",  # also in the address it prints
        "--LabApp.extension_manager=readonly",
        "--LabApp.news_url=",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        "--LanguageServerManager.autodetect=False",
        f"--LabApp.app_settings_dir={LAB_SETTINGS}",
    ]


def arguments(root: Path, further: list[str]) -> list[str]:
    """JupyterLab's command line for the course in `root`; where the user sets the same, the user wins."""
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0  # as in most containers
    allowed = ["--allow-root"] if is_root else []
    theirs = {argument.split("=")[0] for argument in further}  # JupyterLab refuses to be told twice
    ours = [setting for setting in settings(root) if setting.split("=")[0] not in theirs]
    return [*ours, *allowed, *further]


def course(folder: Path | None) -> Path:
    """The folder to open: a clone's own, or `folder` with the course that the wheel brought laid out in it.

    folder: None for the usual one. Exits with a sentence where there is no course, or no place for it.
    """
    if PARTS["notebooks"].is_dir():
        return _laid_out(_usual_folder() if folder is None else folder.expanduser().absolute())
    if not (CLONE / START).exists():
        sys.exit(
            f"Expected the course in {PARTS['notebooks']} or {CLONE / START.parent}, found it in neither.\n"
            "Install the wheel again, or clone the repository and install from there: the README says how."
        )
    if folder is not None:
        sys.exit(
            f"Expected --course only after installation from a wheel, got --course {folder} in a clone.\n"
            f"A clone opens its own notebooks, in {CLONE}; leave --course out."
        )
    return CLONE


def _usual_folder() -> Path:
    here = Path.cwd()
    return here if (here / START).exists() else here / FOLDER  # started from within the course: no second one


def _laid_out(folder: Path) -> Path:
    try:
        done = lay_out(PARTS, folder)
    except OSError as error:
        no_folder = isinstance(error, FileExistsError | NotADirectoryError)
        why = "a file is where a folder should be" if no_folder else error.strerror
        sys.exit(
            f"Could not put the course into {folder}: {why} ({error.filename2 or error.filename}).\n"
            "Name another folder: gaussreg-lab --course FOLDER"
        )
    print(_told(done, folder), file=sys.stderr, flush=True)
    return folder


def _told(done: LaidOut, folder: Path) -> str:
    """What was done to the folder, in a line or two."""
    told = f"The course is in {folder}" + (f" (files copied: {len(done.copied)})." if done.copied else ".")
    if done.kept:
        several = f" and {len(done.kept) - 3} more" if len(done.kept) > 3 else ""
        told += (
            "\nKept as they are, since they differ from this version of the course: "
            f"{', '.join(it.as_posix() for it in done.kept[:3])}{several}. "
            "To have the course as it came, too, name another folder: --course FOLDER"
        )
    return told


def main() -> None:
    """Open the course; ends when JupyterLab does."""
    parser = argparse.ArgumentParser(
        prog="gaussreg-lab",
        description="Opens the course in JupyterLab, to which all further arguments are passed on.",
        add_help=False,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--course",
        type=Path,
        metavar="FOLDER",
        help=f"where the course is laid out, after installation from a wheel (by default {FOLDER}, here)",
    )
    asked, further = parser.parse_known_args()
    if QUESTIONS.isdisjoint(further):
        further = arguments(course(asked.course), further)
    elif "--version" not in further:
        parser.print_help()
    from jupyterlab.labapp import LabApp

    LabApp.launch_instance(further)


if __name__ == "__main__":
    main()
