"""`gaussreg-lab` hands JupyterLab a quiet command line, and says so where there is no course."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gaussreg_lab import __main__ as command

ROOT = Path(__file__).parent.parent


def shown_config(*further):
    """What JupyterLab's own parser makes of the command line; it warns about what it does not know."""
    program = [sys.executable, "-m", "gaussreg_lab", "--show-config", *further]
    ran = subprocess.run(program, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert not re.search("unrecognized|error linking", ran.stdout + ran.stderr)
    return ran.stdout


@pytest.fixture
def wheel(monkeypatch, tmp_path):
    """A package that was installed from a wheel, with a course of one lesson; the current folder is empty."""
    course = tmp_path / "site-packages" / "gaussreg_lab" / "course"
    course.mkdir(parents=True)
    (course / "00_start_here.ipynb").write_text("the first lesson")
    monkeypatch.setattr(command, "PARTS", {"notebooks": course})
    monkeypatch.setattr(command, "CLONE", tmp_path / "site-packages")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return course


def launched(monkeypatch, *arguments) -> list[str]:
    """What JupyterLab is started with."""
    from jupyterlab.labapp import LabApp

    started = []
    monkeypatch.setattr(LabApp, "launch_instance", started.append)
    monkeypatch.setattr(sys, "argv", ["gaussreg-lab", *arguments])
    command.main()
    return started[0]


# in a clone


def test_further_arguments_are_passed_on():
    assert command.arguments(ROOT, ["--no-browser", "--port=9999"])[-2:] == ["--no-browser", "--port=9999"]


def test_where_the_user_sets_the_same_the_user_wins():
    config = shown_config("--LabApp.extension_manager=pypi", "--port=9999")
    assert re.search(r"extension_manager = .*'pypi'", config)
    assert re.search(r"port = .*9999", config)


def test_the_first_lesson_is_the_landing_page():
    landing = "--LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb"
    assert landing in command.arguments(ROOT, [])
    assert (ROOT / command.START).exists()
    assert (command.LAB_SETTINGS / "overrides.json").exists()


def test_root_is_allowed_only_where_it_is_root(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0, raising=False)
    assert "--allow-root" in command.arguments(ROOT, [])
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "--allow-root" not in command.arguments(ROOT, [])
    monkeypatch.delattr(os, "geteuid")  # Windows
    assert "--allow-root" not in command.arguments(ROOT, [])


def test_jupyterlab_takes_the_command_line():
    config = shown_config()
    assert re.search(r"extension_manager = .*'readonly'", config)
    assert re.search(r"default_url = .*'/lab/tree/notebooks/00_start_here.ipynb'", config)
    assert f"root_dir = '{ROOT}'" in config


def test_a_clone_opens_its_own_notebooks_and_lays_out_nothing(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert f"--ServerApp.root_dir={ROOT}" in launched(monkeypatch)
    with pytest.raises(SystemExit, match="after installation from a wheel, got --course mine in a clone"):
        launched(monkeypatch, "--course", "mine")
    assert list(tmp_path.iterdir()) == []


def test_without_notebooks_the_command_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(command, "CLONE", tmp_path)
    with pytest.raises(SystemExit, match="clone the repository"):
        launched(monkeypatch)


# from a wheel


@pytest.mark.parametrize(
    ("asked", "folder"),
    [
        ([], "here/gaussreg_lab_course"),
        (["--course", "mine"], "here/mine"),
        (["--course=../there"], "here/../there"),
        (["--course", "~/mine"], "home/mine"),
    ],
)
def test_the_course_is_laid_out_and_opened(wheel, asked, folder, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    started = launched(monkeypatch, "--no-browser", *asked, "--port", "9999")
    assert f"--ServerApp.root_dir={tmp_path / folder}" in started
    assert started[-3:] == ["--no-browser", "--port", "9999"]
    assert (tmp_path / folder / command.START).read_text() == "the first lesson"
    assert capsys.readouterr().err == f"The course is in {tmp_path / folder} (files copied: 1).\n"


def test_started_within_the_course_there_is_no_second_one(wheel, monkeypatch, tmp_path, capsys):
    first = launched(monkeypatch)
    monkeypatch.chdir("gaussreg_lab_course")
    capsys.readouterr()
    assert launched(monkeypatch) == first
    assert capsys.readouterr().err == f"The course is in {Path.cwd()}.\n"
    assert [it.name for it in Path.cwd().iterdir()] == ["notebooks"]


def test_what_a_student_wrote_stays_and_is_told(wheel, monkeypatch, capsys):
    launched(monkeypatch)
    mine = Path("gaussreg_lab_course") / command.START
    mine.write_text("my own lesson")
    capsys.readouterr()
    launched(monkeypatch)
    assert mine.read_text() == "my own lesson"
    told = capsys.readouterr().err
    assert "Kept as they are, since they differ from this version of the course" in told
    assert "notebooks/00_start_here.ipynb" in told


@pytest.mark.parametrize("question", ["-h", "--help", "--help-all", "--version"])
def test_a_question_is_passed_on_and_lays_out_nothing(wheel, question, monkeypatch, capsys):
    assert launched(monkeypatch, question) == [question]
    assert ("--course FOLDER" in capsys.readouterr().out) == (question != "--version")
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize("in_the_way", ["gaussreg_lab_course", "gaussreg_lab_course/notebooks", "../here/x"])
def test_a_file_where_a_folder_should_be_is_told(wheel, in_the_way, monkeypatch):
    Path(in_the_way).parent.mkdir(exist_ok=True)
    Path(in_the_way).write_text("a letter")
    asked = ["--course", "x/y"] if in_the_way.endswith("x") else []
    with pytest.raises(
        SystemExit, match=r"Could not put the course into .*a file is where a folder should be"
    ):
        launched(monkeypatch, *asked)
    assert Path(in_the_way).read_text() == "a letter"


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_folder_that_cannot_be_written_is_told(wheel, code, monkeypatch):
    def refuse(source, target):
        raise OSError(code, os.strerror(code), str(source), None, str(target))

    monkeypatch.setattr("shutil.copyfile", refuse)
    with pytest.raises(SystemExit) as ended:
        launched(monkeypatch)
    first, second = ended.value.code.splitlines()
    assert first.startswith(f"Could not put the course into {Path.cwd() / 'gaussreg_lab_course'}: ")
    assert os.strerror(code) in first
    assert second == "Name another folder: gaussreg-lab --course FOLDER"


def test_a_course_folder_without_a_name_is_told(wheel, monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        launched(monkeypatch, "--course")
    assert ended.value.code == 2
    assert "expected one argument" in capsys.readouterr().err
