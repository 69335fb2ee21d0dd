"""`gaussreg-lab` hands JupyterLab a quiet command line, and says so where there is no course."""

import os
import re
import subprocess
import sys

import pytest

from gaussreg_lab import __main__ as command


def shown_config(*further):
    """What JupyterLab's own parser makes of the command line; it warns about what it does not know."""
    program = [sys.executable, "-m", "gaussreg_lab", "--show-config", *further]
    ran = subprocess.run(program, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert not re.search("unrecognized|error linking", ran.stdout + ran.stderr)
    return ran.stdout


def test_further_arguments_are_passed_on():
    assert command.arguments(["--no-browser", "--port=9999"])[-2:] == ["--no-browser", "--port=9999"]


def test_where_the_user_sets_the_same_the_user_wins():
    config = shown_config("--LabApp.extension_manager=pypi", "--port=9999")
    assert re.search(r"extension_manager = .*'pypi'", config)
    assert re.search(r"port = .*9999", config)


def test_the_first_lesson_is_the_landing_page():
    assert "--LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb" in command.arguments([])
    assert command.START.exists()
    assert (command.LAB_SETTINGS / "overrides.json").exists()


def test_root_is_allowed_only_where_it_is_root(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0, raising=False)
    assert "--allow-root" in command.arguments([])
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "--allow-root" not in command.arguments([])
    monkeypatch.delattr(os, "geteuid")  # Windows
    assert "--allow-root" not in command.arguments([])


def test_jupyterlab_takes_the_command_line():
    config = shown_config()
    assert re.search(r"extension_manager = .*'readonly'", config)
    assert re.search(r"default_url = .*'/lab/tree/notebooks/00_start_here.ipynb'", config)


def test_without_notebooks_the_command_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(command, "COURSE", tmp_path)
    monkeypatch.setattr(command, "START", tmp_path / "00_start_here.ipynb")
    with pytest.raises(SystemExit, match="Clone the repository"):
        command.main()
