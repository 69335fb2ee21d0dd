"""The course in a real JupyterLab in a real browser: opened, run, moved by keyboard.

Needs Debian's chromium (or CHROMIUM=path); skipped where there is none. Nothing of the user's own
Jupyter configuration is read or written, and the browser can reach nothing but this machine.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from course import LESSONS

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1 , EXCLUDE localhost",
]
NOTEBOOK = """[...window.jupyterapp.shell.widgets('main')].find(w => w.content && w.content.model
    && w.content.model.cells && w.sessionContext)"""

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium here: apt-get install chromium, or set CHROMIUM"
)


@pytest.fixture(scope="module")
def lab_address(tmp_path_factory):
    """The address that `python -m gaussreg_lab` prints on a machine without a display."""
    home = tmp_path_factory.mktemp("home")
    names = ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR", "LAB_SETTINGS_DIR", "LAB_WORKSPACES_DIR")
    settings = {
        f"JUPYTER{'' if name.startswith('LAB') else '_'}{name}": str(home / name.lower()) for name in names
    }
    environment = {**os.environ, **settings, "IPYTHONDIR": str(home / "ipython"), "PYTHONUNBUFFERED": "1"}
    environment.pop("DISPLAY", None)
    log = home / "server.log"
    with log.open("w") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "gaussreg_lab", "--port=0", "--LabApp.expose_app_in_browser=True"],
            cwd=home, env=environment, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        yield _printed_address(server, log)
    finally:
        server.terminate()
        server.wait(timeout=20)


def _printed_address(server: subprocess.Popen, log: Path) -> str:
    for _ in range(600):
        found = re.search(r"http://127\.0\.0\.1:\d+/lab/tree/\S+", log.read_text())
        if found:
            return found[0]
        if server.poll() is not None:
            break
        time.sleep(0.1)
    raise AssertionError(f"JupyterLab printed no address:\n{log.read_text()[-3000:]}")


class Witness:
    """A page, and all that it complained about or asked of other machines."""

    def __init__(self, page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.strangers: list[str] = []
        page.on("console", lambda m: self.complaints.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", self._asked)

    def _asked(self, request) -> None:
        if not re.match(r"(https?|wss?)://127\.0\.0\.1[:/]|data:|blob:", request.url):
            self.strangers.append(request.url)

    def open(self, address: str) -> None:
        self.page.goto(
            f"{address}&reset", wait_until="domcontentloaded"
        )  # without the tabs of an earlier test
        self.page.wait_for_function(f"window.jupyterapp && ({NOTEBOOK}) && ({NOTEBOOK}).context.isReady")
        self.page.wait_for_function(f"(({NOTEBOOK}).sessionContext.session?.kernel?.status) === 'idle'")

    def run_all(self, name: str) -> list[dict]:
        assert self.page.evaluate(f"({NOTEBOOK}).context.path").endswith(name)
        self.page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
        self.page.wait_for_function(f"(({NOTEBOOK}).sessionContext.session.kernel.status) === 'idle'")
        self.page.wait_for_timeout(500)
        return self.page.evaluate(
            f"""({NOTEBOOK}).content.widgets.filter(c => c.model.type === 'code').map(c => ({{
                index: ({NOTEBOOK}).content.widgets.indexOf(c),
                panel: c.model.outputs.toJSON().some(o => o.data && o.data['image/png']
                    && o.data['application/vnd.jupyter.widget-view+json']),
                count: c.model.executionCount, source: c.model.sharedModel.getSource(),
                errors: c.model.outputs.toJSON().filter(o => o.output_type === 'error').map(o => o.evalue),
            }}))"""
        )

    def scroll_to(self, index: int):
        """Bring a cell into view; JupyterLab takes cells far from it off the page. Returns its output."""
        output = self.page.locator(".jp-mod-active .jp-OutputArea-output:has(.widget-image)")
        for _ in range(40):  # the page may still be growing under our feet
            self.page.evaluate(f"({NOTEBOOK}).content.activeCellIndex = {index}")
            self.page.evaluate(f"({NOTEBOOK}).content.scrollToItem({index}, 'start')")
            self.page.wait_for_timeout(250)
            if output.locator("img.widget-image").is_visible():
                return output
        raise AssertionError(f"cell {index} did not come into view")


@pytest.fixture
def witness(tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright drives the browser")
    with sync_api.sync_playwright() as driver:
        context = driver.chromium.launch_persistent_context(
            str(tmp_path / "profile"), executable_path=CHROMIUM, headless=True, args=FLAGS,
            viewport={"width": 1280, "height": 900},
        )  # fmt: skip
        page = context.pages[0]
        page.set_default_timeout(60_000)
        try:
            yield Witness(page)
        finally:
            context.close()


def test_the_command_opens_the_first_lesson_quietly(lab_address, witness):
    assert "00_start_here.ipynb" in lab_address
    witness.open(lab_address)
    witness.page.wait_for_timeout(3000)  # time enough for a question about news to pop up
    assert witness.page.locator(".Toastify__toast, .jp-Dialog").count() == 0
    assert witness.strangers == []
    assert witness.complaints == []


@pytest.mark.parametrize("notebook", [path.name for path in LESSONS])
def test_every_slider_moves_picture_and_sentence(lab_address, witness, notebook):
    witness.open(lab_address.replace("00_start_here.ipynb", notebook))
    cells = witness.run_all(notebook)
    assert [cell["errors"] for cell in cells if cell["errors"]] == []
    assert [cell["source"] for cell in cells if cell["count"] is None] == []

    page = witness.page
    panels = [number for number, cell in enumerate(cells) if cell["panel"]]
    assert panels
    for number in panels:
        panel = witness.scroll_to(cells[number]["index"])
        image, sentence = panel.locator("img.widget-image"), panel.locator("[role=status]")
        size = image.bounding_box()
        for box in panel.locator("input[type=checkbox]").all():
            box.check()  # some sliders move only what a box shows
            page.wait_for_timeout(300)
        for handle in panel.locator(".noUi-handle").all():
            before = image.get_attribute("src"), sentence.inner_text()
            handle.focus()
            value, least = (float(handle.get_attribute(f"aria-value{end}")) for end in ("now", "min"))
            page.keyboard.press("ArrowLeft" if value > least else "ArrowRight")
            page.wait_for_function("([i, src]) => i.src !== src", arg=[image.element_handle(), before[0]])
            after = image.bounding_box()
            assert (after["width"], after["height"]) == (size["width"], size["height"])
        assert sentence.inner_text() != ""
    assert witness.strangers == []
    assert witness.complaints == []
