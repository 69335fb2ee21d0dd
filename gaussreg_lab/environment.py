"""What a notebook needs around it: the same look and the same draws everywhere, and a check.

Lesson: notebooks/00_start_here.ipynb
"""

import sys
from importlib import metadata

import matplotlib
import torch
from packaging.requirements import Requirement

from gaussreg_lab.datasets import digits
from gaussreg_lab.figures import STYLE

# The ranges of pyproject.toml once more, for places where the package is not installed but only
# found (Binder, Colab); a test holds the two together.
REQUIREMENTS = (
    "torch>=2.4,<3",
    "torchvision>=0.19,<1",
    "jupyterlab>=4.2,<5",
    "ipywidgets>=7.7.1,!=8.1.9,<9",
    "matplotlib>=3.8,<4",
    "numpy>=1.26,<3",
    "tqdm>=4.66,<5",
)
OLDEST_PYTHON = (3, 10)
THREADS = 1


def setup() -> None:
    """Give this notebook the course's figure style, a seed and a single thread.

    Prints nothing. Called by the first cell of every lesson; harmless to call again.
    """
    matplotlib.rcParams.update(STYLE)
    torch.manual_seed(0)
    # Networks this small gain little from a second thread, and threads that wait for each other on a
    # shared core (Binder, a classroom server) can take ten times as long as one alone.
    torch.set_num_threads(THREADS)


def check_environment() -> list[str]:
    """Print whether this machine has what the course needs, and for each thing missing the fix.

    Returns the problems as a list of sentences, empty when all is well.
    """
    problems = [*_python_problems(), *_package_problems(), *_data_problems()]
    if not problems:
        print("All is ready: Python, packages and the digits.")
    for problem in problems:
        print(f"- {problem}")
    return problems


def _python_problems() -> list[str]:
    if sys.version_info >= OLDEST_PYTHON:
        return []
    oldest = ".".join(map(str, OLDEST_PYTHON))
    return [f"Python is {sys.version.split()[0]}, the course needs {oldest}: make a new environment with it."]


def _package_problems() -> list[str]:
    requirements = [Requirement(line) for line in REQUIREMENTS]
    # on Colab the front end is Google's own: no JupyterLab to look for, and widgets of version 7
    on_colab = "google.colab" in sys.modules
    if not on_colab:
        requirements.append(Requirement("ipywidgets>=8"))
    return [
        problem
        for requirement in requirements
        if not (on_colab and requirement.name == "jupyterlab") and (problem := _package_problem(requirement))
    ]


def _package_problem(requirement: Requirement) -> str | None:
    fix = f'pip install "{requirement}", then restart the kernel'
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return f"{requirement.name} is missing: {fix}."
    if requirement.specifier.contains(version.split("+")[0], prereleases=True):
        return None
    if requirement.name == "ipywidgets" and version == "8.1.9":
        return f"ipywidgets 8.1.9 shows no sliders in VS Code: {fix}."
    return f"{requirement.name} is {version}, the course needs {requirement.specifier}: {fix}."


def _data_problems() -> list[str]:
    try:
        digits()
    except (FileNotFoundError, ValueError) as error:
        return [f"{error}."]
    return []
