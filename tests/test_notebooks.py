"""The notebooks as committed: readable unrun, checked for real, the same everywhere, with solutions."""

import ast
import hashlib
import os
import re
import subprocess
import sys
import textwrap
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
from course import LESSONS, NOTEBOOKS, ROOT, WIDGET, name_of

from gaussreg_lab.figures import LINE

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
every_lesson = pytest.mark.parametrize("path", LESSONS, ids=name_of)


def cells(path: Path, kind: str) -> list[nbformat.NotebookNode]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def prose(path: Path) -> str:
    return "\n".join(cell.source for cell in cells(path, "markdown"))


def code(path: Path) -> str:
    return "\n".join(cell.source for cell in cells(path, "code"))


def test_there_are_notebooks():
    assert len(LESSONS) >= 2


@every_notebook
def test_outputs_are_stored_and_free_of_what_varies(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert "widgets" not in notebook.metadata  # "invalid notebook" on GitHub
    for cell in cells(path, "code"):
        assert cell.execution_count is not None, f"never run: {cell.source[:60]}"
        assert set(cell.metadata) <= {"tags"}
        assert not any(output.output_type == "error" for output in cell.outputs)
        assert not any(output.get("name") == "stderr" for output in cell.outputs)
        assert " at 0x" not in str(cell.outputs)  # an address in memory, another one at each run
    assert any(cell.outputs for cell in cells(path, "code"))


@every_notebook
def test_the_first_code_cell_is_the_same_everywhere(path):
    first = {hashlib.sha256(cells(other, "code")[0].source.encode()).hexdigest() for other in NOTEBOOKS}
    assert len(first) == 1
    assert not cells(path, "code")[0].outputs  # silent


@every_notebook
def test_headings_are_in_order(path):
    text = re.sub(r"```.*?```", "", prose(path), flags=re.S)
    levels = [len(marks) for marks in re.findall(r"^(#+) ", text, re.M)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


@every_notebook
def test_markdown_pictures_have_a_description(path):
    assert all(len(words) > 10 for words in re.findall(r"!\[(.*?)\]", prose(path)))


@every_notebook
def test_links_between_notebooks_lead_somewhere(path):
    for target in re.findall(r"\]\(((?!https?:)[^)#]+)\)", prose(path)):
        assert (path.parent / target).exists(), target


@every_notebook
def test_nothing_is_used_that_breaks_a_checked_notebook(path):
    forbidden = (
        r"\binteract\(|\bOutput\(|clear_output|interactive_output|;\s*$|pip install|%matplotlib|NBVAL_"
    )
    assert not re.search(forbidden, code(path), re.M)


@every_notebook
def test_every_figure_comes_with_a_sentence(path):
    for cell in cells(path, "code"):
        pictures = [output for output in cell.outputs if "image/png" in output.get("data", {})]
        printed = "".join(output.text for output in cell.outputs if output.output_type == "stream")
        for output in pictures:
            sentence = output.data["text/plain"]
            assert sentence.endswith(".")
            assert WIDGET in output.data or textwrap.fill(sentence, LINE) in printed


@every_lesson
def test_every_panel_is_also_driven_by_a_cell(path):
    code_cells = cells(path, "code")
    for number, cell in enumerate(code_cells):
        if any("image/png" in output.get("data", {}) and WIDGET in output.data for output in cell.outputs):
            following = "\n".join(after.source for after in code_cells[number + 1 : number + 3])
            assert re.search(r"\.set\(", following)
            assert "assert" in following


@every_lesson
def test_a_lesson_tells_what_why_and_how_long(path):
    text = prose(path)
    for expected in (
        "After this lesson you can",
        "*Time*",
        "*Prerequisites*",
        "What can go wrong",
        "Summary",
    ):
        assert expected in text
    for expected in ("Test yourself", "References", "Exercises", "Next"):
        assert expected in text
    assert "lab.predict(" in code(path)


@every_lesson
def test_exercises_have_difficulty_time_hints_stub_and_solution(path):
    solution = path.parent / "solutions" / path.name
    numbers = re.findall(r'lab\.check\("([\d.]+)"', code(path))
    assert numbers
    assert sorted(numbers) == sorted(re.findall(r'lab\.check\("([\d.]+)"', code(solution)))
    assert prose(path).count("difficulty") == prose(path).count("importance") == len(numbers)
    assert prose(path).count("<summary>Hint 1") == len(numbers)
    for number in numbers:
        untouched = f"Exercise {number}: not attempted yet." in printed(path, number)
        assert untouched, f"{path.name} has been worked in: git stash, or test a fresh clone"
        assert f"Exercise {number}: right." in printed(solution, number)
    # a function to be written has the same name and arguments in both
    stubs = re.findall(r"^def .*\n(?:    #.*\n)*    raise NotImplementedError", code(path), re.M)
    assert all(stub.splitlines()[0] in code(solution) for stub in stubs)
    for stub in stubs:
        assert all(line in code(solution) for line in stub.splitlines()[1:-1])  # each comment has its line


def printed(path: Path, number: str) -> str:
    (cell,) = (cell for cell in cells(path, "code") if f'lab.check("{number}"' in cell.source)
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def nbval(notebook: Path) -> subprocess.CompletedProcess:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--nbval",
        "--nbval-current-env",
        "-q",
        "-p",
        "no:cacheprovider",
    ]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    options = ["-c", os.devnull, f"--rootdir={notebook.parent}"]
    return subprocess.run(
        [*command, *options, str(notebook)], capture_output=True, text=True, env=environment
    )


def test_a_changed_output_is_noticed(tmp_path):
    """The negative control: the check of the notebooks can fail."""
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell("print(1 + 1)", execution_count=1)]
    notebook.cells[0].outputs = [nbformat.v4.new_output("stream", name="stdout", text="2\n")]
    nbformat.write(notebook, tmp_path / "true.ipynb")
    assert nbval(tmp_path / "true.ipynb").returncode == 0
    notebook.cells[0].outputs[0].text = "3\n"
    nbformat.write(notebook, tmp_path / "false.ipynb")
    failed = nbval(tmp_path / "false.ipynb")
    assert failed.returncode == 1, failed.stdout + failed.stderr
    assert "1 failed" in failed.stdout


