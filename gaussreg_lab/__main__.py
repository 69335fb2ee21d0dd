"""`gaussreg-lab`, the same as `python -m gaussreg_lab`: opens the course in JupyterLab.

Arguments are JupyterLab's own and are passed on: gaussreg-lab --no-browser --port 9999
"""

import os
import sys
from pathlib import Path

COURSE = Path(__file__).parent.parent / "notebooks"
START = COURSE / "00_start_here.ipynb"
LAB_SETTINGS = Path(__file__).parent / "lab_settings"

# nothing but the course, at its first lesson: no news, no look for updates, extensions or language servers
SETTINGS = (
    f"--ServerApp.root_dir={COURSE.parent}",
    f"--LabApp.default_url=/lab/tree/{COURSE.name}/{START.name}",  # also in the address it prints
    "--LabApp.extension_manager=readonly",
    "--LabApp.news_url=",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    "--LanguageServerManager.autodetect=False",
    f"--LabApp.app_settings_dir={LAB_SETTINGS}",
)


def arguments(further: list[str]) -> list[str]:
    """JupyterLab's command line for the course; where the user sets the same thing, the user wins."""
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0  # as in most containers
    allowed = ["--allow-root"] if is_root else []
    theirs = {argument.split("=")[0] for argument in further}  # JupyterLab refuses to be told twice
    ours = [setting for setting in SETTINGS if setting.split("=")[0] not in theirs]
    return [*ours, *allowed, *further]


def main() -> None:
    """Open the course; ends when JupyterLab does."""
    if not START.exists():
        sys.exit(
            f"Expected the course's notebooks in {COURSE}, found none there.\n"
            "Clone the repository and install it from the clone: the README says how."
        )
    from jupyterlab.labapp import LabApp

    LabApp.launch_instance(arguments(sys.argv[1:]))


if __name__ == "__main__":
    main()
