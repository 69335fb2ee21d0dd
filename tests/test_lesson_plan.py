"""The lecturer's plan: its sections are the notebooks' own, and its minutes add up to the lessons' times."""

import re

import nbformat
import pytest
from course import LESSONS, ROOT

TEXT = (ROOT / "notebooks" / "README.md").read_text()
PLANS = dict(re.findall(r"^### (\d\d) .*?\n(.*?)(?=^##)", TEXT, re.M | re.S))


def prose(lesson) -> str:
    cells = nbformat.read(lesson, as_version=4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def test_every_lesson_has_its_plan():
    assert list(PLANS) == [lesson.stem[:2] for lesson in LESSONS]


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_sections_and_minutes_are_the_lesson_s(lesson):
    rows = re.findall(r"^\| (\d+\. .*?) \| (\d+) \|", PLANS[lesson.stem[:2]], re.M)
    text = re.sub(r"```.*?```", "", prose(lesson), flags=re.S)
    assert [name for name, _ in rows] == re.findall(r"^## (.*)$", text, re.M)
    assert sum(int(minutes) for _, minutes in rows) == int(re.search(r"\*Time\*: (\d+) minutes", text)[1])
    exercises = next(int(minutes) for name, minutes in rows if "Exercises" in name)
    assert exercises == sum(map(int, re.findall(r"importance [●○]+, (\d+) minutes", text)))


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(((?!https?:)[^)#]+)", TEXT):
        assert (ROOT / "notebooks" / target).exists(), target


def test_another_data_set_and_width_work_as_told(shared_data):
    if not (shared_data / "MNIST").is_dir():
        pytest.skip(f"needs MNIST in {shared_data}; set GAUSSREG_DATA to where it is")
    import gaussreg_lab as lab

    program = re.search(r"```python\n(.*?)```", TEXT, re.S)[1].replace("FOLDER", str(shared_data))
    names = {"lab": lab}
    exec(program, names)
    assert names["network"](names["train"].x[:3]).shape == (3, 10)
    assert len(names["train"].y) == 5000
