"""From a key press to the new picture, in a real JupyterLab in a headless Chromium.

    .venv/bin/python tests/benchmarks/latency.py          # all lessons, some three minutes on two quiet cores
    .venv/bin/python tests/benchmarks/latency.py 00 05    # only those

For the first panel of every lesson: the time from keydown to the first frame with the new picture, for
30 presses one at a time; the time from the last of 50 quick presses to the frame of the last picture; and in
how many frames of either there was no picture. The floor is what page and kernel cannot do without: a label
that follows a slider, in the same run. Times are the browser's own. Writes latency.json and a table in
README.md.
"""

import json
import statistics
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from course import LESSONS  # noqa: E402
from lab_in_browser import LabPage, chromium, inwards, served_lab  # noqa: E402

PRESSES, QUICK = 30, 50
BEGIN, END = "<!-- table: written by latency.py -->", "<!-- end of latency -->"

# keys: when a key went down. frames: [when a frame was painted, which picture or label it shows]; a frame
# counts as painted at the first message after it, and shows a picture only once that is decoded
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
        for key in keys:
            page.keyboard.press(key)
        lab.settle()
        page.wait_for_timeout(100)
        page.evaluate("window.unwatch.abort()")
        seen.append(page.evaluate("window.seen"))
    return seen


def latency(one: dict) -> float:
    """Milliseconds from the last keydown to the first frame that shows what is shown in the end."""
    end = one["frames"][-1][1]
    assert end not in ("", one["frames"][0][1]), "Expected a press to change the picture"
    return next(time for time, shows in one["frames"] if shows == end) - one["keys"][-1]


def blank(some: list[dict]) -> int:
    return sum(not shows for one in some for _, shows in one["frames"])


def measure(lab: LabPage, handle, shown) -> dict:
    there, back = inwards(handle)
    watch(lab, handle, shown, [[there], [back]] * 3)  # the first moves are slower: nothing is at hand yet
    singles = watch(lab, handle, shown, [[there], [back]] * (PRESSES // 2))
    (quick,) = watch(lab, handle, shown, [[there, there] + [there, back] * (QUICK // 2 - 1)])
    times = sorted(latency(one) for one in singles)
    return {
        "median": round(statistics.median(times), 1),
        "p95": round(times[int(0.95 * len(times))], 1),
        "settled": round(latency(quick), 1),
        "blank frames": blank([*singles, quick]),
        "frames": sum(len(one["frames"]) for one in (*singles, quick)),
    }


def floor(lab: LabPage) -> dict:
    """The same for a label, in a cell put below all others."""
    output = lab.scroll_to(lab.run_below(FLOOR), ".widget-label")
    return measure(lab, output.locator(".noUi-handle"), output.locator(".widget-label").last)


def table(results: dict) -> str:
    lines = [
        "| lesson | median, ms | p95, ms | in floors | after 50 quick presses, ms | blank frames |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in results.items():
        for what, it in (("panel", row["panel"]), ("floor", row["floor"])):
            ratio = it["median"] / row["floor"]["median"]
            lines.append(
                f"| {name}, {what} | {it['median']} | {it['p95']} | {ratio:.1f} | {it['settled']} "
                f"| {it['blank frames']} of {it['frames']} |"
            )
    return "\n".join(lines)


def main(words: list[str]) -> None:
    file, readme = HERE / "latency.json", HERE / "README.md"
    results = json.loads(file.read_text()) if file.exists() else {}
    lessons = [path for path in LESSONS if not words or path.name[:2] in words]
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        with served_lab(home) as address, chromium(home) as browser:
            for path in lessons:
                lab = LabPage(browser, address, path.name)
                lab.run_all()
                panel = next(lab.panels())
                moved = measure(lab, panel.sliders[0], panel.image)
                results[path.stem] = {"panel": moved, "floor": floor(lab)}
                print(path.stem, json.dumps(results[path.stem]), flush=True)
                lab.close()
    kept = {path.stem: results[path.stem] for path in LESSONS if path.stem in results}
    file.write_text(json.dumps(kept, indent=1) + "\n")
    head, rest = readme.read_text().split(BEGIN)
    readme.write_text(f"{head}{BEGIN}\n{table(kept)}\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main(sys.argv[1:])
