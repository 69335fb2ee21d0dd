"""From a key press to the new picture, in a real JupyterLab in a headless Chromium.

    .venv/bin/python tests/benchmarks/latency.py          # all lessons, some three minutes on two quiet cores
    .venv/bin/python tests/benchmarks/latency.py 00 05    # only those

For the first panel of every lesson: the time from keydown to the first frame with the new picture, for
30 presses one at a time; the time from the last of 50 quick presses to the frame of the last picture; and in
how many of the frames painted during other 50 presses the picture's place is empty. The floor is what page
and kernel cannot do without: a label that follows a slider, in the same run. Times are the browser's.
Writes latency.json and a table in README.md.
"""

import base64
import io
import json
import statistics
import sys
import tempfile
from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from between_marks import write_between  # noqa: E402
from course import LESSONS  # noqa: E402
from lab_in_browser import LabPage, chromium, inwards, served_lab  # noqa: E402

RECORD, README = HERE / "latency.json", HERE / "README.md"
PRESSES, QUICK = 30, 50
BEGIN, END = "<!-- table: written by latency.py -->", "<!-- end of latency -->"

# keys: when a key went down. frames: [when a frame was painted, which picture or label it shows]; a frame
# counts as painted at the first message after it, and shows a picture only once that is loaded
WATCH = """watched => {
    const seen = window.seen = {keys: [], frames: []};
    addEventListener('keydown', press => seen.keys.push(press.timeStamp), {capture: true, signal:
        (window.unwatch = new AbortController()).signal});
    const look = () => {
        const ready = watched.tagName !== 'IMG' || (watched.complete && watched.naturalWidth);
        const shows = !ready ? '' : watched.src || watched.textContent;
        const channel = new MessageChannel();
        channel.port1.onmessage = () => seen.frames.push([performance.now(), shows]);
        channel.port2.postMessage(0);
        if (!window.unwatch.signal.aborted) requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
}"""

MOVED = """() => {
    const last = window.seen.frames.at(-1)[1];
    return last && last !== window.seen.frames[0][1];
}"""

FLOOR = """
import ipywidgets
label, level = ipywidgets.Label("0"), ipywidgets.IntSlider(50, 0, 100)
level.observe(lambda change: setattr(label, "value", str(change["new"])), names="value")
ipywidgets.VBox([level, label])
"""


def watch(lab: LabPage, handle, shown, presses: list[list[str]]) -> list[dict]:
    """What each burst of presses led to: {"keys": times, "frames": [time, what is shown]}."""
    page, seen = lab.page, []
    handle.focus()
    for keys in presses:
        shown.evaluate(WATCH)
        page.wait_for_function("window.seen.frames.length")
        for key in keys:
            page.keyboard.press(key)
        page.wait_for_function(MOVED)
        lab.settle()
        page.wait_for_timeout(50 if len(keys) == 1 else 1000)  # nothing may come after it
        page.evaluate("window.unwatch.abort()")
        seen.append(page.evaluate("window.seen"))
    return seen


def latency(one: dict) -> float:
    """Milliseconds from the last keydown to the first frame that shows what is shown in the end."""
    end = one["frames"][-1][1]
    assert end not in ("", one["frames"][0][1]), "Expected a press to change the picture"
    first = max(number for number, (_, shows) in enumerate(one["frames"]) if shows != end) + 1
    return one["frames"][first][0] - one["keys"][-1]


def painted(lab: LabPage, handle, shown) -> list[bool]:
    """For every frame painted during 50 quick presses: is there anything in the picture's place?"""
    there, back = inwards(handle)
    box = shown.bounding_box()
    corners = (box["x"], box["y"], box["x"] + box["width"], box["y"] + min(box["height"], 200))
    filmed: list[str] = []
    camera = lab.page.context.new_cdp_session(lab.page)

    def keep(frame: dict) -> None:
        filmed.append(frame["data"])
        camera.send("Page.screencastFrameAck", {"sessionId": frame["sessionId"]})

    camera.on("Page.screencastFrame", keep)
    camera.send("Page.startScreencast", {"format": "png", "everyNthFrame": 1})
    handle.focus()
    for key in [there, back] * (QUICK // 2):
        lab.page.keyboard.press(key)
        lab.page.wait_for_timeout(33)  # as a key that is held down
    lab.settle()
    lab.page.wait_for_timeout(500)
    camera.send("Page.stopScreencast")
    pictures = [Image.open(io.BytesIO(base64.b64decode(it))).convert("L").crop(corners) for it in filmed]
    return [low < high for low, high in (it.getextrema() for it in pictures)]


def measure(lab: LabPage, handle, shown) -> dict:
    there, back = inwards(handle)
    watch(lab, handle, shown, [[there], [back]] * 3)  # the first moves are slower: nothing is at hand yet
    singles = watch(lab, handle, shown, [[there], [back]] * (PRESSES // 2))
    (quick,) = watch(lab, handle, shown, [[there, back] * (QUICK // 2 - 1) + [there, there]])
    times = sorted(latency(one) for one in singles)
    return {
        "median": round(statistics.median(times), 1),
        "p95": round(times[int(0.95 * len(times))], 1),
        "settled": round(latency(quick), 1),
    }


def floor(lab: LabPage) -> dict:
    """The same for a label, in a cell put below all others."""
    output = lab.scroll_to(lab.run_below(FLOOR), ".noUi-handle")
    return measure(lab, output.locator(".noUi-handle"), output.locator(".widget-label").last)


def table(results: dict) -> str:
    lines = [
        "| lesson | median, ms | p95, ms | in floors | after 50 quick presses, ms | empty frames |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in results.items():
        panel, base = row["panel"], row["floor"]
        ratio, frames = panel["median"] / base["median"], row["frames"]
        lines.append(
            f"| {name} | {panel['median']} | {panel['p95']} | {ratio:.1f} | {panel['settled']} "
            f"| {frames['empty']} of {frames['painted']} |"
        )
        lines.append(f"| its floor | {base['median']} | {base['p95']} | 1 | {base['settled']} | |")
    return "\n".join(lines)


def store(results: dict) -> None:
    """Write record and table, the lessons in their order."""
    kept = {path.stem: results[path.stem] for path in LESSONS if path.stem in results}
    RECORD.write_text(json.dumps(kept, indent=1) + "\n")
    write_between(BEGIN, END, table(kept), README)


def main(words: list[str]) -> None:
    results = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    lessons = [path for path in LESSONS if not words or path.name[:2] in words]
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        with served_lab(home) as address, chromium(home) as browser:
            for path in lessons:
                lab = LabPage(browser, address, path.name)
                lab.run_all()
                panel = next(lab.panels())
                handle, image = panel.sliders[0], panel.image
                moved, full = measure(lab, handle, image), painted(lab, handle, image)
                frames = {"painted": len(full), "empty": full.count(False)}
                results[path.stem] = {"panel": moved, "floor": floor(lab), "frames": frames}
                print(path.stem, json.dumps(results[path.stem]), flush=True)
                store(results)  # each at once: what was measured is kept, whatever comes next
                lab.close()


if __name__ == "__main__":
    main(sys.argv[1:])