def test_a_changed_number_in_a_lesson_is_noticed(tmp_path):
    text = (ROOT / "notebooks" / "solutions" / "01_gaussian.ipynb").read_text()
    assert text.count('"-0.4929\\n"') == 1
    mutated = tmp_path / "mutated.ipynb"
    mutated.write_text(text.replace('"-0.4929\\n"', '"-0.4928\\n"'))
    os.symlink(ROOT / "gaussreg_lab", tmp_path / "gaussreg_lab")
    failed = nbval(mutated)
    assert failed.returncode == 1, failed.stdout + failed.stderr
    assert "1 failed" in failed.stdout


@pytest.fixture
def lone_notebook(tmp_path):
    """Runs the first code cell where no course is to be found, with a git that does as it is told."""

    def run(git_does: str) -> subprocess.CompletedProcess:
        git = tmp_path / "git"
        git.write_text(f"#!/bin/sh\n{git_does}\n")
        git.chmod(0o755)
        nothing_installed = "import importlib.util\nimportlib.util.find_spec = lambda name: None\n"
        program = nothing_installed + cells(NOTEBOOKS[0], "code")[0].source + "\nprint(lab.__file__)"
        environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        command = [sys.executable, "-c", program]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)

    return run


def test_a_lone_notebook_without_a_network_is_told_what_to_do(lone_notebook):
    ran = lone_notebook("exit 128")
    assert ran.returncode == 1
    assert "without a network, unpack a copy of it in" in ran.stderr


def test_a_lone_notebook_clones_the_course_beside_it_once(lone_notebook, tmp_path):
    copy = f'for last; do :; done; mkdir "$last" && cp -r "{ROOT}/gaussreg_lab" "{ROOT}/data" "$last"'
    for git_does in (copy, "exit 128"):  # the second time there is nothing left to clone
        ran = lone_notebook(git_does)
        assert ran.stdout.strip() == str(tmp_path / "gaussreg_lab_course" / "gaussreg_lab" / "__init__.py"), (
            ran.stderr
        )


@every_notebook
def test_no_name_means_two_things(path):
    """Cells can be run again in any order: none takes a name that another has given, but for figures."""
    passing = {"figure", "axes", "ax", "look", "name", "title", "style", "lab", "here", "root", "clone", "_"}
    given = dict.fromkeys(names_imported(code(path)) - passing, "by an import")
    for number, cell in enumerate(cells(path, "code")):
        for name in names_given(cell.source) - passing:
            assert given.setdefault(name, number) == number, f"{name} is given again: {cell.source[:80]}"


def names_imported(source: str) -> set[str]:
    aliases = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.alias))
    return {(alias.asname or alias.name).split(".")[0] for alias in aliases}


def names_given(source: str) -> set[str]:
    found, todo = set(), list(ast.parse(source).body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)  # what happens inside stays inside
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif not isinstance(node, ast.Lambda | ast.ListComp | ast.GeneratorExp | ast.DictComp | ast.SetComp):
            todo.extend(ast.iter_child_nodes(node))
    return found


@every_notebook
def test_no_cell_is_longer_than_a_screen(path):
    assert max(len(cell.source.splitlines()) for cell in cells(path, "code")) <= 36
