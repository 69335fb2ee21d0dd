"""One thread and one seed for every test, and the folder of the large data sets where there is one."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from gaussreg_lab.datasets import Split, mnist

# the same examples at every run; a slow machine is not a failure
settings.register_profile("course", deadline=None, derandomize=True, max_examples=60, database=None)
settings.load_profile("course")


def pytest_configure() -> None:
    torch.set_num_threads(1)  # pytest-xdist already keeps every core busy


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the large data sets, beside the repository or at $GAUSSREG_DATA."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("GAUSSREG_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"needs the large data sets in {folder}; set GAUSSREG_DATA to where they are")
    return folder


@pytest.fixture(scope="session")
def mnist_root(shared_data: Path) -> str:
    """The folder that holds MNIST, as torchvision and the studies take it."""
    if not (shared_data / "MNIST").is_dir():
        pytest.skip(f"needs MNIST in {shared_data}; set GAUSSREG_DATA to where it is")
    return str(shared_data)


@pytest.fixture(scope="session")
def real_mnist(mnist_root: str) -> Split:
    """All of MNIST, 220 MB, read once."""
    return mnist(mnist_root)
