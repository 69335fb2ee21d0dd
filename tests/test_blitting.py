"""A blitted frame shows what a full drawing of the same figure shows."""

import io

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from gaussreg_lab.blitting import Blitter


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


@pytest.fixture
def scene():
    figure = Figure(figsize=(4, 2), dpi=100)
    left, right = figure.subplots(1, 2)
    for ax in (left, right):
        ax.set(xlim=(0, 1), ylim=(0, 1))
    left.plot([0, 1], [1, 0], color="green", label="still")
    left.legend(loc="upper right")
    return figure, left, right


def draw_at(left, right, level):
    left.plot([0, 1], [level, level], color="red", linewidth=4)
    right.fill_between([0, level], 0, 1, color="blue")
    right.text(0.5, 0.5, f"{level:.2f}")


def test_a_frame_equals_a_full_drawing(scene):
    figure, left, right = scene
    blitter = Blitter(figure)
    for level in (0.2, 0.8, 0.5):
        blitter.draw(lambda level=level: draw_at(left, right, level))
        frame = pixels(blitter.png())
    # the oracle: another figure, drawn once and in full
    fresh = Figure(figsize=(4, 2), dpi=100)
    fresh_left, fresh_right = fresh.subplots(1, 2)
    for ax in (fresh_left, fresh_right):
        ax.set(xlim=(0, 1), ylim=(0, 1))
    fresh_left.plot([0, 1], [1, 0], color="green", label="still")
    draw_at(fresh_left, fresh_right, 0.5)
    fresh_left.legend(loc="upper right", handles=fresh_left.lines[:1])
    canvas = FigureCanvasAgg(fresh)
    canvas.draw()
    full = np.asarray(canvas.buffer_rgba())[..., :3].astype(int)
    assert frame.shape == full.shape == (200, 400, 3)
    # anti-aliasing over restored pixels may differ by a shade, never by a line
    assert (np.abs(frame - full).max(axis=-1) > 40).mean() < 0.002


def test_nothing_is_left_of_earlier_frames(scene):
    figure, left, right = scene
    blitter = Blitter(figure)
    blitter.draw(lambda: draw_at(left, right, 0.2))
    first = blitter.png()
    blitter.draw(lambda: draw_at(left, right, 0.9))
    assert blitter.png() != first
    blitter.draw(lambda: draw_at(left, right, 0.2))
    assert blitter.png() == first
    assert len(left.lines) == 2  # the still one and the moving one


def test_a_change_of_limits_or_title_redraws_what_stands_still(scene):
    figure, left, right = scene
    blitter = Blitter(figure)
    blitter.draw(lambda: draw_at(left, right, 0.5))
    before = pixels(blitter.png())
    blitter.draw(lambda: (left.set_title("new"), right.set_xlim(0, 2), draw_at(left, right, 0.5)))
    after = pixels(blitter.png())
    assert np.abs(after - before)[:22, 50:200].max() > 100  # the title
    assert np.abs(after - before)[-20:, 220:].max() > 100  # the tick labels


def test_a_drawing_that_fails_leaves_the_picture_as_it_was(scene):
    figure, left, right = scene
    blitter = Blitter(figure)
    blitter.draw(lambda: draw_at(left, right, 0.5))
    before = blitter.png()

    def fail():
        draw_at(left, right, 0.1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        blitter.draw(fail)
    assert blitter.png() == before


def test_drawing_does_not_move_the_limits(scene):
    figure, left, _ = scene
    blitter = Blitter(figure)
    blitter.draw(lambda: left.plot([0, 100], [0, 100]))
    assert left.get_xlim() == (0, 1)


def test_no_pyplot_figure_is_left_open(scene):
    import matplotlib.pyplot as plt

    figure, left, right = scene
    Blitter(figure).draw(lambda: draw_at(left, right, 0.5))
    assert plt.get_fignums() == []


@pytest.mark.parametrize("opacity", [0.0, 0.5, 1.0])
def test_what_moves_shines_through_a_legend_as_in_a_full_drawing(scene, opacity):
    figure, left, right = scene
    left.legend(loc="center", framealpha=opacity, facecolor="yellow")
    blitter = Blitter(figure)
    blitter.draw(lambda: draw_at(left, right, 0.2))
    blitter.png()
    blitter.draw(lambda: left.fill_between([0, 1], 0.3, 0.52, color="blue"))  # a part of the legend's ground
    frame = pixels(blitter.png())
    for artist in left.get_children():
        artist.set_animated(False)
    left.collections[0].set_zorder(4.9)  # a frame has it over all that stands still, under the legend
    FigureCanvasAgg(figure).draw()
    full = np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)
    box = left.get_legend().get_window_extent().padded(-2)
    inside = np.s_[200 - int(box.y1) : 200 - int(box.y0), int(box.x0) : int(box.x1)]
    assert len(np.unique(full[inside].reshape(-1, 3), axis=0)) > 10  # letters, line, ground, and blue
    np.testing.assert_allclose(frame[inside], full[inside], atol=4)


def test_an_empty_legend_does_no_harm(scene):
    figure, left, right = scene
    right.legend([], [], frameon=False)
    blitter = Blitter(figure)
    blitter.draw(lambda: draw_at(left, right, 0.2))
    assert pixels(blitter.png()).shape == (200, 400, 3)
