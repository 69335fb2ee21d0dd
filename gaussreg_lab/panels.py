"""A panel: sliders, a picture that follows them, and a sentence that says what it shows.

    def draw(mean, sigma):                     # adds what moves to axes that stand still
        axes.plot(...)
        return f"At sigma {sigma:.2f} ..."     # the picture in words

    panel = explore(draw, figure, mean=slider("mean", -2, 2, 0), sigma=(0, 1, 0.3))
    panel                                      # as the last line of a cell: shows it
    panel.set(sigma=0.5)                       # the same by hand, in tests and in lessons
    print(panel.summary())

The figure is blitted into an image of fixed size: the page never jumps, and a key press is on
the screen within some 50 ms, a third of what ipywidgets' `interact` needs. In a notebook
that is read without a kernel the same output shows the picture as it was last seen.

Lesson: notebooks/00_start_here.ipynb
"""

import base64
import html
import inspect
import traceback
from collections.abc import Callable, Iterable, Mapping

import ipywidgets as widgets
from IPython.display import display
from matplotlib.figure import Figure

from gaussreg_lab.blitting import Blitter
from gaussreg_lab.controls import expect_in_range, live_view, slider, tick
from gaussreg_lab.figures import SCREEN_DPI


def explore(
    draw: Callable[..., str],
    figure: Figure,
    /,
    *,
    presets: Mapping[str, Mapping[str, object]] | None = None,
    **controls: widgets.Widget | tuple | bool,
) -> "Panel":
    """A panel whose controls carry the names of draw's arguments.

    draw: called with the controls' values by name; adds what moves to the figure's axes, and
    returns one sentence that says what the picture shows. Its artists live until the next call.
    figure: with all that stands still, limits included.
    presets: positions worth trying, as {words: {name: value, ...}}; each becomes a button.
    controls: made by `slider`, `whole_slider`, `choice`, `tick`; or short (low, high, value),
    True or False, labelled by their names.

    Raises TypeError when controls and arguments do not match, or draw returns no sentence.

    >>> figure = Figure(figsize=(4, 2))
    >>> axes = figure.subplots(subplot_kw={"xlim": (0, 1), "ylim": (0, 1)})
    >>> def draw(level):
    ...     axes.axhline(level)
    ...     return f"A line at {level:.2f}."
    >>> panel = explore(draw, figure, level=(0, 1, 0.5))
    >>> panel.set(level=0.75)
    >>> panel.summary()
    'A line at 0.75.'
    """
    return Panel(draw, figure, {name: _control(name, it) for name, it in controls.items()}, presets or {})


