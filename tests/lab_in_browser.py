"""The course in a real JupyterLab in a real browser, for the tests and for benchmarks/latency.py.

    with served_lab(folder) as address, chromium(folder) as browser:
        page = LabPage(browser, address, "00_start_here.ipynb")
        page.run_all()
        for panel in page.panels(): ...

Needs Debian's chromium (or CHROMIUM=path). Nothing of the user's own Jupyter configuration is read or
written, notebooks are not saved, and the browser can reach nothing but this machine.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from course import WIDGET
from printed_address import printed_address

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
PATIENCE = 120_000  # milliseconds for anything to happen, on a machine with much else to do
START = "00_start_here.ipynb"

NOTEBOOK = """[...window.jupyterapp.shell.widgets('main')].find(w => w.content && w.content.model
    && w.content.model.cells && w.sessionContext)"""
CELLS = f"""({NOTEBOOK}).content.widgets.map((c, index) => ({{c, index}})).filter(({{c}}) =>
    c.model.type === 'code').map(({{c, index}}) => ({{
        index, count: c.model.executionCount, source: c.model.sharedModel.getSource(),
        kinds: c.model.outputs.toJSON().flatMap(o => Object.keys(o.data || {{}})),
        errors: c.model.outputs.toJSON().filter(o => o.output_type === 'error').map(o => o.evalue),
    }}))"""


@contextmanager
def served_lab(home: Path) -> Iterator[str]:
    """The address that `python -m gaussreg_lab` prints on a machine without a display."""
    names = ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR", "LAB_SETTINGS_DIR", "LAB_WORKSPACES_DIR")
    settings = {
        f"JUPYTER{'' if name.startswith('LAB') else '_'}{name}": str(home / name.lower()) for name in names
    }
    environment = {**os.environ, **settings, "IPYTHONDIR": str(home / "ipython"), "PYTHONUNBUFFERED": "1"}
    environment.pop("DISPLAY", None)
    settings_of_documents = home / "lab_settings_dir" / "@jupyterlab" / "docmanager-extension"
    settings_of_documents.mkdir(parents=True)
    (settings_of_documents / "plugin.jupyterlab-settings").write_text('{"autosave": false}')
    log = home / "server.log"
    with log.open("w") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "gaussreg_lab", "--port=0", "--LabApp.expose_app_in_browser=True"],
            cwd=home, env=environment, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        yield printed_address(server, log)
    finally:
        server.terminate()
        server.wait(timeout=60)


@contextmanager
def chromium(home: Path) -> Iterator:
    """A browser without a window and without a past."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        context = driver.chromium.launch_persistent_context(
            str(home / "profile"), executable_path=CHROMIUM, headless=True, args=FLAGS,
            viewport={"width": 1280, "height": 900}, timeout=PATIENCE,
        )  # fmt: skip
        context.set_default_timeout(PATIENCE)
        try:
            yield context
        finally:
            context.close()


