"""The whole course as HTML pages to hand out: they work offline, without Python, with sliders.

    python -m gaussreg_lab.handout [FOLDER] [--still]

Every lesson and solution becomes a page in FOLDER ("handout", where nothing else is said), with an
index. The pages show the outputs that the notebooks hold. Where a panel stands in PANELS, its lesson
is run up to there, in memory, and the panel becomes a flipbook: a slider over pictures drawn
beforehand. `--still` runs nothing and leaves all panels as they were last seen.

No notebook is written to. Each page replaces its predecessor in one step, and only when it is whole.

Lesson: none of its own; all of them.
"""

import argparse
import copy
import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat

from gaussreg_lab.controls import WIDGET
from gaussreg_lab.pages import as_page, title_of
from gaussreg_lab.places import lessons_folder

COURSE = lessons_folder()
# which control of which panel is worth a flipbook, by lesson and the panel's name in it
PANELS = {
    "00_start_here": {"panel": "sigma"},
    "01_gaussian": {"panel": "std", "panel_of_two": "correlation"},
    "02_propagation": {"panel": "sigma"},
    "03_losses": {"panel": "sigma"},
    "04_gradients": {"panel": "length", "bridge_panel": "sigma", "weight_panel": "step"},
    "05_spectral": {"panel": "steps", "cap_panel": "step", "attack_panel": "radius"},
    "06_perturbation": {"panel": "step", "fill_panel": "epsilon", "slice_panel": "distance"},
    "07_robustness": {"panel": "sigma"},
    "08_explore": {"model_panel": "sigma", "record_panel": "start"},
}
FLIP = """
from IPython.display import HTML as _HTML, display as _display
from gaussreg_lab.flipbook import flipbook as _flipbook
_display(_HTML(_flipbook({panel}, {control!r})))
"""
SECONDS_FOR_A_CELL = 600


def write_handout(folder: Path, course: Path = COURSE, still: bool = False) -> list[Path]:
    """Write the pages of all notebooks of the course, and an index; returns their paths.

    Raises RuntimeError, when all others are written, that names the notebooks without a new page.
    """
    notebooks = sorted(it for it in course.rglob("[0-9]*.ipynb") if ".ipynb_checkpoints" not in it.parts)
    if not notebooks:
        raise FileNotFoundError(f"Expected the course's notebooks in {course}, found none there")
    repository = _repository(notebooks[0])
    written, titles, failed = [], {}, []
    for path in notebooks:
        page = folder / path.relative_to(course).with_suffix(".html")
        try:
            notebook = nbformat.read(path, as_version=4)
            if not still and path.parent == course:
                notebook = with_flipbooks(notebook, PANELS.get(path.stem, {}), path.parent)
            _replace(page, as_page(notebook, path.parent, repository))
        except Exception as error:  # whatever it is, the other lessons go on
            failed.append(f"{path.relative_to(course)}: {type(error).__name__}: {error}")
            if page.exists():
                titles[path] = path.stem  # the page before still stands
            continue
        titles[path] = title_of(notebook)
        written.append(page)
        print(f"{page}  {page.stat().st_size / 1000:.0f} kB", flush=True)
    index = folder / "index.html"
    _replace(index, as_page(_index(course, titles), course))
    if failed:
        raise RuntimeError("No new page for these, all others are written:\n" + "\n".join(failed))
    return [*written, index]


def with_flipbooks(
    notebook: nbformat.NotebookNode, panels: dict[str, str], folder: Path
) -> nbformat.NotebookNode:
    """A copy of the notebook whose panels are flipbooks; all other outputs stay as they are.

    panels: which control of which panel, by the panel's name, the last line of its cell. folder: where
    the lesson runs. Raises ValueError for a panel that the notebook does not show.
    """
    from nbclient import NotebookClient

    shown = copy.deepcopy(notebook)
    cells = {name: _cell_of(shown, name) for name in panels}
    if not cells:
        return shown
    # the lesson as far as its last panel, and after each panel a cell that leafs through it
    running = nbformat.v4.new_notebook(metadata=copy.deepcopy(notebook.metadata))
    flips = {}
    for number, cell in enumerate(shown.cells[: max(cells.values()) + 1]):
        if cell.cell_type == "code":
            running.cells.append(copy.deepcopy(cell))
        for name in (name for name, at in cells.items() if at == number):
            flips[name] = nbformat.v4.new_code_cell(FLIP.format(panel=name, control=panels[name]))
            running.cells.append(flips[name])
    NotebookClient(
        running,
        timeout=SECONDS_FOR_A_CELL,
        store_widget_state=False,
        resources={"metadata": {"path": str(folder)}},
    ).execute()
    for name, number in cells.items():
        (panel,) = (output for output in shown.cells[number].outputs if _is_panel(output))
        (flip,) = (output for output in flips[name].outputs if "text/html" in output.get("data", {}))
        panel.data = {"text/html": flip.data["text/html"]}
    return shown


def _cell_of(notebook: nbformat.NotebookNode, name: str) -> int:
    for number, cell in enumerate(notebook.cells):
        shows = cell.cell_type == "code" and any(_is_panel(output) for output in cell.outputs)
        if shows and cell.source.rstrip().splitlines()[-1] == name:
            return number
    raise ValueError(f"Expected a cell that shows the panel {name!r}, found none")


def _is_panel(output: nbformat.NotebookNode) -> bool:
    data = output.get("data", {})
    return WIDGET in data and "image/png" in data


def _repository(notebook: Path) -> str:
    """The address that every lesson's first cell clones from."""
    return re.search(r'REPOSITORY = \\?"(.*?)\\?"', notebook.read_text(encoding="utf-8"))[1]


def _index(course: Path, titles: dict[Path, str]) -> nbformat.NotebookNode:
    lines = ["# How far does a network's output move when its input, or its weights, are jolted?", ""]
    lines += ["The lessons of the course, each on a page of its own, with its outputs.", ""]
    for path in (it for it in titles if it.parent == course):
        solved = course / "solutions" / path.name in titles
        answers = f" ([solutions](solutions/{path.name}))" if solved else ""
        lines.append(f"* {path.stem[:2]} [{titles[path]}]({path.name}){answers}")
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("\n".join(lines))])


def _replace(page: Path, text: str) -> None:
    page.parent.mkdir(parents=True, exist_ok=True)
    handle, unfinished = tempfile.mkstemp(dir=page.parent, prefix=".", suffix=".unfinished")
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(unfinished, 0o644)  # to be read by a web server, unlike a temporary file
        os.replace(unfinished, page)
    except BaseException:
        Path(unfinished).unlink(missing_ok=True)
        raise


def main(arguments: list[str] | None = None) -> None:
    """The command; ends with status 1 and the names where a page could not be made."""
    parser = argparse.ArgumentParser(
        prog="python -m gaussreg_lab.handout", description="Write the course as HTML pages that work offline."
    )
    parser.add_argument("folder", nargs="?", type=Path, default=Path("handout"), help="default: handout")
    parser.add_argument("--still", action="store_true", help="run no lesson: pictures instead of sliders")
    options = parser.parse_args(arguments)
    try:
        pages = write_handout(options.folder, still=options.still)
    except (RuntimeError, FileNotFoundError) as error:
        sys.exit(str(error))
    print(f"{len(pages)} pages; open {pages[-1]}")


if __name__ == "__main__":
    main()
