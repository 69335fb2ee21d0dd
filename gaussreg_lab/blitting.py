"""A figure that is redrawn quickly: the still parts once, the moving parts over them.

Drawing a matplotlib figure takes some 40 ms, and nearly all of it goes into what never moves:
axes, ticks, labels, grid. So the picture is drawn once without its moving artists, kept as
pixels, and each frame restores these pixels and draws the moving artists over them ("blitting").
What is left is the PNG: quick at compression level 1.

No pyplot: a Figure with an Agg canvas of its own leaves no global state and no open figure.

Lesson: none of its own; every panel stands on it.
"""

import io
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

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
        for artist in sorted([*self._moving, *self._frames()], key=Artist.get_zorder):
            artist.axes.draw_artist(artist)
        pixels = io.BytesIO()
        Image.fromarray(np.asarray(self._canvas.buffer_rgba())).convert("RGB").save(
            pixels, "PNG", compress_level=1
        )
        return pixels.getvalue()

    def _draw_background(self) -> None:
        if self._background is None:
            self._canvas.draw()  # lets a layout engine place everything, moving artists included
            self.figure.set_layout_engine("none")
        for artist in [*self._moving, *self._frames()]:
            artist.set_animated(True)  # leaves it out of the next draw
        self._canvas.draw()
        self._background = self._canvas.copy_from_bbox(self.figure.bbox)

    def _frames(self) -> list[Artist]:
        """What stands still but lies above moving artists: spines and legends."""
        return [
            artist
            for ax in self.figure.axes
            for artist in (*ax.spines.values(), ax.get_legend())
            if artist is not None and artist.get_visible()
        ]


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
