"""A clone and a wheel, each laid out in an empty folder, and where the course is looked for in them."""

import sys
from pathlib import Path

import pytest
from course import ROOT

from gaussreg_lab import places


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package in an empty folder; the test puts the course beside it or inside."""
    folder = tmp_path / "package"
    folder.mkdir()
    monkeypatch.setattr(places, "PACKAGE", folder)
    return folder


def test_a_clone_has_its_course_beside_the_package():
    assert not places.from_a_wheel()
    assert places.lessons_folder() == ROOT / "notebooks"
    assert places.data_folder() == ROOT / "data"


def test_a_wheel_has_it_inside_whatever_lies_beside(package):
    for folder in ("course", "data", "../notebooks", "../data"):
        (package / folder).mkdir()
    assert places.from_a_wheel()
    assert places.lessons_folder() == package / "course"
    assert places.data_folder() == package / "data"


def test_without_a_course_the_place_in_a_clone_is_named(package):
    assert not places.from_a_wheel()
    assert places.lessons_folder() == package.parent / "notebooks"
    assert places.data_folder() == package.parent / "data"


@pytest.mark.parametrize(
    ("system", "variable"),
    [("linux", "XDG_CACHE_HOME"), ("darwin", "XDG_CACHE_HOME"), ("win32", "LOCALAPPDATA")],
)
def test_what_is_the_users_own_follows_the_system(system, variable, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setenv(variable, str(tmp_path))
    assert places.own_folder() == tmp_path / "gaussreg_lab"
    monkeypatch.delenv(variable)
    assert places.own_folder() == Path.home() / ".cache" / "gaussreg_lab"
