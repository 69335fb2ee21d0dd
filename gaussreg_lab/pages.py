"""One notebook as one HTML page that asks nothing of any other machine.

    page = as_page(nbformat.read("notebooks/01_gaussian.ipynb", 4), Path("notebooks"))

nbconvert does the work, with a template and a style of our own (`page_templates/handout`): its own
pages load scripts for formulas and widgets from the network. Formulas become MathML. A picture shows
its sentence as its alternative text, a panel also below it. Links between notebooks lead to their
pages.

Lesson: none of its own; all of them go through it.
"""

import base64
import copy
import io
import re
from pathlib import Path, PurePosixPath
from posixpath import normpath

import nbformat
from nbconvert.exporters import TemplateExporter
from nbconvert.filters import Highlight2HTML
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from PIL import Image
from pygments.formatters import HtmlFormatter

from gaussreg_lab.controls import WIDGET
from gaussreg_lab.figures import SCREEN_DPI, STYLE
from gaussreg_lab.flipbook import data_uri, still
from gaussreg_lab.formulas import mathml

TEMPLATES = Path(__file__).parent / "page_templates"
START = "00_start_here.ipynb"  # in the folder of the lessons, wherever that is


def as_page(notebook: nbformat.NotebookNode, folder: Path, repository: str = "") -> str:
    """The notebook as HTML, with the outputs it holds.

    folder: where the notebook lies, for its local images, which are written into the page.
    repository: the address that links to other files than notebooks get; without it they become text.
    Raises ValueError for a formula that cannot be written as MathML.
    """
    shown = copy.deepcopy(notebook)
    for cell in shown.cells:
        if cell.cell_type == "code":
            cell.outputs = [_without_widget(it) for it in cell.outputs if not _is_bar(it)]
    exporter = _Exporter(template_name="handout", extra_template_basedirs=[str(TEMPLATES)])
    exporter.register_filter("markdown2html", lambda text: _as_html(text, folder, repository))
    exporter.register_filter("highlight_code", Highlight2HTML(pygments_lexer="ipython3"))
    resources = {
        "title": title_of(notebook),
        "style": _style(),
        "has_navigation": not shown.cells[0].source.lstrip().startswith("#"),
        "bootstrap": next((it for it, cell in enumerate(shown.cells) if cell.cell_type == "code"), -1),
    }
    page, _resources = exporter.from_notebook_node(shown, resources=resources)
    return page


def title_of(notebook: nbformat.NotebookNode) -> str:
    """The notebook's heading of the first level. Raises ValueError where there is none."""
    for cell in notebook.cells:
        found = re.search(r"^# (.+)", cell.source, re.M) if cell.cell_type == "markdown" else None
        if found:
            return found[1].strip()
    raise ValueError("Expected a notebook with a heading of the first level, got none")


class _Exporter(TemplateExporter):
    """nbconvert's exporter by template; its HTMLExporter would read every page again, to mend pictures."""

    file_extension, output_mimetype = ".html", "text/html"


class _Renderer(IPythonRenderer):
    """Markdown as nbconvert reads it, with formulas and links for a page that stands alone."""

    def __init__(self, folder: Path, repository: str) -> None:
        super().__init__(escape=False, embed_images=True, exclude_anchor_links=True, path=str(folder))
        self.folder, self.repository = folder, repository

    def inline_math(self, body: str) -> str:
        return mathml(body)

    def block_math(self, body: str) -> str:
        return mathml(body, block=True)

    def link(self, text: str, url: str, title: str | None = None) -> str:
        address = _address(url, self.folder, self.repository)
        return super().link(text, address, title) if address else text


def _address(url: str, folder: Path, repository: str) -> str:
    """Where a link of a notebook in folder leads from its page; "" for nowhere."""
    if re.match(r"[a-z]+:|#", url):
        return url
    path, _hash, anchor = url.partition("#")
    if path.endswith(".ipynb"):
        return f"{path.removesuffix('.ipynb')}.html" + (f"#{anchor}" if anchor else "")
    if not repository:
        return ""
    # the outermost: the solutions have a first lesson too
    course = [folder, *(it for it in (folder, *folder.parents) if (it / START).exists())][-1]
    inside = normpath(PurePosixPath("notebooks", folder.relative_to(course), path))
    return f"{repository}/blob/main/{inside}"


def _as_html(text: str, folder: Path, repository: str) -> str:
    return MarkdownWithMath(renderer=_Renderer(folder, repository)).render(text)


def _is_bar(output: nbformat.NotebookNode) -> bool:
    """A progress bar: a widget that leaves neither a picture nor words for a reader without kernel."""
    data = output.get("data", {})
    return WIDGET in data and not {"image/png", "text/html"} & set(data)


def _without_widget(output: nbformat.NotebookNode) -> nbformat.NotebookNode:
    data = output.get("data", {})
    if "image/png" in data and "text/html" not in data:
        sentence, (uri, size) = data["text/plain"], _picture(data["image/png"])
        picture = still(uri, sentence, size)
        if WIDGET not in data:  # a figure's sentence is printed below it already
            picture = re.sub("<figcaption.*</figcaption>", "", picture)
        data["text/html"] = picture
    return output


def _picture(encoded: str) -> tuple[str, tuple[int, int]]:
    png = base64.b64decode(encoded)
    with Image.open(io.BytesIO(png)) as image:
        size = tuple(round(it * SCREEN_DPI / STYLE["figure.dpi"]) for it in image.size)
    return data_uri(png, size), size


def _style() -> str:
    def colours(style: str) -> str:
        return HtmlFormatter(style=style).get_style_defs(".highlight")

    css = (TEMPLATES / "handout" / "page.css").read_text()
    by_day, by_night = colours("xcode"), colours("github-dark")
    return f"{by_day}\n@media (prefers-color-scheme: dark) {{\n{by_night}\n}}\n{css}"
