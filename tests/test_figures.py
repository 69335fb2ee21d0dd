"""Figures draw on the given axes, in the course's style, and leave nothing open."""

from itertools import product

import matplotlib
import numpy as np
import pytest
import torch
from IPython.testing.globalipapp import start_ipython
from IPython.utils.capture import capture_output
from matplotlib.backends.backend_agg import FigureCanvasAgg

from gaussreg_lab import figures


def luminance_under_deuteranopia(colour: str) -> np.ndarray:
    # Vienot, Brettel and Mollon (1999), in linear RGB
    linear = np.array(matplotlib.colors.to_rgb(colour)) ** 2.2
    matrix = [[0.29275, 0.70725, -0.02234], [0.29275, 0.70725, -0.02234], [-0.02234, 0.02234, 1.0]]
    return np.clip(np.array(matrix) @ linear, 0, 1) ** (1 / 2.2)


def test_looks_differ_in_colour_line_and_marker():
    for key in ("color", "linestyle", "marker"):
        assert len({str(look[key]) for look in figures.LOOKS}) == len(figures.LOOKS)


def test_the_first_looks_differ_for_the_colour_blind():
    seen = [luminance_under_deuteranopia(look["color"]) for look in figures.LOOKS]
    for i in range(len(seen)):
        for j in range(i):
            assert np.abs(seen[i] - seen[j]).max() > 0.1


def test_text_is_twelve_points_or_more():
    sizes = [value for key, value in figures.STYLE.items() if key.endswith("size") and "figure" not in key]
    assert min(size for size in sizes if size > 6) >= 12


def test_a_curve_goes_through_its_points_with_its_band():
    _, (ax,) = figures.new_figure()
    x, y, error = torch.linspace(0, 1, 5), torch.linspace(1, 2, 5), torch.full((5,), 0.1)
    assert figures.curve(ax, x, y, error, label="a", look=1) is ax
    np.testing.assert_allclose(ax.lines[0].get_xydata(), torch.stack([x, y], 1).numpy())
    heights = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert heights.max() == pytest.approx(2.1)
    assert heights.min() == pytest.approx(0.9)
    assert ax.lines[0].get_linestyle() == "--"


def test_bars_reach_their_heights():
    _, (ax,) = figures.new_figure()
    figures.bars(ax, torch.arange(3), torch.tensor([0.1, 0.5, 0.9]))
    tops = [segment[1, 1] for segment in ax.collections[0].get_segments()]
    assert tops == pytest.approx([0.1, 0.5, 0.9])
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [0.1, 0.5, 0.9], rtol=1e-6)


def test_dots_stand_in_their_rows_from_the_top_down():
    _, (ax,) = figures.new_figure()
    assert figures.rows(ax, ["first", "second"]) is ax
    x, error = torch.tensor([0.25, 0.75]), torch.tensor([0.1, 0.2])
    assert figures.dots(ax, x, error, label="a", look=2) is ax
    ((line, _, (bars,)),) = ax.containers
    np.testing.assert_allclose(line.get_xydata(), [[0.25, 0], [0.75, 1]])
    assert (line.get_marker(), line.get_linestyle()) == ("^", "None")
    ends = [segment[:, 0] for segment in bars.get_segments()]
    np.testing.assert_allclose(ends, [[0.15, 0.35], [0.55, 0.95]], rtol=1e-6)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["first", "second"]
    top, bottom = (ax.transData.transform((0, row))[1] for row in (0, 1))
    assert top > bottom


def test_a_picture_shows_noise_beyond_paper_and_ink():
    _, (ax,) = figures.new_figure()
    figures.picture(figures.frame(ax, "digit"), torch.tensor([[[-0.4, 1.4], [0.0, 1.0]]]))
    (mesh,) = ax.collections
    shades = mesh.to_rgba(mesh.get_array())[..., 0]
    assert len(np.unique(shades)) == 4  # none of the four is cut off to another
    assert shades[0, 0] > shades[1, 0] > shades[1, 1] > shades[0, 1]  # larger is darker


def test_a_picture_is_what_imshow_shows():
    figure, axes = figures.new_figure((1, 1), size=(6, 3))
    image = torch.rand(1, 8, 8)
    figures.picture(figures.frame(axes[0], ""), image)
    figures.frame(axes[1], "").imshow(image[0].numpy(), vmin=-0.5, vmax=1.5, cmap="gray_r")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    assert axes[0].viewLim.bounds == axes[1].viewLim.bounds
    pixels, height = np.asarray(canvas.buffer_rgba()), canvas.get_width_height()[1]
    for row, column in product(range(8), range(8)):  # at the centre of each square
        seen = []
        for ax in axes:
            right, up = ax.transData.transform((column, row))
            seen.append(int(pixels[int(height - up), int(right), 0]))
        assert abs(seen[0] - seen[1]) <= 1  # of 255 shades: one of the two rounds in double precision


def test_points_stand_on_their_errors():
    _, (ax,) = figures.new_figure()
    x, y, error = torch.tensor([1.0, 3.0]), torch.tensor([0.5, 0.25]), torch.tensor([0.125, 0.25])
    assert figures.points(ax, x, y, error, label="a", look=1) is ax
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[1, 0.5], [3, 0.25]])
    (upright,) = ax.collections
    assert [part.tolist() for part in upright.get_segments()] == [
        [[1, 0.375], [1, 0.625]],
        [[3, 0], [3, 0.5]],
    ]


def test_gradients_may_hang_on_what_is_drawn():
    _, (ax,) = figures.new_figure()
    x = torch.linspace(0, 1, 3, requires_grad=True)
    for function in (figures.curve, figures.points, figures.bars):
        function(ax, x, x)


def test_show_gives_picture_and_sentence():
    start_ipython()
    figure, (ax,) = figures.new_figure(size=(3, 2))
    ax.plot([0, 1])
    with capture_output() as captured:
        figures.show(figure, "A rising line.")
    (output,) = captured.outputs
    assert output.data["text/plain"] == "A rising line."
    assert output.data["image/png"].startswith("iVBOR")  # a PNG in base64
    assert output.metadata["image/png"] == {"width": 300, "height": 200}
    assert captured.stdout == "A rising line.\n"


def test_new_figures_leave_no_pyplot_figure_and_no_changed_style():
    import matplotlib.pyplot as plt

    before = dict(matplotlib.rcParams)
    figures.new_figure((1, 2))
    assert plt.get_fignums() == []
    assert dict(matplotlib.rcParams) == before
