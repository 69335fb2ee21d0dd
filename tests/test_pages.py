"""Every notebook becomes a page that stands alone: pictures, sentences, formulas, headings, links."""

import re
from functools import cache
from html import escape
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from course import NOTEBOOKS, ROOT, WIDGET

from gaussreg_lab.pages import as_page, title_of

REPOSITORY = "https://github.com/someone/course"
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: f"{p.parent.name}-{p.stem}")


@cache
def page(path: Path) -> tuple[str, BeautifulSoup]:
    text = as_page(nbformat.read(path, as_version=4), path.parent, REPOSITORY)
    return text, BeautifulSoup(text, "html.parser")


def outputs(path: Path) -> list:
    cells = nbformat.read(path, as_version=4).cells
    return [output for cell in cells for output in cell.get("outputs", [])]


@every_notebook
def test_every_picture_has_its_sentence_and_every_panel_shows_it(path):
    _text, soup = page(path)
    pictures = [it.data for it in outputs(path) if "image/png" in it.get("data", {})]
    shown = soup.select("figure.panel")
    assert [it.img["alt"] for it in shown] == [data["text/plain"] for data in pictures]
    assert len(soup.select("img")) == len(shown)
    for figure, data in zip(shown, pictures, strict=True):
        assert figure.img["src"].startswith("data:image/")
        if WIDGET in data:
            assert figure.figcaption.get_text() == data["text/plain"]
        else:
            assert figure.figcaption is None  # printed below it, once


@every_notebook
def test_nothing_is_asked_of_another_machine(path):
    text, soup = page(path)
    for part in soup.select("script, link, img, iframe, source, object, embed"):
        assert not re.match(r"(https?:)?//", part.get("src", "") + part.get("href", ""))
    assert "@import" not in text
    assert "url(" not in soup.style.get_text()
    assert "No description" not in text
    assert "widget-view" not in text


@every_notebook
def test_no_formula_is_left_as_tex(path):
    _text, soup = page(path)
    source = "\n".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown")
    formulas = re.findall(r"\$\$.+?\$\$|\$[^$]+?\$", source, re.S)
    assert len(soup.select("math")) == len(formulas)
    for part in soup.select("pre, code, script, style"):
        part.extract()
    prose = soup.get_text()
    page.cache_clear()  # the cached page has lost its code
    assert not re.search(r"\$|\\[a-zA-Z]+", prose)


@every_notebook
def test_headings_title_and_language(path):
    _text, soup = page(path)
    levels = [int(it.name[1]) for it in soup.select("h1, h2, h3, h4, h5, h6")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert soup.html["lang"] == "en"
    assert soup.title.get_text() == soup.h1.get_text() == title_of(nbformat.read(path, as_version=4))


@every_notebook
def test_links_lead_to_pages_or_into_the_repository(path):
    _text, soup = page(path)
    for link in soup.select("a[href]"):
        target = link["href"]
        if target.startswith(f"{REPOSITORY}/blob/main/"):
            assert (ROOT / target.removeprefix(f"{REPOSITORY}/blob/main/")).exists()
        elif not re.match("https?:", target):
            assert target.endswith(".html")
            assert (path.parent / target).with_suffix(".ipynb").exists()


@every_notebook
def test_questions_printed_lines_and_code_are_all_there(path):
    text, soup = page(path)
    assert len(soup.select(".output")) == sum(
        not (WIDGET in it.get("data", {}) and not {"text/html", "image/png"} & set(it.data))
        for it in outputs(path)  # but for progress bars
    )
    for output in outputs(path):
        if output.output_type == "stream" and "\x1b" not in output.text:
            assert escape(output.text, quote=False).splitlines()[0] in text.replace("&#39;", "'").replace(
                "&#34;", '"'
            )
        elif "text/html" in output.get("data", {}):
            assert output.data["text/html"] in text


def test_without_a_repository_links_to_its_files_become_text():
    cells = [nbformat.v4.new_markdown_cell("# Title\n\n[words](../data/README.md), [next](01_a.ipynb#end)")]
    text = as_page(nbformat.v4.new_notebook(cells=cells), ROOT / "notebooks")
    assert "words, " in text
    assert 'href="01_a.html#end"' in text
    assert "README" not in text


def test_a_local_picture_is_written_into_the_page():
    cells = [nbformat.v4.new_markdown_cell("# Title\n\n![The lab in a browser](images/lab.png)")]
    text = as_page(nbformat.v4.new_notebook(cells=cells), ROOT / "notebooks")
    assert 'alt="The lab in a browser"' in text
    assert 'src="data:image/png;base64,' in text


def test_a_notebook_without_a_title_is_refused():
    with pytest.raises(ValueError, match="heading of the first level"):
        as_page(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("words")]), ROOT)
