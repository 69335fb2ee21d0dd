"""The lecturer's page: its plans are those of the notebooks, its code works, its links lead somewhere."""

import re
import subprocess
import zipfile

import nbformat
import pytest
from course import LESSONS, ROOT
from nbclient import NotebookClient

import gaussreg_lab as lab
from gaussreg_lab import cache

PAGE = (ROOT / "notebooks" / "README.md").read_text()
PLANS = re.findall(r"^### \[(\d\d) [^]]+\]\((\S+)\)\n\n((?:\|.*\n)+)", PAGE, re.M)
SWAPS = re.findall(r"^\| (\d\d) \| `(.+?)` \| `(.+?)` \|$", PAGE, re.M)
SESSIONS = re.findall(r"^\| [a-z ]+ \| \d \| (\d\d: .+?) \| (\d+) \|$", PAGE, re.M)
by_plan = pytest.mark.parametrize(("number", "link", "rows"), PLANS, ids=[plan[0] for plan in PLANS])


def cells(lesson, kind):
    return [cell for cell in nbformat.read(lesson, as_version=4).cells if cell.cell_type == kind]


def minutes_of(rows: str) -> dict[str, int]:
    """Section: minutes, in the plan's order."""
    return {name: int(minutes) for name, minutes in re.findall(r"^\| (\d+\. .+?) \| (\d+) \|", rows, re.M)}


def lesson_of(number: str):
    (lesson,) = (path for path in LESSONS if path.name.startswith(number))
    return lesson


def test_every_lesson_has_its_plan():
    assert [(number, link) for number, link, _ in PLANS] == [(path.name[:2], path.name) for path in LESSONS]


@by_plan
def test_sections_are_the_notebook_s_own(number, link, rows):
    text = "\n".join(cell.source for cell in cells(lesson_of(number), "markdown"))
    headings = re.findall(r"^## (.+)$", text, re.M)
    names = list(minutes_of(rows))
    assert len(names) == len(rows.splitlines()) - 2
    assert len(names) == len(headings)
    for name, heading in zip(names, headings, strict=True):
        assert heading.startswith(name)  # a long heading may be cut


@by_plan
def test_minutes_add_up_to_the_lesson_s_time(number, link, rows):
    (said,) = re.findall(r"\*Time\*: (\d+) minutes", cells(lesson_of(number), "markdown")[1].source)
    assert sum(minutes_of(rows).values()) == int(said)
    assert min(minutes_of(rows).values()) >= 1


@by_plan
def test_exercises_named_in_a_plan_are_the_lesson_s(number, link, rows):
    own = set(re.findall(r'lab\.check\("([\d.]+)"', lesson_of(number).read_text().replace('\\"', '"')))
    (about,) = re.findall(r"^\| \d+\. Exercises \| \d+ \| (.+) \|$", rows, re.M)
    named = set(re.findall(rf"\b{int(number)}\.\d\b", about))
    assert named
    assert named <= own


def test_sessions_take_the_minutes_of_their_sections():
    assert len(SESSIONS) == 4
    plans = {number: list(minutes_of(rows).values()) for number, _, rows in PLANS}
    for sections, minutes in SESSIONS:
        parts = [part.split(": ") for part in sections.split("; ")]
        chosen = [plans[number][int(one) - 1] for number, ones in parts for one in ones.split()]
        assert sum(chosen) == int(minutes), sections


def test_links_lead_somewhere():
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", PAGE):
        path = ROOT / "notebooks" / target if target else ROOT / "notebooks" / "README.md"
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text(), re.M)
            assert anchor in {re.sub(r"[^\w -]", "", it).lower().replace(" ", "-") for it in headings}


def test_a_zip_file_without_solutions_has_all_the_rest(tmp_path):
    if not (ROOT / ".git").exists():
        pytest.skip("needs a clone")
    (command,) = re.findall(r"`(git archive .+?)`", PAGE)
    command = command.replace("course.zip", f"'{tmp_path}/course.zip'")
    subprocess.run(command, shell=True, cwd=ROOT, check=True, executable="/bin/sh")
    names = zipfile.ZipFile(tmp_path / "course.zip").namelist()
    assert {"notebooks/00_start_here.ipynb", "gaussreg_lab/__init__.py", "data/digits.npz"} <= set(names)
    assert not any("solutions/" in name for name in names)


@pytest.mark.parametrize(("number", "old", "new"), SWAPS)
def test_a_line_to_be_changed_is_there(number, old, new):
    assert any(old in cell.source for cell in cells(lesson_of(number), "code"))
    assert old != new


def swapped(source: str, number: str, root) -> str:
    for lesson, old, new in SWAPS:
        source = source.replace(old, new.replace("FOLDER", str(root))) if lesson == number else source
    return source


def test_lesson_00_runs_on_mnist(mnist_root):
    notebook = nbformat.read(lesson_of("00"), as_version=4)
    few = "; test = lab.Images(test.x[:200], test.y[:200])"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = swapped(cell.source, "00", mnist_root).replace("epochs=40", "epochs=6")
            cell.source = cell.source.replace("train_size=1500)", f"train_size=1500){few}")
    resources = {"metadata": {"path": str(ROOT / "notebooks")}}
    done = NotebookClient(notebook, timeout=300, resources=resources).execute()
    printed = "".join(output.get("text", "") for cell in done.cells for output in cell.get("outputs", []))
    assert "training: (1500, 1, 28, 28)" in printed


def test_the_sweep_of_lesson_08_runs_on_mnist(mnist_root):
    (source,) = (it.source for it in cells(lesson_of("08"), "code") if "def train_and_judge" in it.source)
    names = {}
    exec(swapped(source, "08", mnist_root).replace("epochs=10", "epochs=2"), names)
    result = names["train_and_judge"](sigma=0.25, method="noise", seed=0)
    assert 0.7 < result["clean"] < 1  # by chance it would be 0.1


def test_the_table_of_lesson_07_is_made_for_mnist(mnist_root, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "cache_folder", lambda: tmp_path)
    (block,) = re.findall(r"```python\n(.+?)```", PAGE, re.S)
    block = block.replace("FOLDER", str(mnist_root)).replace("1000", "200")
    block = block.replace("methods=few", "seeds=(0,), methods=few, progress=False")
    records = []
    exec(block, {"lab": lab, "table": records.append})
    (record,) = records
    accuracy = lab.averages(record, "accuracy")
    assert set(accuracy) == {"plain", "fresh noise", "second order", "PGM"}
    assert all(0.7 < it.mean < 1 for it in accuracy.values())
