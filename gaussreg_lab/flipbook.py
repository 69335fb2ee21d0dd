"""A flipbook: one slider of a panel on a page where no kernel runs, from pictures drawn beforehand.

    words = flipbook(panel, "sigma")          # the panel at 21 positions of this control, as HTML

A range input, a picture, a sentence and a dozen lines of script, no library and no request. The
keyboard moves it, a screen reader hears the sentence, and where scripts are off the page shows the
panel as it stood. Each picture is reduced to the size it has on the screen and to 64 colours: plots
of a few hues on white lose little that an eye finds, and 21 of them take about 300 kB.

Lesson: none of its own; the handout has one for every panel of the course.
"""

import base64
import html
import io
import json
from collections.abc import Sequence
from typing import NamedTuple

import ipywidgets as widgets
from PIL import Image

from gaussreg_lab.controls import expect_in_range
from gaussreg_lab.figures import SCREEN_DPI
from gaussreg_lab.panels import Panel

COLOURS = 64
SCRIPT = """(() => {
  const book = document.currentScript.parentElement;
  const pages = JSON.parse(book.querySelector('script[type="application/json"]').textContent);
  const [picture, words, slider, shown] =
    ['img', '[role=status]', 'input', 'output'].map(part => book.querySelector(part));
  const turn = () => {
    const page = pages[slider.value];
    picture.src = page.picture;
    picture.alt = words.textContent = page.sentence;
    shown.textContent = page.position;
    slider.setAttribute('aria-valuetext', page.position);
  };
  slider.addEventListener('input', turn);
  turn();  // a browser may have kept the slider's place from an earlier visit
  slider.closest('p').hidden = false;
})();"""


class Frame(NamedTuple):
    """One page of a flipbook: the position in words, the picture as a data URI, and its sentence."""

    position: str
    picture: str
    sentence: str


def flipbook(panel: Panel, name: str, count: int = 21) -> str:
    """HTML of a slider that leafs through the panel's pictures along one of its controls.

    name: of a slider, a whole slider, a logarithmic one, a choice or a tick. count: of positions, at
    most; they are the slider's own, from end to end. The other controls, and in the end this one
    too, stay where they were. Raises ValueError for an unknown name or fewer than 2 positions.

    >>> from matplotlib.figure import Figure
    >>> from gaussreg_lab.panels import explore
    >>> figure = Figure(figsize=(2, 1))
    >>> axes = figure.subplots()
    >>> draw = lambda at: f"A line at {axes.axhline(at).get_ydata()[0]:.1f}."
    >>> panel = explore(draw, figure, at=(0, 1, 0.5))
    >>> html = flipbook(panel, "at", count=3)
    >>> panel.summary(), html.count("<img"), html.count("A line at 1.0.")
    ('A line at 0.5.', 1, 1)
    """
    control = _control(panel, name)
    where = positions(control, count)
    pages = frames(panel, name, where)
    return _as_html(control.description, pages, where.index(control.value), _size_on_screen(panel))


def still(picture: str, sentence: str, size: tuple[int, int] | None = None) -> str:
    """HTML of one picture, a data URI, with its sentence below it and as its alternative text."""
    return f'<figure class="panel">{_picture(picture, sentence, size)}{_words(sentence)}</figure>'


def positions(control: widgets.Widget, count: int) -> list:
    """At most count values of the control, evenly spaced over its own steps, its present one among them."""
    if count < 2:
        raise ValueError(f"Expected count of at least 2, got {count}")
    every, value = _every_position(control), control.value
    kept = range(len(every))
    if len(every) > count:
        kept = [round(it * (len(every) - 1) / (count - 1)) for it in range(count)]
    where = [every[place] for place in kept]
    if value not in where:  # it takes the place of its neighbour
        present = every.index(value) if value in every else _nearest(every, value)
        where[_nearest(kept, present)] = value
    return where


def frames(panel: Panel, name: str, where: list) -> list[Frame]:
    """The panel at each value of one control; afterwards it stands where it was, whatever happens."""
    before = panel.state()
    found = []
    try:
        for value in where:
            panel.set(**{name: value})
            picture = data_uri(panel.png(), _size_on_screen(panel))
            found.append(Frame(_in_words(panel.controls[name], value), picture, panel.summary()))
    finally:
        panel.set(**before)
    return found


def data_uri(png: bytes, size: tuple[int, int]) -> str:
    """A PNG as a lossless WebP of size (width, height) pixels in few colours, to be written into a page.

    No dots are mixed from the colours that are left: lines stay lines.
    """
    with Image.open(io.BytesIO(png)) as full:
        small = full.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    few = small.quantize(COLOURS, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    packed = io.BytesIO()
    few.convert("RGB").save(packed, "WEBP", lossless=True)
    return f"data:image/webp;base64,{base64.b64encode(packed.getvalue()).decode()}"


def _nearest(numbers: Sequence[float], to: float) -> int:
    return min(range(len(numbers)), key=lambda it: abs(numbers[it] - to))


def _control(panel: Panel, name: str) -> widgets.Widget:
    if name not in panel.controls:
        raise ValueError(f"Expected one of the controls {sorted(panel.controls)}, got {name!r}")
    return panel.controls[name]


def _every_position(control: widgets.Widget) -> list:
    if isinstance(control, widgets.Dropdown):
        return [value for _words, value in control.options]
    if isinstance(control, widgets.Checkbox):
        return [False, True]
    if not hasattr(control, "step"):
        raise ValueError(f"Expected a slider, a choice or a tick, got {type(control).__name__}")
    steps = round((control.max - control.min) / control.step)
    along = [control.min + it * control.step for it in range(steps)] + [control.max]
    if isinstance(control, widgets.FloatLogSlider):
        along = [control.base**it for it in along]
    elif isinstance(control, widgets.FloatSlider):
        along = [round(it, 12) for it in along]  # 0.15, not 0.15000000000000002
    for value in along:
        expect_in_range(control.description, value, control)
    return [control.value if abs(it - control.value) <= 1e-9 * abs(it) else it for it in along]


def _in_words(control: widgets.Widget, value: object) -> str:
    if isinstance(control, widgets.Dropdown):
        return next(words for words, option in control.options if option == value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return format(value, getattr(control, "readout_format", "") or "")


def _size_on_screen(panel: Panel) -> tuple[int, int]:
    width, height = panel.figure.get_size_inches()
    return round(width * SCREEN_DPI), round(height * SCREEN_DPI)


def _as_html(label: str, pages: list[Frame], start: int, size: tuple[int, int]) -> str:
    # a closing tag inside a sentence would end the script that carries it
    carried = json.dumps([page._asdict() for page in pages], ensure_ascii=False).replace("<", "\\u003c")
    shown = pages[start]
    slider = (
        f'<p class="control" hidden><label>{html.escape(label)} '
        f'<input type="range" min="0" max="{len(pages) - 1}" step="1" value="{start}" autocomplete="off">'
        f"</label> <output>{html.escape(shown.position)}</output></p>"
    )
    return (
        f'<figure class="panel flipbook">{slider}{_picture(shown.picture, shown.sentence, size)}'
        f"{_words(shown.sentence)}"
        f'<script type="application/json">{carried}</script><script>{SCRIPT}</script></figure>'
    )


def _picture(picture: str, sentence: str, size: tuple[int, int] | None) -> str:
    shape = f' width="{size[0]}" height="{size[1]}"' if size else ""
    return f'<img src="{picture}" alt="{html.escape(sentence)}"{shape}>'


def _words(sentence: str) -> str:
    return f'<figcaption role="status" aria-live="polite">{html.escape(sentence)}</figcaption>'
