"""`check_environment` names what is missing and the fix; `setup` is silent and can be repeated."""

import sys
from importlib import metadata

import matplotlib
import pytest
import torch

from gaussreg_lab import environment
from gaussreg_lab.environment import check_environment, setup


@pytest.fixture
def versions(monkeypatch):
    known = {"torch": "2.15.0+cu130", "torchvision": "0.29.2", "jupyterlab": "4.6.6", "ipywidgets": "8.1.8"}
    known |= {"matplotlib": "3.11.2", "numpy": "2.4.6", "tqdm": "4.70.1"}

    def version(name):
        if known[name] is None:
            raise metadata.PackageNotFoundError(name)
        return known[name]

    monkeypatch.setattr(environment.metadata, "version", version)
    return known


def test_all_is_well(versions, capsys):
    assert check_environment() == []
    assert capsys.readouterr().out == "All is ready: Python, packages and the digits.\n"


def test_this_machine_is_ready():
    assert check_environment() == []


@pytest.mark.parametrize(
    ("name", "version", "problem"),
    [
        ("ipywidgets", "8.1.9", "ipywidgets 8.1.9 shows no sliders in VS Code: pip install"),
        ("tqdm", None, 'tqdm is missing: pip install "tqdm'),
        ("torch", "1.13.1+cpu", "torch is 1.13.1"),
        ("jupyterlab", "4.0.13", "jupyterlab is 4.0.13"),
    ],
)
def test_a_problem_comes_with_its_fix(versions, capsys, name, version, problem):
    versions[name] = version
    (found,) = check_environment()
    assert problem in found
    assert "pip install" in found
    assert found in capsys.readouterr().out


@pytest.mark.parametrize("version", ["8.1.8", "8.1.10"])
def test_widgets_of_version_8_are_welcome(versions, version):
    versions["ipywidgets"] = version
    assert check_environment() == []


def test_widgets_of_version_7_are_for_colab(versions, monkeypatch):
    versions["ipywidgets"] = "7.7.1"
    (found,) = check_environment()
    assert 'pip install "ipywidgets>=8"' in found
    monkeypatch.setitem(sys.modules, "google.colab", object())
    assert check_environment() == []


def test_colab_needs_no_jupyterlab(versions, monkeypatch):
    versions["jupyterlab"] = None
    assert len(check_environment()) == 1
    monkeypatch.setitem(sys.modules, "google.colab", object())
    assert check_environment() == []


def test_an_old_python_is_named(versions, monkeypatch):
    monkeypatch.setattr(environment, "OLDEST_PYTHON", (9, 0))
    (found,) = check_environment()
    assert "the course needs 9.0" in found


def test_missing_digits_are_reported(versions, monkeypatch, tmp_path):
    monkeypatch.setattr("gaussreg_lab.places.PACKAGE", tmp_path / "gaussreg_lab")
    (found,) = check_environment()
    assert "digits" in found


def test_setup_is_silent_and_can_be_repeated(capsys):
    with matplotlib.rc_context():
        setup()
        first = torch.rand(3)
        setup()
        assert torch.equal(torch.rand(3), first)
        assert matplotlib.rcParams["figure.dpi"] == 144
    assert torch.get_num_threads() == 1
    assert capsys.readouterr() == ("", "")
