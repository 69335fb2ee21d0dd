"""Where the parts of the course lie, for the tests and for refresh_notebooks.py."""

from pathlib import Path

WIDGET = "application/vnd.jupyter.widget-view+json"  # the kind of output that is live
ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted(
    path for path in (ROOT / "notebooks").rglob("[0-9]*.ipynb") if ".ipynb_checkpoints" not in path.parts
)
LESSONS = [path for path in NOTEBOOKS if path.parent.name != "solutions"]


def name_of(path: Path) -> str:
    """01_gaussian, or solutions/01_gaussian."""
    return str(path.relative_to(ROOT / "notebooks").with_suffix(""))
