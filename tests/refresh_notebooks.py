"""Run notebooks and store them the way they are committed: outputs in, everything that varies out.

    python tests/refresh_notebooks.py                          # all of them
    python tests/refresh_notebooks.py notebooks/01_gaussian.ipynb

Look at every picture afterwards, then commit.
"""

import base64
import io
import sys
from pathlib import Path

import nbformat
from course import NOTEBOOKS, WIDGET
from nbclient import NotebookClient
from PIL import Image

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def refresh(path: Path) -> None:
    """Run the notebook in a fresh kernel in its own folder and write it back, or raise."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=600,
        store_widget_state=False,
        coalesce_streams=True,  # how many pieces a print arrives in varies
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute()
    nbformat.write(canonical(notebook), path)


def canonical(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Only what a reader needs: no timings, no widget state, no ids or versions that change by run."""
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat_minor = 5
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
        cell.metadata = nbformat.from_dict(
            {"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {}
        )
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                data["image/png"] = with_palette(data["image/png"])
            view = data.get(WIDGET)
            if view:
                view["model_id"] = f"cell-{number:02d}"  # a new one is made at each run
    return notebook


def with_palette(png: str) -> str:
    """The same picture with 256 colours: a third of the size, and no eye sees it in a diagram."""
    pixels = Image.open(io.BytesIO(base64.b64decode(png)))
    if pixels.mode == "P":
        return png
    smaller = io.BytesIO()
    few = pixels.convert("RGB").quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    few.save(smaller, "PNG", optimize=True)
    return base64.b64encode(smaller.getvalue()).decode()


if __name__ == "__main__":
    for notebook_path in map(Path, sys.argv[1:] or NOTEBOOKS):
        print(notebook_path)
        refresh(notebook_path.resolve())
