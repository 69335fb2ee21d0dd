"""A panel moves the same from the browser's side, from Python and by its buttons."""

import base64
import io
import json

import ipywidgets as widgets
import numpy as np
import pytest
from course import WIDGET
from IPython.testing.globalipapp import start_ipython
from IPython.utils.capture import capture_output
from matplotlib.figure import Figure
from PIL import Image

from gaussreg_lab.controls import choice, slider, tick, whole_slider
from gaussreg_lab.panels import explore


@pytest.fixture
def axes():
    figure = Figure(figsize=(4, 2), dpi=100)
    axes = figure.subplots()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    return axes


@pytest.fixture
def panel(axes):
    def draw(level, count, kind, grid):
        if level > 0.95:
            raise ZeroDivisionError("too high")
        for number in range(count):
            axes.axhline(
                level / (number + 1), color="red" if kind == "warm" else "blue", alpha=0.5 + 0.5 * grid
            )
        return f"{count} {kind} lines, the highest at {level:.2f}."

    return explore(
        draw,
        axes.figure,
        presets={"low & warm": {"level": 0.1, "kind": "warm"}},
        level=(0, 1, 0.5),
        count=whole_slider("how many lines", 1, 5, 2),
        kind=choice("colour", ["warm", "cold"], "cold"),
        grid=False,
    )


def size_of(png: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(png)).size


def button(panel, words):
    row = panel.widget.children[-1].children
    return next(it for it in row if isinstance(it, widgets.Button) and it.description == words)


def html(panel, role):
    return next(
        it.value
        for it in panel.widget.children
        if isinstance(it, widgets.HTML) and f'role="{role}"' in it.value
    )


def test_a_new_panel_shows_its_first_position(panel):
    assert panel.state() == {"level": 0.5, "count": 2, "kind": "cold", "grid": False}
    assert panel.summary() == "2 cold lines, the highest at 0.50."
    assert "2 cold lines" in html(panel, "status")
    assert size_of(panel.png()) == (400, 200)


def test_set_moves_controls_picture_and_sentence(panel):
    before = panel.png()
    panel.set(level=0.25, kind="warm")
    assert panel.state()["level"] == 0.25
    assert panel.controls["level"].value == 0.25
    assert panel.summary() == "2 warm lines, the highest at 0.25."
    assert panel.png() != before
    assert size_of(panel.png()) == size_of(before)


def test_a_move_in_the_browser_does_the_same(panel):
    panel.set(level=0.25)
    by_python = panel.png()
    panel.reset()
    # what arrives from the front end is a state update, not an assignment
    panel.controls["level"].set_state({"value": 0.25})
    assert panel.png() == by_python
    assert panel.summary() == "2 cold lines, the highest at 0.25."


def test_set_draws_once_however_many_controls_move(axes):
    calls = []

    def draw(low, high):
        calls.append((low, high))
        return "drawn"

    panel = explore(draw, axes.figure, low=(0, 1, 0.2), high=(0, 1, 0.8))
    panel.set(low=0.5, high=0.6)
    assert calls == [(0.2, 0.8), (0.5, 0.6)]


def test_presets_and_reset_are_buttons(panel):
    button(panel, "low & warm").click()
    assert panel.state() == {"level": 0.1, "count": 2, "kind": "warm", "grid": False}
    button(panel, "Reset").click()
    assert panel.state() == {"level": 0.5, "count": 2, "kind": "cold", "grid": False}


def test_an_error_in_drawing_is_shown_and_raised_and_undone(panel):
    before = panel.state(), panel.png(), panel.summary()
    with pytest.raises(ZeroDivisionError, match="too high"):
        panel.set(level=1.0)
    assert (panel.state(), panel.png(), panel.summary()) == before
    assert "ZeroDivisionError: too high" in html(panel, "alert")
    panel.set(level=0.3)  # the next good move clears it
    assert not any('role="alert"' in it.value for it in panel.widget.children if isinstance(it, widgets.HTML))


def test_an_error_after_a_move_in_the_browser_is_shown_below_the_picture(panel):
    with pytest.raises(ZeroDivisionError):
        panel.controls["level"].value = 1.0
    assert "too high" in html(panel, "alert")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"levle": 0.3}, "Expected one of .*'level'.* in set, got 'levle'"),
        ({"level": 1.5}, "Expected level between 0 and 1, got 1.5"),
        ({"level": float("nan")}, "Expected level between 0 and 1, got nan"),
        ({"count": 0}, "Expected count between 1 and 5, got 0"),
    ],
)
def test_set_refuses_what_no_control_can_show(panel, values, message):
    before = panel.state()
    with pytest.raises(ValueError, match=message):
        panel.set(**values)
    assert panel.state() == before


def test_set_refuses_an_unknown_choice_and_moves_nothing(panel):
    before = panel.state()
    with pytest.raises(ValueError, match=r"kind to be one of \['warm', 'cold'\], got 'lukewarm'"):
        panel.set(level=0.2, kind="lukewarm")
    assert panel.state() == before


def test_a_preset_with_an_unknown_name_is_refused_when_the_panel_is_made(axes):
    with pytest.raises(ValueError, match="presets"):
        explore(lambda level: "", axes.figure, presets={"odd": {"height": 1}}, level=(0, 1, 0.5))


def test_controls_and_arguments_must_match(axes):
    with pytest.raises(TypeError, match=r"each of draw's arguments \['level'\], got \['sigma'\]"):
        explore(lambda level: "", axes.figure, sigma=(0, 1, 0.5))


def test_a_draw_without_a_sentence_is_refused(axes):
    with pytest.raises(TypeError, match="one sentence, got NoneType"):
        explore(lambda level: None, axes.figure, level=(0, 1, 0.5))


def test_an_odd_control_is_refused(axes):
    with pytest.raises(TypeError, match="Expected level to be a control"):
        explore(lambda level: "", axes.figure, level="high")


def test_the_sentence_is_shown_as_text_not_as_markup(axes):
    panel = explore(lambda level: "1 < 2 & <b>bold</b>", axes.figure, level=(0, 1, 0.5))
    assert "1 &lt; 2 &amp; &lt;b&gt;" in html(panel, "status")


def test_a_logarithmic_slider_keeps_its_value_and_range(axes):
    panel = explore(
        lambda weight: f"{weight:.3g}", axes.figure, weight=slider("weight", 0.001, 10, 0.3, log=True)
    )
    assert panel.summary() == "0.3"
    panel.set(weight=10)
    panel.set(weight=0.001)
    with pytest.raises(ValueError, match=r"weight between 0\.001 and 10"):
        panel.set(weight=11)


def test_every_control_has_a_label(panel):
    assert all(control.description for control in panel.controls.values())
    assert tick("check by sampling").description == "check by sampling"


def test_the_image_keeps_its_size_on_the_page(panel):
    image = next(it for it in panel.widget.children if isinstance(it, widgets.Image))
    assert (image.layout.width, image.layout.height) == ("400px", "200px")


def test_one_output_serves_a_live_page_a_dead_page_and_a_text_reader(panel):
    start_ipython()
    with capture_output() as captured:
        panel._ipython_display_()
    (bundle,) = (output.data for output in captured.outputs)
    assert bundle[WIDGET]["model_id"] == panel.widget.model_id
    assert bundle["text/plain"] == panel.summary()
    json.dumps(bundle)  # the picture as base64, not as bytes
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(bundle["image/png"]))))
    assert picture.shape[:2] == (200, 400)
    assert picture.std() > 0