class LabPage:
    """One notebook in a tab of its own, and all that the page complained about or asked of other machines."""

    def __init__(self, browser, address: str, name: str) -> None:
        self.page = browser.new_page()
        self.complaints: list[str] = []
        self.strangers: list[str] = []
        self.page.on("console", self._told)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._asked)
        self.page.goto(  # "reset": without the tabs of an earlier test
            f"{address.replace(START, name)}&reset", wait_until="domcontentloaded"
        )
        self.page.wait_for_function(f"window.jupyterapp && ({NOTEBOOK}) && ({NOTEBOOK}).context.isReady")
        self.page.wait_for_function(f"(({NOTEBOOK}).sessionContext.session?.kernel?.status) === 'idle'")
        assert self.page.evaluate(f"({NOTEBOOK}).context.path").endswith(name)

    def _told(self, message) -> None:
        if message.type == "error":
            self.complaints.append(f"{message.text} {message.location['url']}")

    def _asked(self, request) -> None:
        if not re.match(r"(https?|wss?)://127\.0\.0\.1[:/]|data:|blob:", request.url):
            self.strangers.append(request.url)

    def run_all(self) -> list[dict]:
        """Run from top to bottom; returns the code cells."""
        self.page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
        self.settle()
        return self.cells()

    def cells(self) -> list[dict]:
        """The code cells as they stand: index, count, source, kinds of output, errors."""
        return self.page.evaluate(CELLS)

    def run_below(self, source: str) -> int:
        """Run a cell put below all others; returns its index."""
        index = self.page.evaluate(
            f"""async source => {{
                const all = ({NOTEBOOK}).content, index = all.widgets.length;
                all.model.sharedModel.insertCell(index, {{cell_type: 'code', source}});
                all.activeCellIndex = index;
                await window.jupyterapp.commands.execute('notebook:run-cell');
                return index;
            }}""",
            source,
        )
        self.settle()
        return index

    def settle(self) -> None:
        """Wait until all that the page has asked of the kernel is done and on the screen."""
        self.page.evaluate(
            f"""async () => {{
                const kernel = ({NOTEBOOK}).sessionContext.session.kernel;
                // twice: a slider sends its newest value only after the answer to an older one
                for (let turn = 0; turn < 2; turn++) {{
                    await kernel.requestExecute({{code: '', silent: true}}).done;
                    await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
                }}
            }}"""
        )

    def scroll_to(self, index: int, selector: str):
        """Bring a cell into view; JupyterLab takes cells far from it off the page. Returns its output."""
        output = self.page.locator(f".jp-mod-active .jp-OutputArea-output:has({selector})")
        for _ in range(PATIENCE // 250):  # the page may still be growing under our feet
            self.page.evaluate(f"({NOTEBOOK}).content.activeCellIndex = {index}")
            self.page.evaluate(f"({NOTEBOOK}).content.scrollToItem({index}, 'start')")
            self.page.wait_for_timeout(250)
            if output.locator(selector).first.is_visible():
                return output
        raise AssertionError(f"cell {index} did not come into view")

    def panels(self) -> Iterator["LivePanel"]:
        """Every panel in turn, in view."""
        for cell in self.cells():
            if {WIDGET, "image/png"} <= set(cell["kinds"]):
                yield LivePanel(self, self.scroll_to(cell["index"], "img.widget-image"))

    def use_theme(self, name: str, light: bool) -> None:
        """Change JupyterLab's theme, and wait until the notebook's page is light, or is dark."""
        self.page.evaluate(
            "theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", name
        )
        self.page.wait_for_function(
            """light => {
                const probe = document.createElement('div');
                probe.style.color = 'var(--jp-layout-color0)';
                document.body.append(probe);
                const [red] = getComputedStyle(probe).color.match(/[0-9.]+/g);
                probe.remove();
                return document.body.dataset.jpThemeLight === String(light) && (red > 127) === light;
            }""",
            arg=light,
        )

    def predictions(self) -> Iterator:
        """The output of every `lab.predict` in turn, in view."""
        for cell in self.cells():
            if {WIDGET, "text/html"} <= set(cell["kinds"]) and "lab.predict(" in cell["source"]:
                yield self.scroll_to(cell["index"], ".widget-toggle-buttons")

    def close(self) -> None:
        """Close the tab and end its kernel, which would outlive it."""
        self.page.evaluate(f"({NOTEBOOK}).sessionContext.shutdown().catch(() => null)")
        self.page.close(run_before_unload=False)


class LivePanel:
    """A panel on the page: its controls as elements, and what it shows."""

    def __init__(self, lab: LabPage, output) -> None:
        self.lab, self.output = lab, output
        self.image, self.sentence = output.locator("img.widget-image"), output.locator("[role=status]")
        # all that Tab stops at, in order; into its readout a slider's value can be typed
        self.stops = output.locator(".noUi-handle, .widget-readout, input, select, button").all()
        self.sliders = output.locator(".noUi-handle").all()
        self.boxes = output.locator("input[type=checkbox]").all()
        self.choices = output.locator("select").all()
        *self.presets, self.reset = output.locator("button").all()

    def press(self, control, *keys: str) -> None:
        """Give a control the keyboard, and press keys as quickly as they can be sent."""
        control.focus()
        for key in keys:
            self.lab.page.keyboard.press(key)

    def change(self, control, *keys: str) -> bool:
        """Press keys, wait for another picture; returns whether there is another sentence, too."""
        source, words = self.image.get_attribute("src"), self.sentence.inner_text()
        self.press(control, *keys)
        self.lab.page.wait_for_function(
            "([i, src]) => i.src !== src", arg=[self.image.element_handle(), source]
        )
        self.lab.settle()
        for _ in range(10):  # the sentence comes right after the picture, if it is another one
            if self.sentence.inner_text() != words:
                return True
            self.lab.page.wait_for_timeout(100)
        return False

    def shown(self) -> tuple[str, str]:
        """A fingerprint of the pixels, and the sentence."""
        pixels = self.image.evaluate(
            """async image => {
                const source = image.src;
                await image.decode().catch(() => null);  // another picture came instead
                if (image.src !== source || !image.naturalWidth) return '';
                const canvas = document.createElement('canvas');
                [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
                canvas.getContext('2d').drawImage(image, 0, 0);
                return canvas.toDataURL();
            }"""
        )
        return hashlib.sha256(pixels.encode()).hexdigest()[:12], self.sentence.inner_text()


def name_heard(control) -> str:
    """The accessible name of an element, by the rules that browsers and screen readers follow."""
    role_and_name = control.aria_snapshot().splitlines()[0]
    return "".join(re.findall(r'"(.*)"', role_and_name))


def position(handle) -> tuple[float, float, float]:
    """Where a slider stands, and its ends."""
    return tuple(float(handle.get_attribute(f"aria-value{name}")) for name in ("now", "min", "max"))


def inwards(handle) -> tuple[str, str]:
    """The arrow key that leads towards the farther end of a slider, and the one that leads back."""
    now, low, high = position(handle)
    keys = ("ArrowLeft", "ArrowRight")
    return keys if now - low > high - now else keys[::-1]
