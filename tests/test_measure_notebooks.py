"""What every notebook takes is recorded; the headers and the table say what the record says."""

import json

import measure_notebooks
import nbformat
import pytest
from course import LESSONS, NOTEBOOKS
from measure_notebooks import BEGIN, END, HEADER, README, RECORD, in_words, measure, name_of, table, with_time

needs_record = pytest.mark.skipif(
    not RECORD.exists(), reason="needs tests/benchmarks/notebooks.json, made by tests/measure_notebooks.py"
)


def recorded() -> dict[str, dict]:
    return json.loads(RECORD.read_text())


@needs_record
def test_every_notebook_is_recorded_as_it_is():
    assert list(recorded()) == [name_of(path) for path in NOTEBOOKS]
    for path in NOTEBOOKS:
        counted = measure_notebooks.counts(nbformat.read(path, as_version=4))
        assert counted.items() <= recorded()[name_of(path)].items(), path


@needs_record
@pytest.mark.parametrize("name", [name_of(path) for path in NOTEBOOKS])
def test_every_notebook_fits_a_small_machine(name):
    row = recorded()[name]
    assert 0 < row["seconds"] < 60
    assert 100 < row["megabytes"] < 1000  # torch alone takes more than 100


@needs_record
@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_a_header_says_the_computer_s_time_as_recorded(lesson):
    (said,) = (words for _, words in HEADER.findall(lesson.read_text()))
    assert said == in_words(recorded()[lesson.stem]["seconds"])


@needs_record
def test_the_table_says_what_the_record_says():
    assert f"{BEGIN}\n{table(recorded())}\n{END}" in README.read_text()


def test_there_is_a_place_for_the_table():
    assert README.read_text().count(BEGIN) == README.read_text().count(END) == 1


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_writing_a_time_changes_nothing_else(lesson):
    before = lesson.read_text()
    after = with_time(before, "a blink")
    assert "of which the computer needs a blink" in nbformat.reads(after, as_version=4).cells[1].source
    changed = [
        (old, new) for old, new in zip(before.splitlines(), after.splitlines(), strict=True) if old != new
    ]
    assert len(changed) == 1
    assert with_time(after, HEADER.search(before)[2]) == before
    assert HEADER.sub("", before) == HEADER.sub("", after)


def test_a_notebook_without_such_a_line_is_left_alone():
    with pytest.raises(ValueError, match="what the computer needs, got 0"):
        with_time("*Time*: 75 minutes.", "about one")


def test_words_grow_with_the_seconds():
    assert [in_words(it) for it in (0.3, 6.9, 7, 19, 20, 44, 45, 89, 90, 170)] == [
        *2 * ["a few seconds"],
        *2 * ["a quarter of one"],
        *2 * ["half of one"],
        *2 * ["about one"],
        "about 2",
        "about 3",
    ]


def notebook(path, *sources):
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


A_CHILD = """
import subprocess, sys, time
mine = b"1" * 150_000_000
child = subprocess.Popen([sys.executable, "-c", "import time; its = b'2' * 250_000_000; time.sleep(60)"])
time.sleep(5)
child.kill()
_ = child.wait()
del mine
"""


def test_memory_is_the_most_that_kernel_and_children_hold_together(tmp_path):
    row = measure(notebook(tmp_path / "heavy.ipynb", A_CHILD, "import time; time.sleep(1)"))
    assert 400 < row["megabytes"] < 700
    assert row["seconds"] >= 6
    assert (row["panels"], row["figures"], row["exercises"]) == (0, 0, 0)


def test_the_kernel_is_new_has_one_thread_and_nothing_computed_earlier(tmp_path):
    source = "import os; from pathlib import Path; here = Path.cwd()\n"
    source += "assert os.environ['OMP_NUM_THREADS'] == '1'\n"
    source += "assert os.environ['MEM_LIMIT'] == '1000000000'\n"
    source += "assert (here.parent / 'gaussreg_lab' / '__init__.py').exists()\n"
    source += "assert (here.parent / 'data' / 'digits.npz').exists()\n"
    source += "assert not (here.parent / 'data' / 'cache').exists()\n"
    source += 'lab = type("lab", (), {"check": print})\nlab.check("1.1", 0.2)\nlab.check("1.2", 0.2)'
    assert measure(notebook(tmp_path / "new.ipynb", source))["exercises"] == 2


def test_a_cell_that_fails_stops_the_measurement(tmp_path):
    with pytest.raises(Exception, match="ZeroDivisionError"):
        measure(notebook(tmp_path / "failing.ipynb", "1 / 0"))


@pytest.fixture
def a_course(tmp_path, monkeypatch):
    """A lesson and its solution whose runs are not made: 3 s at first, 30 s later."""
    for folder in ("notebooks/solutions", "tests/benchmarks"):
        (tmp_path / folder).mkdir(parents=True)
    paths = [tmp_path / "notebooks" / "01_a.ipynb", tmp_path / "notebooks" / "solutions" / "01_a.ipynb"]
    for path in paths:
        notebook(path, "1")
    text = json.dumps(
        nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_markdown_cell("*Time*: 5 minutes, of which the computer needs ages. *P*")]
        )
    )
    paths[0].write_text(text)
    (tmp_path / "tests" / "benchmarks" / "README.md").write_text(f"# Speed\n\n{BEGIN}\nold\n{END}\nmore\n")
    row = {"megabytes": 300, "file_kilobytes": 1, "panels": 2, "figures": 3, "exercises": 4}
    seconds = iter([3.0, 3.0, 30.0])
    monkeypatch.setattr(measure_notebooks, "measure", lambda path: {"seconds": next(seconds), **row})
    monkeypatch.setattr(measure_notebooks, "ROOT", tmp_path)
    monkeypatch.setattr("course.ROOT", tmp_path)
    monkeypatch.setattr(measure_notebooks, "NOTEBOOKS", paths)
    monkeypatch.setattr(measure_notebooks, "RECORD", tmp_path / "tests" / "benchmarks" / "notebooks.json")
    monkeypatch.setattr(measure_notebooks, "README", tmp_path / "tests" / "benchmarks" / "README.md")
    return paths


def test_record_table_and_header_are_written(a_course):
    lesson = a_course[0]
    measure_notebooks.main([])
    record = json.loads(measure_notebooks.RECORD.read_text())
    assert list(record) == ["01_a", "solutions/01_a"]
    assert "needs ages." in lesson.read_text()  # not asked to write
    written = measure_notebooks.README.read_text()
    assert "| solutions/01_a | 3.0 | 300 | 1 | 2 | 3 | 4 |" in written
    assert written.startswith("# Speed\n")
    assert written.endswith(f"{END}\nmore\n")
    assert "old" not in written

    measure_notebooks.main(["--write", str(lesson)])  # one of them: the other's record stays
    record = json.loads(measure_notebooks.RECORD.read_text())
    assert [row["seconds"] for row in record.values()] == [30.0, 3.0]
    assert "needs half of one." in lesson.read_text()
