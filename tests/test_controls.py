"""Controls have words, sensible steps and honest limits."""

import pytest

from gaussreg_lab.controls import choice, slider, whole_slider


def test_forty_key_presses_cross_a_slider():
    it = slider("noise sigma", 0, 2, 0.5)
    assert (it.max - it.min) / it.step == pytest.approx(40)


@pytest.mark.parametrize(
    ("low", "high", "steps", "shown"), [(0, 1, 20, ".2f"), (0, 1, 40, ".3f"), (0, 40, 40, ".0f")]
)
def test_a_readout_tells_two_steps_apart(low, high, steps, shown):
    assert slider("level", low, high, low, steps=steps).readout_format == shown


@pytest.mark.parametrize(
    ("low", "high", "value"), [(1, 0, 0.5), (0, 1, 2), (0, float("nan"), 0), (0, float("inf"), 1)]
)
def test_a_slider_refuses_an_impossible_range(low, high, value):
    with pytest.raises(ValueError, match="low <= value <= high"):
        slider("level", low, high, value)


def test_a_logarithmic_slider_refuses_zero():
    with pytest.raises(ValueError, match="low > 0"):
        slider("level", 0, 1, 0.5, log=True)


def test_a_whole_slider_refuses_a_value_outside():
    with pytest.raises(ValueError, match="low <= value <= high"):
        whole_slider("which digit", 0, 9, 10)


@pytest.mark.parametrize("it", [slider("noise sigma", 0, 1, 0.5), whole_slider("which digit", 0, 9, 3)])
def test_a_label_is_shown_in_full_under_the_mouse(it):
    assert not it.has_trait("tooltip") or it.tooltip == it.description  # ipywidgets 7 has no such trait


def test_a_choice_shows_words_and_gives_values():
    control = choice("network", {"plain": 1, "noisy": 2})
    assert control.value == 1
    control.label = "noisy"
    assert control.value == 2
