"""Drawing: functions (ax, tensors) -> ax that know how things look and nothing of what they mean.

Colours are Okabe and Ito's, told apart by colour-blind readers, and never alone: each comes with
a line style and a marker of its own. Text is 12 points or more, to be read from the last row.
Figures are made without pyplot, so none stays open; `show` puts one on the page with a sentence
that says what is in it.

Lesson: none of its own; every figure of the course comes from here.
"""

import base64
import io
import textwrap
from collections.abc import Sequence

import matplotlib
import numpy as np
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

BLUE, ORANGE, GREEN, RED, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7"
LOOKS = (
    {"color": BLUE, "linestyle": "-", "marker": "o"},
    {"color": RED, "linestyle": "--", "marker": "s"},
    {"color": GREEN, "linestyle": "-.", "marker": "^"},
    {"color": ORANGE, "linestyle": ":", "marker": "D"},
    {"color": PURPLE, "linestyle": (0, (5, 1, 1, 1, 1, 1)), "marker": "v"},
)
LINE = 100  # letters; JupyterLab would break a longer line anywhere, in the middle of a word
SCREEN_DPI = 100  # a figure of 9 inches is 900 pixels wide on the page, however sharp its own dpi makes it
STYLE = {
    "figure.dpi": 144,  # sharper than it is shown
    "figure.figsize": (9.0, 3.2),
    "font.size": 12,
    "axes.titlesize": 13,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "axes.axisbelow": True,
    "axes.prop_cycle": matplotlib.cycler(color=[look["color"] for look in LOOKS]),
    "lines.linewidth": 2,
    "lines.markersize": 6,
    "legend.frameon": False,
    "image.cmap": "gray_r",  # ink on paper
}


def new_figure(
    widths: Sequence[float] = (1.0,), size: tuple[float, float] = (9.0, 3.2)
) -> tuple[Figure, list[Axes]]:
    """A figure in the course's style, with one axes for each relative width, side by side.

    size: width and height in inches; 9 fills a notebook's column.

    >>> figure, (left, right) = new_figure((1, 2))
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(1, len(widths), gridspec_kw={"width_ratios": list(widths)}, squeeze=False)
    return figure, list(axes[0])


def show(figure: Figure, sentence: str) -> None:
    """Put a figure on the page, and below it a sentence that says what it shows.

    The sentence is for those who cannot see the picture, and for those who are not sure what
    to look at. Notebooks give pictures no alternative text of their own.
    """
    png = io.BytesIO()
    figure.savefig(png, format="png")
    width, height = (round(inches * SCREEN_DPI) for inches in figure.get_size_inches())
    display(
        {"image/png": base64.b64encode(png.getvalue()).decode(), "text/plain": sentence},
        metadata={"image/png": {"width": width, "height": height}},
        raw=True,
    )
    print(textwrap.fill(sentence, LINE))


def picture(ax: Axes, image: Tensor) -> Axes:
    """A grey image (height, width) or (1, height, width), as ink on paper: larger is darker.

    The greys run from -0.5 to 1.5, so that noise around paper (0) and ink (1) is not cut off.

    A mesh of squares and not `imshow`, which takes three times as long for a few pixels shown large.
    """
    inks = _values(image.squeeze())
    down, right = (np.arange(count + 1) - 0.5 for count in inks.shape)  # pixels' centres at whole numbers
    ax.pcolormesh(right, down, inks, vmin=-0.5, vmax=1.5, cmap=STYLE["image.cmap"])
    ax.set(xlim=right[[0, -1]], ylim=down[[-1, 0]], aspect="equal")
    return ax


def frame(ax: Axes, title: str) -> Axes:
    """An axes without ticks and with a border all around, for pictures."""
    ax.set(xticks=[], yticks=[], title=title)
    ax.spines[:].set_visible(True)
    ax.grid(False)
    return ax


def curve(
    ax: Axes, x: Tensor, y: Tensor, error: Tensor | None = None, label: str = "", look: int = 0
) -> Axes:
    """A curve y over x, all 1-D, with a band of one `error` to either side; look: which of LOOKS."""
    style = {**LOOKS[look], "marker": None}
    ax.plot(_values(x), _values(y), label=label or None, **style)
    if error is not None:
        low, high = _values(y - error), _values(y + error)
        ax.fill_between(_values(x), low, high, color=style["color"], alpha=0.2, linewidth=0)
    return ax


def points(
    ax: Axes, x: Tensor, y: Tensor, error: Tensor | None = None, label: str = "", look: int = 0
) -> Axes:
    """Markers at (x, y), 1-D, each with an upright line of one `error` to either side."""
    style = {**LOOKS[look], "linestyle": "none"}
    ax.plot(_values(x), _values(y), label=label or None, **style)
    if error is not None:
        ax.vlines(_values(x), _values(y - error), _values(y + error), color=style["color"])
    return ax


def bars(ax: Axes, x: Tensor, heights: Tensor, label: str = "", look: int = 0, width: float = 8.0) -> Axes:
    """Thin upright bars, 1-D, each with a marker on top; width in points.

    One line collection instead of a rectangle for each bar: quick enough for a slider.
    """
    style = LOOKS[look]
    at, tops = _values(x), _values(heights)
    ax.vlines(at, 0, tops, color=style["color"], linewidth=width, alpha=0.55)
    return points(ax, x, heights, label=label, look=look)


def rows(ax: Axes, names: Sequence[str]) -> Axes:
    """One row for each name, from the top down; what is drawn in them comes from `dots`."""
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    return ax


def dots(ax: Axes, x: Tensor, error: Tensor, label: str = "", look: int = 0) -> Axes:
    """A marker in each row at x, 1-D, from the top down, with a bar of one `error` to either side."""
    style = {**LOOKS[look], "linestyle": "none", "capsize": 3}
    ax.errorbar(_values(x), range(len(x)), xerr=_values(error), label=label or None, **style)
    return ax


def _values(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()
