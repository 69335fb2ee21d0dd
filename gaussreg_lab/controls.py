"""The controls of a panel: ipywidgets with words on them, made to be moved by keyboard.

Sliders have coarse steps, so that forty key presses cross them, and a readout with as many digits
as tell two steps apart; an exact value can be typed into it. In JupyterLab arrow keys to the left and right
move a slider, Space ticks a box and opens a list, Enter presses a button. (Arrow keys up and down
are JupyterLab's own, but in an open list.)

Lesson: notebooks/00_start_here.ipynb
"""

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal

import ipywidgets as widgets

STEPS = 40  # from one end of a slider to the other
WIDGET = "application/vnd.jupyter.widget-view+json"  # what a live page shows as a widget
WORDS_IN_FULL = {"description_width": "initial"}


def slider(
    label: str, low: float, high: float, value: float, steps: int = STEPS, log: bool = False
) -> widgets.Widget:
    """A slider from low to high in `steps` equal steps; with log=True in equal factors.

    label: words, with the unit. Raises ValueError unless low < high and low <= value <= high,
    all finite, and positive for log.

    >>> slider("noise sigma (pixel units)", 0, 1, 0.25).step
    0.025
    """
    if not (low < high and low <= value <= high and math.isfinite(high - low)):
        raise ValueError(
            f"Expected low <= value <= high and low < high, got {low}, {value}, {high} for {label!r}"
        )
    look = {"description": label, "style": WORDS_IN_FULL, "layout": widgets.Layout(width="400px")}
    if log:
        if low <= 0:
            raise ValueError(f"Expected low > 0 for a logarithmic slider, got {low} for {label!r}")
        low, high = math.log10(low), math.log10(high)
        return _explained(
            widgets.FloatLogSlider(
                value=value, min=low, max=high, step=(high - low) / steps, readout_format=".3g", **look
            )
        )
    step = (high - low) / steps
    digits = min(3, -Decimal(f"{step:.4g}").as_tuple().exponent)  # enough to tell two steps apart
    return _explained(
        widgets.FloatSlider(value, min=low, max=high, step=step, readout_format=f".{max(0, digits)}f", **look)
    )


def whole_slider(label: str, low: int, high: int, value: int) -> widgets.Widget:
    """A slider over the whole numbers from low to high.

    >>> whole_slider("which digit", 0, 9, 3).value
    3
    """
    if not low <= value <= high:
        raise ValueError(f"Expected low <= value <= high, got {low}, {value}, {high} for {label!r}")
    layout = widgets.Layout(width="400px")
    return _explained(
        widgets.IntSlider(value, low, high, description=label, style=WORDS_IN_FULL, layout=layout)
    )


def choice(label: str, options: Sequence[str] | Mapping[str, object], value: object = None) -> widgets.Widget:
    """One of several options; a mapping shows its keys and gives its values.

    >>> choice("network", ["plain", "noisy"]).value
    'plain'
    """
    pairs = list(options.items()) if isinstance(options, Mapping) else [(it, it) for it in options]
    start = pairs[0][1] if value is None else value
    return widgets.Dropdown(options=pairs, value=start, description=label, style=WORDS_IN_FULL)


def tick(label: str, value: bool = False) -> widgets.Widget:
    """A box to tick.

    >>> tick("check by sampling").value
    False
    """
    return widgets.Checkbox(value, description=label, indent=False, layout=widgets.Layout(width="auto"))


def _explained(it: widgets.Widget) -> widgets.Widget:
    """Under the mouse, the label in full; ipywidgets 8 would show the word null, 7 does this by itself."""
    if it.has_trait("tooltip"):
        it.tooltip = it.description
    return it


def live_view(widget: widgets.Widget) -> dict[str, object]:
    """The part of a display bundle that a live notebook shows as this widget."""
    view = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
    return {WIDGET: view}


def expect_in_range(name: str, value: object, control: widgets.Widget) -> None:
    """Raise ValueError for a value that the control called `name` cannot show."""
    if isinstance(control, widgets.Dropdown):
        known = [option[1] for option in control.options]  # pairs (words, value), as `choice` makes them
        if value not in known:
            raise ValueError(f"Expected {name} to be one of {known}, got {value!r}")
        return
    if isinstance(control, widgets.FloatSlider | widgets.IntSlider):
        low, high = control.min, control.max
    elif isinstance(control, widgets.FloatLogSlider):
        low, high = control.base**control.min, control.base**control.max
    else:
        return  # other widgets refuse by themselves what they do not know
    slack = 1e-9 * (high - low)  # 10 ** log10(0.3) may miss 0.3 by a rounding
    if not low - slack <= value <= high + slack:
        raise ValueError(f"Expected {name} between {low:g} and {high:g}, got {value}")
