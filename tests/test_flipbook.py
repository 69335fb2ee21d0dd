"""A flipbook shows what the panel shows at each position, and leaves the panel as it was."""

import base64
import io
import json
import math
import re

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from gaussreg_lab.controls import choice, slider, tick, whole_slider
from gaussreg_lab.flipbook import flipbook, frames, positions
from gaussreg_lab.panels import explore


@pytest.fixture
def panel():
    figure = Figure(figsize=(4, 2), dpi=144)
    axes = figure.subplots()
    axes.set(xlim=(0, 1), ylim=(0, 10))

    def draw(level, weight, count, kind, grid):
        for number in range(count):
            axes.axhline(level / (number + 1), color={1: "red", 2: "blue"}[kind], alpha=0.5 + 0.5 * grid)
        axes.axvline((3.5 + math.log10(weight)) / 5)
        return f"{count} </script> lines of kind {kind}, at {level:.2f}, weight {weight:.3g}, grid {grid}."

    return explore(
        draw,
        figure,
        level=slider("the level", 0, 8, 2, steps=40),
        weight=slider("weight", 0.001, 10, 0.3, log=True),
        count=whole_slider("how many lines", 1, 5, 2),
        kind=choice("colour", {"warm": 1, "cold": 2}, 2),
        grid=tick("grid"),
    )


def carried(html: str) -> list[dict]:
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', html)[1])


def pixels(uri: str) -> np.ndarray:
    image = Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))
    return np.asarray(image.convert("RGB")).astype(float)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("level", [0, 1, 2, 3, 4, 5, 6, 7, 8]),
        ("weight", [10**it for it in np.linspace(-3, 1, 9)]),
        ("count", [1, 2, 3, 4, 5]),
        ("kind", [1, 2]),
        ("grid", [False, True]),
    ],
)
def test_positions_are_the_controls_own_and_hold_the_present_one(panel, name, expected):
    got = positions(panel.controls[name], 9)
    start = panel.state()[name]
    assert start in got
    away = [it for it, wanted in zip(got, expected, strict=True) if it != pytest.approx(wanted)]
    assert away in ([], [start])  # the present position takes the place of its neighbour


@pytest.mark.parametrize("present", [0, 3, 4, 78, 99])
def test_of_a_long_choice_some_words_are_left_and_the_chosen_one_among_them(present):
    options = {f"number {it}": f"value {it}" for it in range(100)}
    got = positions(choice("a long choice", options, f"value {present}"), 12)
    assert f"value {present}" in got
    places = [list(options.values()).index(it) for it in got]
    assert len(places) == 12
    assert places == sorted(set(places))
    assert np.abs(np.array(places) - np.linspace(0, 99, 12)).max() <= 5


@pytest.mark.parametrize("name", ["level", "weight", "count", "kind", "grid"])
def test_every_frame_is_the_panel_at_its_position(panel, name):
    before = panel.state(), panel.png(), panel.summary()
    where = positions(panel.controls[name], 9)
    pages = frames(panel, name, where)
    assert (panel.state(), panel.png(), panel.summary()) == before
    assert len({page.picture for page in pages}) == len(pages)
    for value, page in zip(where, pages, strict=True):
        panel.set(**{name: value})
        assert page.sentence == panel.summary()
        drawn = Image.open(io.BytesIO(panel.png())).resize((400, 200), Image.Resampling.LANCZOS)
        assert np.abs(pixels(page.picture) - np.asarray(drawn.convert("RGB"))).mean() < 3  # of 255


def test_the_book_opens_where_the_panel_stands(panel):
    html = flipbook(panel, "level", count=9)
    pages = carried(html)
    start = int(re.search(r' value="(\d+)"', html)[1])
    assert [page["position"] for page in pages] == [f"{it:.1f}" for it in range(9)]
    assert pages[start]["sentence"] == panel.summary()
    assert f'<img src="{pages[start]["picture"]}"' in html  # what is seen where scripts are off
    assert re.search(r'<p class="control" hidden><label>the level <input type="range"', html)


def test_positions_are_shown_in_words(panel):
    assert [page["position"] for page in carried(flipbook(panel, "kind"))] == ["warm", "cold"]
    assert [page["position"] for page in carried(flipbook(panel, "grid"))] == ["no", "yes"]
    assert [page["position"] for page in carried(flipbook(panel, "count"))] == ["1", "2", "3", "4", "5"]


def test_a_sentence_cannot_end_the_script_that_carries_it(panel):
    html = flipbook(panel, "count")
    assert html.count("</script>") == 2
    assert all("</script>" in page["sentence"] for page in carried(html))


def test_the_panel_is_put_back_even_when_a_position_cannot_be_drawn():
    figure = Figure(figsize=(2, 1))
    figure.subplots()
    panel = explore(lambda at: f"{1 / (at - 1):.2f}", figure, at=(0, 2, 0.5))
    with pytest.raises(ZeroDivisionError):
        flipbook(panel, "at", count=3)
    assert panel.state() == {"at": 0.5}
    assert panel.summary() == "-2.00"


def test_an_unknown_control_or_a_single_position_is_refused(panel):
    with pytest.raises(ValueError, match=r"Expected one of the controls .*'level'.*, got 'levle'"):
        flipbook(panel, "levle")
    with pytest.raises(ValueError, match="count of at least 2, got 1"):
        flipbook(panel, "level", count=1)
