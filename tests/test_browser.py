"""The course in a real JupyterLab in a real browser: opened, run, moved by keyboard alone.

Skipped where there is no Chromium. How fast it is stands in benchmarks/latency.json; here it only has to be
right, also on a machine that is busy with something else.
"""

import re
from pathlib import Path

import pytest
from course import LESSONS, NOTEBOOKS, ROOT, WIDGET
from lab_in_browser import (
    CHROMIUM,
    PATIENCE,
    START,
    LabPage,
    LivePanel,
    chromium,
    inwards,
    name_heard,
    position,
    served_lab,
)

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium here: apt-get install chromium, or set CHROMIUM"
)

# Neither is ours, nor does harm: the widget manager may ask for a widget that the kernel has just closed; and
# jupyter_server, asked for its kernels while one of them is starting, has no last_activity for it yet.
HARMLESS = r"No such comm|status of 500 .*/api/kernels\?"
SOLUTIONS = [path for path in NOTEBOOKS if path not in LESSONS]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT / "notebooks"))


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """An address and a browser, for all notebooks one after the other."""
    pytest.importorskip("playwright.sync_api", reason="pip install playwright drives the browser")
    home = tmp_path_factory.mktemp("lab")
    with served_lab(home) as address, chromium(home) as browser:
        yield address, browser


@pytest.fixture(scope="module", params=LESSONS, ids=name_of)
def lesson(lab, request):
    """A lesson, opened and run from top to bottom; the tests of one lesson share the page."""
    address, browser = lab
    page = LabPage(browser, address, name_of(request.param))
    page.run_all()
    yield page
    page.close()


def expect_quiet(page: LabPage) -> None:
    assert page.strangers == []
    assert [words for words in page.complaints if not re.search(HARMLESS, words)] == []


def expect_run(page: LabPage) -> None:
    assert [cell["errors"] for cell in page.cells() if cell["errors"]] == []
    assert [cell["source"] for cell in page.cells() if cell["count"] is None] == []


def test_the_command_opens_the_first_lesson_quietly(lab):
    address, browser = lab
    assert START in address
    page = LabPage(browser, address, START)
    page.page.wait_for_timeout(3000)  # time enough for a question about news to pop up
    assert page.page.locator(".Toastify__toast, .jp-Dialog").count() == 0
    expect_quiet(page)
    page.close()


def test_every_cell_of_a_lesson_runs(lesson):
    expect_run(lesson)
    assert any({WIDGET, "image/png"} <= set(cell["kinds"]) for cell in lesson.cells())


def test_every_control_and_picture_has_words(lesson):
    for panel in lesson.panels():
        for control in (*panel.boxes, *panel.choices, *panel.presets, panel.reset):
            assert re.search("[a-z]{2}", name_heard(control)), control.evaluate("it => it.outerHTML")
        for handle in panel.sliders:  # ipywidgets gives a handle no name: it has the words before it
            label = handle.locator("xpath=ancestor::div[contains(@class, 'widget-slider')]/label")
            assert label.is_visible()
            assert re.search("[a-z]{2}", label.inner_text())
            assert label.get_attribute("title") == label.inner_text()  # in full, where the page cuts it off
        # nor has its Image an alternative text: instead the sentence below is read out when it changes
        assert panel.sentence.get_attribute("aria-live") == "polite"
        assert panel.sentence.inner_text().endswith(".")
        assert panel.image.bounding_box()["y"] < panel.sentence.bounding_box()["y"]


def test_tab_leads_through_all_controls_in_order(lesson):
    for panel in lesson.panels():
        panel.stops[0].focus()
        for stop in panel.stops[1:]:
            lesson.page.keyboard.press("Tab")
            assert stop.evaluate("it => it === document.activeElement"), stop.evaluate("it => it.outerHTML")


def test_every_control_moves_picture_and_sentence_by_keyboard(lesson):
    for panel in lesson.panels():
        size = size_of(panel.image)
        for box in panel.boxes:  # first, and left on: some sliders move only what a box shows
            for _ in range(1 + box.is_checked()):
                expect_news(panel, box, "Space")
            assert box.is_checked()
        for handle in panel.sliders:
            expect_news(panel, handle, inwards(handle)[0])
        for menu in panel.choices:
            is_last = menu.evaluate("it => it.selectedIndex === it.length - 1")
            expect_news(panel, menu, "Space", "ArrowUp" if is_last else "ArrowDown", "Enter")
        for preset in (*panel.presets[1:], *panel.presets[:1]):  # at the first one it may have started
            expect_news(panel, preset, "Enter")
        panel.change(panel.sliders[0], inwards(panel.sliders[0])[0])
        expect_news(panel, panel.reset, "Space")
        assert size_of(panel.image) == size


def expect_news(panel: LivePanel, control, *keys: str) -> None:
    """Another picture at the first press, another sentence at the third: its numbers are rounded."""
    assert any(panel.change(control, *keys) for _ in range(3)), control.evaluate("it => it.outerHTML")


def size_of(element) -> tuple[float, float]:
    box = element.bounding_box()
    return box["width"], box["height"]


def test_fifty_quick_presses_end_in_the_right_picture(lesson):
    for panel in lesson.panels():
        handle = panel.sliders[0]
        there, back = inwards(handle)
        start = panel.shown()
        panel.change(handle, there)
        panel.change(handle, there)
        slowly = position(handle), panel.shown()
        assert slowly[1] != start
        panel.change(handle, back)
        panel.change(handle, back)
        panel.press(handle, *[there, back] * 24, there, there)
        expect_in_the_end(panel, *slowly[1])
        assert position(handle) == slowly[0]


def expect_in_the_end(panel: LivePanel, *wanted: str) -> None:
    """The panel shows what is wanted, and goes on showing it: on the way there it may have passed by."""
    in_a_row = 0
    for _ in range(PATIENCE // 100):  # how long it takes is measured by benchmarks/latency.py
        in_a_row = in_a_row + 1 if panel.shown() == wanted else 0
        if in_a_row == 10:
            return
        panel.lab.page.wait_for_timeout(100)
    assert panel.shown() == wanted


def test_a_prediction_is_answered_by_keyboard(lesson):
    for output in lesson.predictions():
        button, answer = output.locator("button").first, output.locator("[role=status]")
        assert answer.count() == 0
        button.focus()
        lesson.page.keyboard.press("Enter")
        answer.wait_for()
        assert answer.inner_text().startswith(("Yes. ", "No: "))


def test_a_lesson_stays_quiet(lesson):  # the last test of a lesson
    expect_run(lesson)
    expect_quiet(lesson)


class TestSolutions:
    """A class of its own, so that another worker may take it."""

    @pytest.mark.parametrize("path", SOLUTIONS, ids=name_of)
    def test_every_cell_of_a_solution_runs(self, lab, path):
        address, browser = lab
        page = LabPage(browser, address, name_of(path))
        page.run_all()
        expect_run(page)
        expect_quiet(page)
        page.close()