class Panel:
    """What `explore` returns: a picture with its controls, on the screen and from Python.

    widget: the ipywidgets box, to be put into other boxes. controls: the widgets by name.
    figure: what it is drawn on.
    """

    def __init__(
        self,
        draw: Callable[..., str],
        figure: Figure,
        controls: dict[str, widgets.Widget],
        presets: Mapping[str, Mapping[str, object]],
    ) -> None:
        _expect_same_names(draw, controls)
        self.controls, self.figure = controls, figure
        self._draw = draw
        self._blitter = Blitter(figure)
        self._following = True
        self._sentence = ""
        width, height = (f"{round(inches * SCREEN_DPI)}px" for inches in figure.get_size_inches())
        # both sizes are fixed, so that nothing below moves while a picture changes; a page that is
        # too narrow shows all of it smaller
        box = widgets.Layout(width=width, height=height, max_width="100%", object_fit="contain")
        self._image = widgets.Image(format="png", layout=box)
        self._words = widgets.HTML(layout=widgets.Layout(width=width, max_width="98%", min_height="3.6em"))
        self._error = widgets.HTML(layout=widgets.Layout(width=width, max_width="98%"))
        self._redraw()
        self._start = self.state()
        for name, preset in presets.items():
            self._expect_known(preset, f"presets[{name!r}]")
        for control in controls.values():
            control.observe(self._moved, names="value")
        self.widget = widgets.VBox(
            [_row(controls.values()), self._image, self._words, self._error, _row(self._buttons(presets))]
        )

    def set(self, **values: object) -> None:
        """Move controls, all at once, and redraw; the same as by hand.

        Raises ValueError for a name that is no control or a value out of its range; an error
        in drawing is raised too, and then the controls stay where they were.
        """
        self._expect_known(values, "set")
        before = self.state()
        try:
            self._place(values)
            self._redraw()
        except BaseException:
            self._place(before)
            raise

    def state(self) -> dict[str, object]:
        """The value of every control by name."""
        return {name: control.value for name, control in self.controls.items()}

    def summary(self) -> str:
        """The sentence below the picture: what it shows, in words and numbers."""
        return self._sentence

    def reset(self) -> None:
        """Move every control back to where it was at first."""
        self.set(**self._start)

    def png(self) -> bytes:
        """The picture now shown."""
        return self._image.value

    def _ipython_display_(self) -> None:
        # one output for three readers: a live page, a page without kernel, a text-only reader
        picture = base64.b64encode(self.png()).decode()
        display({**live_view(self.widget), "image/png": picture, "text/plain": self.summary()}, raw=True)

    def _moved(self, _change: object) -> None:
        if self._following:
            self._redraw()

    def _redraw(self) -> None:
        try:
            sentence = self._blitter.draw(lambda: self._draw(**self.state()))
            if not isinstance(sentence, str):
                raise TypeError(f"Expected draw to return one sentence, got {type(sentence).__name__}")
            picture = self._blitter.png()
        except Exception as error:
            # moved in a browser, an exception would be seen by nobody: show it below the picture
            self._error.value = _as_error(error)
            raise
        self._sentence = sentence
        self._image.value = picture
        self._words.value = f'<div role="status" aria-live="polite">{html.escape(sentence)}</div>'
        self._error.value = ""

    def _place(self, values: Mapping[str, object]) -> None:
        self._following = False  # one drawing for all of them, afterwards
        try:
            for name, value in values.items():
                self.controls[name].value = value
        finally:
            self._following = True

    def _buttons(self, presets: Mapping[str, Mapping[str, object]]) -> list[widgets.Widget]:
        def button(words: str, values: Mapping[str, object]) -> widgets.Widget:
            it = widgets.Button(description=words, layout=widgets.Layout(width="auto"))
            it.on_click(lambda _: self.set(**values))
            return it

        invitation = [widgets.Label("Try:")] if presets else []
        tries = [button(words, values) for words, values in presets.items()]
        return [*invitation, *tries, button("Reset", self._start)]

    def _expect_known(self, values: Mapping[str, object], where: str) -> None:
        for name, value in values.items():
            if name not in self.controls:
                raise ValueError(f"Expected one of {sorted(self.controls)} in {where}, got {name!r}")
            expect_in_range(name, value, self.controls[name])


def _row(parts: Iterable[widgets.Widget]) -> widgets.Widget:
    return widgets.HBox(list(parts), layout=widgets.Layout(flex_flow="row wrap"))


def _control(name: str, given: widgets.Widget | tuple | bool) -> widgets.Widget:
    if isinstance(given, widgets.Widget):
        return given
    if isinstance(given, bool):
        return tick(name, given)
    if isinstance(given, tuple) and len(given) == 3:
        return slider(name, *given)
    raise TypeError(f"Expected {name} to be a control, (low, high, value), True or False, got {given!r}")


def _expect_same_names(draw: Callable, controls: Mapping[str, object]) -> None:
    wanted = list(inspect.signature(draw).parameters)
    if sorted(wanted) != sorted(controls):
        raise TypeError(f"Expected a control for each of draw's arguments {wanted}, got {list(controls)}")


def _as_error(error: Exception) -> str:
    lines = html.escape("".join(traceback.format_exception_only(type(error), error)).strip())
    # JupyterLab's own red is another one on its dark page
    style = "color: var(--jp-error-color1, #a00000); white-space: pre-wrap"
    return f'<pre role="alert" style="{style}">{lines}</pre>'
