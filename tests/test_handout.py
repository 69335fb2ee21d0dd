"""The handout: all pages from one command, sliders without a kernel, and nothing lost when a lesson fails.

The browser part needs Debian's chromium (or CHROMIUM=path); skipped where there is none.
"""

import json
import os
import re
import shutil

import nbformat
import pytest
from course import LESSONS, NOTEBOOKS, ROOT

from gaussreg_lab import handout

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]
LESSON = ROOT / "notebooks" / "00_start_here.ipynb"


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The handout with stills, but lesson 00 with its slider."""
    folder = tmp_path_factory.mktemp("handout")
    handout.main([str(folder), "--still"])
    flipped = handout.with_flipbooks(
        nbformat.read(LESSON, as_version=4), handout.PANELS[LESSON.stem], LESSON.parent
    )
    (folder / "00_start_here.html").write_text(handout.as_page(flipped, LESSON.parent))
    return folder


def test_every_notebook_has_a_page_and_the_index_leads_to_it(pages):
    wanted = {path.relative_to(ROOT / "notebooks").with_suffix(".html").as_posix() for path in NOTEBOOKS}
    assert {it.relative_to(pages).as_posix() for it in pages.rglob("*")} == {
        *wanted,
        "index.html",
        "solutions",
    }
    assert set(re.findall(r'href="(.+?)"', (pages / "index.html").read_text())) == wanted


def test_the_first_slider_is_small_and_true(pages):
    text = (pages / "00_start_here.html").read_text()
    (book,) = re.findall(r'<figure class="panel flipbook">.*?</figure>', text, re.S)
    assert len(book) < 400_000
    frames = json.loads(re.search(r'<script type="application/json">(.*?)</script>', book)[1])
    assert [frame["position"] for frame in frames] == [f"{it / 20:.2f}" for it in range(21)]
    assert len({frame["picture"] for frame in frames}) == 21
    for frame in frames:
        assert frame["sentence"].startswith(f"Noise sigma {frame['position']} on a 0.")
    stored = next(
        output.data["text/plain"]
        for cell in nbformat.read(LESSON, as_version=4).cells
        for output in cell.get("outputs", [])
        if handout._is_panel(output)
    )
    assert stored.split(" (")[0] in text  # the book opens where the panel stood


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_the_table_names_panels_and_controls_of_the_lesson(path):
    notebook = nbformat.read(path, as_version=4)
    panels = handout.PANELS[path.stem]
    for name, control in panels.items():
        assert f"    {control}=lab." in notebook.cells[handout._cell_of(notebook, name)].source
    shown = sum(handout._is_panel(output) for cell in notebook.cells for output in cell.get("outputs", []))
    assert shown == len(panels)  # every panel of the course


def test_a_failed_lesson_leaves_its_old_page_and_is_named(tmp_path, capsys):
    course, folder = tmp_path / "course", tmp_path / "out"
    course.mkdir()
    shutil.copy(ROOT / "notebooks" / "solutions" / "00_start_here.ipynb", course / "00_good.ipynb")
    (course / "01_bad.ipynb").write_text(
        (course / "00_good.ipynb").read_text().replace("# Solutions", "# $\\\\nonsense$ Solutions", 1)
    )
    (course / "02_worse.ipynb").write_text("{")
    folder.mkdir()
    (folder / "01_bad.html").write_text("the page before")
    before = {path: path.read_bytes() for path in course.iterdir()}
    with pytest.raises(RuntimeError, match=r"(?s)01_bad\.ipynb: ValueError.*02_worse\.ipynb"):
        handout.write_handout(folder, course, still=True)
    assert (folder / "01_bad.html").read_text() == "the page before"
    assert (folder / "00_good.html").read_text().startswith("<!DOCTYPE html>")
    assert {path: path.read_bytes() for path in course.iterdir()} == before
    assert not list(folder.glob(".*"))


def test_a_page_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    page = tmp_path / "page.html"
    page.write_text("before")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("no space")))
    with pytest.raises(OSError, match="no space"):
        handout._replace(page, "after")
    assert [it.name for it in tmp_path.iterdir()] == ["page.html"]
    assert page.read_text() == "before"


def test_no_notebooks_no_handout(tmp_path):
    with pytest.raises(FileNotFoundError, match="Expected the course's notebooks in"):
        handout.write_handout(tmp_path / "out", tmp_path)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium, or set CHROMIUM")
def test_all_pages_work_in_a_browser_without_kernel_or_network(pages):
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright drives the browser")
    complaints, strangers = [], []
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page()
        page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda r: None if re.match("file:|data:", r.url) else strangers.append(r.url))
        for path in sorted(pages.rglob("*.html")):
            page.goto(path.as_uri())
            images = page.evaluate("[...document.images].map(i => [i.naturalWidth, i.alt])")
            assert all(width > 0 and alt for width, alt in images), path
            assert page.evaluate("document.querySelectorAll('mjx-container').length") == 0
        page.goto((pages / "00_start_here.html").as_uri())
        _turn_a_page(page)
        browser.close()
    assert complaints == []
    assert strangers == []


def _turn_a_page(page) -> None:
    book = page.locator("figure.flipbook")
    seen = [book.locator("img").get_attribute("src"), book.locator("[role=status]").inner_text()]
    book.locator("input[type=range]").focus()
    page.keyboard.press("ArrowRight")
    after = [book.locator("img").get_attribute("src"), book.locator("[role=status]").inner_text()]
    assert after[0] != seen[0]
    assert "Noise sigma 0.50" in seen[1]
    assert "Noise sigma 0.55" in after[1]
    assert book.locator("img").get_attribute("alt") == after[1]
    assert book.locator("output").inner_text() == "0.55"
