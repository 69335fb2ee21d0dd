"""A figure that is redrawn quickly: the still parts once, the moving parts over them.

Drawing a matplotlib figure takes some 40 ms, and nearly all of it goes into what never moves:
axes, ticks, labels, grid. So the picture is drawn once without its moving artists, kept as
pixels, and each frame restores these pixels and draws the moving artists over them ("blitting").
A legend lies above what moves and takes as long as all of it, so it is kept as pixels, too.

No pyplot: a Figure with an Agg canvas of its own leaves no global state and no open figure.

Lesson: none of its own; every panel stands on it.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gaussreg_lab.png import encoded

T = TypeVar("T")


class Blitter:
    """The pictures of one figure, whose moving artists are whatever `draw` adds to its axes.

    figure: a matplotlib Figure with all that stands still: axes, limits, labels, fixed curves.
    Its layout is settled once and then kept.

    >>> figure = Figure(figsize=(2, 1), dpi=50)
    >>> axes = figure.subplots()
    >>> blitter = Blitter(figure)
    >>> blitter.draw(lambda: axes.plot([0, 1], [0, 1]))
    [<matplotlib.lines.Line2D object at ...>]
    >>> blitter.png()[:4]
    b'\\x89PNG'
    """

    def __init__(self, figure: Figure) -> None:
        self.figure = figure
        self._canvas = FigureCanvasAgg(figure)
        self._moving: list[Artist] = []
        self._still_look: tuple | None = None
        self._background = None
        self._legends: list[Sheet] = []

    def draw(self, draw: Callable[[], T]) -> T:
        """Replace the moving artists by those that draw() adds, and return what it returns.

        Should it raise, the moving artists stay as they were.
        """
        axes = self.figure.axes
        for ax in axes:
            ax.set_autoscale_on(False)
        before = [set(map(id, ax.get_children())) for ax in axes]
        try:
            result = draw()
        except BaseException:
            _remove(_added(axes, before))
            raise
        _remove(self._moving)
        self._moving = _added(axes, before)
        return result

    def png(self) -> bytes:
        """The figure as it stands, as a PNG of figsize * dpi pixels."""
        look = tuple(_still_look(ax) for ax in self.figure.axes)
        if look != self._still_look:  # limits or words have changed: the background is out of date
            self._draw_background()
            self._still_look = look
        self._canvas.restore_region(self._background)
        for artist in sorted([*self._moving, *_spines(self.figure)], key=Artist.get_zorder):
            artist.axes.draw_artist(artist)
        pixels = np.asarray(self._canvas.buffer_rgba())
        for legend in self._legends:
            legend.lay_over(pixels)
        return encoded(pixels)

    def _draw_background(self) -> None:
        if self._background is None:
            self._canvas.draw()  # lets a layout engine place everything, moving artists included
            self.figure.set_layout_engine("none")
        legends = _legends(self.figure)
        for artist in [*self._moving, *_spines(self.figure), *legends]:
            artist.set_animated(True)  # leaves it out of the next draw
        self._legends = [self._drawn_alone(legend) for legend in legends]
        self._canvas.draw()
        self._background = self._canvas.copy_from_bbox(self.figure.bbox)

    def _drawn_alone(self, artist: Artist) -> "Sheet":
        renderer = self._canvas.get_renderer()
        renderer.clear()  # to nothing, which lets all of the paper through
        artist.draw(renderer)
        pixels = np.asarray(renderer.buffer_rgba())
        place = tuple(_extent(pixels[..., 3].any(axis=axis)) for axis in (1, 0))
        opacity = pixels[place][..., 3:] / 255
        return Sheet(place, opacity * pixels[place][..., :3], 1 - opacity)


class Sheet(NamedTuple):
    """Where in a picture it lies, the RGB of its own ink, and the share that it lets through."""

    place: tuple[slice, slice]
    ink: np.ndarray
    clear: np.ndarray

    def lay_over(self, picture: np.ndarray) -> None:
        """Change opaque pixels of shape (height, width, 4) to those seen through the sheet."""
        below = picture[self.place][..., :3]
        below[...] = np.rint(self.ink + self.clear * below)


def _extent(inked: np.ndarray) -> slice:
    """From the first row or column with ink on it to the last."""
    places = np.flatnonzero(inked)
    return slice(places.min(initial=len(inked)), places.max(initial=-1) + 1)


def _spines(figure: Figure) -> list[Artist]:
    """The frames of the axes, which stand still but lie above moving artists."""
    return [spine for ax in figure.axes for spine in ax.spines.values() if spine.get_visible()]


def _legends(figure: Figure) -> list[Artist]:
    legends = (ax.get_legend() for ax in figure.axes)
    return [legend for legend in legends if legend is not None and legend.get_visible()]


def _still_look(ax: Axes) -> tuple:
    words = (ax.get_title(), ax.get_title("left"), ax.get_xlabel(), ax.get_ylabel())
    return (*ax.get_xlim(), *ax.get_ylim(), *words, ax.get_legend())


def _added(axes: list[Axes], before: list[set[int]]) -> list[Artist]:
    return [
        artist
        for ax, known in zip(axes, before, strict=True)
        for artist in ax.get_children()
        if id(artist) not in known and artist is not ax.get_legend()
    ]


def _remove(artists: list[Artist]) -> None:
    for artist in artists:
        artist.remove()
