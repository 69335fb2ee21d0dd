"""A course laid out in a folder: what is missing comes, what is there stays, nothing is ever half there."""

import errno
import os
import shutil
import time
from pathlib import Path

import pytest

from gaussreg_lab import course_folder
from gaussreg_lab.course_folder import LaidOut, lay_out

FILES = {"notebooks/00.ipynb": b"zero", "notebooks/solutions/00.ipynb": b"solved", "data/README.md": b"data"}


@pytest.fixture
def parts(tmp_path) -> dict[str, Path]:
    """What is installed: a course of three files, which nobody may write to, in two directories."""
    for place, content in FILES.items():
        file = tmp_path / "installed" / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        file.chmod(0o444)
    return {name: tmp_path / "installed" / name for name in ("notebooks", "data")}


@pytest.fixture
def mine(tmp_path) -> Path:
    return tmp_path / "some" / "where" / "mine"


def contents(folder: Path) -> dict[str, bytes]:
    """All that lies in the folder, hidden files too."""
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if not file.is_dir()
    }


def test_an_empty_place_gets_everything(parts, mine):
    done = lay_out(parts, mine)
    assert contents(mine) == FILES
    assert {it.as_posix() for it in done.copied} == set(FILES)
    assert done.kept == []


def test_what_is_laid_out_can_be_changed_where_the_installed_is_read_only(parts, mine):
    lay_out(parts, mine)
    ordinary = mine / "ordinary"
    ordinary.touch()
    assert (mine / "data" / "README.md").stat().st_mode == ordinary.stat().st_mode


def test_a_second_time_changes_nothing(parts, mine):
    lay_out(parts, mine)
    before = {file: file.stat().st_mtime_ns for file in mine.rglob("*")}
    assert lay_out(parts, mine) == LaidOut([], [])
    assert {file: file.stat().st_mtime_ns for file in mine.rglob("*")} == before


def test_what_a_student_wrote_stays_and_what_is_gone_comes_back(parts, mine):
    lay_out(parts, mine)
    (mine / "notebooks" / "00.ipynb").write_bytes(b"ZERO")  # of the same length
    (mine / "notebooks" / "notes.txt").write_bytes(b"notes")
    (mine / "data" / "README.md").unlink()
    done = lay_out(parts, mine)
    assert done == LaidOut(copied=[Path("data/README.md")], kept=[Path("notebooks/00.ipynb")])
    assert contents(mine) == FILES | {"notebooks/00.ipynb": b"ZERO", "notebooks/notes.txt": b"notes"}


def test_a_newer_course_brings_its_new_files_only(parts, mine):
    lay_out(parts, mine)
    (parts["notebooks"] / "01.ipynb").write_bytes(b"one")
    changed = parts["notebooks"] / "00.ipynb"
    changed.chmod(0o644)
    changed.write_bytes(b"a better zero")
    done = lay_out(parts, mine)
    assert done == LaidOut(copied=[Path("notebooks/01.ipynb")], kept=[Path("notebooks/00.ipynb")])
    assert contents(mine) == FILES | {"notebooks/01.ipynb": b"one"}


def test_a_directory_or_a_link_in_a_files_place_is_left_alone(parts, mine):
    (mine / "notebooks" / "00.ipynb").mkdir(parents=True)
    (mine / "data").mkdir()
    (mine / "data" / "README.md").symlink_to(mine / "nowhere")
    done = lay_out(parts, mine)
    assert {it.as_posix() for it in done.kept} == {"notebooks/00.ipynb", "data/README.md"}
    assert (mine / "notebooks" / "00.ipynb").is_dir()
    assert os.readlink(mine / "data" / "README.md") == str(mine / "nowhere")


def test_what_python_and_jupyterlab_add_by_themselves_is_left_out(parts, mine):
    for name in ("__pycache__", ".ipynb_checkpoints"):
        (parts["notebooks"] / name).mkdir()
        (parts["notebooks"] / name / "more").touch()
    lay_out(parts, mine)
    assert contents(mine) == FILES


def test_a_full_disk_leaves_whole_files_only_and_the_next_try_goes_on(parts, mine, monkeypatch):
    whole = shutil.copyfile

    def half_of_the_solutions(source, target):
        if source.parent.name != "solutions":
            return whole(source, target)
        Path(target).write_bytes(source.read_bytes()[:3])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(shutil, "copyfile", half_of_the_solutions)
        with pytest.raises(OSError, match="No space left"):
            lay_out(parts, mine)
    assert contents(mine) == {"notebooks/00.ipynb": b"zero"}
    lay_out(parts, mine)
    assert contents(mine) == FILES


def test_a_file_in_the_way_of_a_folder_is_told_and_left(parts, mine):
    mine.parent.mkdir(parents=True)
    mine.write_text("a letter")
    with pytest.raises(OSError, match="mine"):
        lay_out(parts, mine)
    assert mine.read_text() == "a letter"


def test_half_a_file_of_a_killed_process_goes_when_its_owner_is_surely_gone(parts, mine):
    (mine / "notebooks").mkdir(parents=True)
    old, young = (mine / "notebooks" / f".00.ipynb.{number}.part" for number in (1, 2))
    for file in (old, young):
        file.write_bytes(b"ze")
    os.utime(old, 2 * (time.time() - 2 * course_folder.AN_HOUR,))
    lay_out(parts, mine)
    assert contents(mine) == FILES | {"notebooks/.00.ipynb.2.part": b"ze"}
