"""Colours, greys and letters that everyone can tell apart and read, on paper and on JupyterLab's pages.

What a screen reader is told and what the keyboard reaches is tested in test_browser.py, on live panels.
Contrast is WCAG 2.2's (https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio): text needs 4.5, lines need 3.
"""

import ast
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import matplotlib
import nbformat
import numpy as np
import pytest
from course import NOTEBOOKS, ROOT
from lab_in_browser import CHROMIUM, START, LabPage, LivePanel, chromium, served_lab

from gaussreg_lab import figures

TEXT, LINES = 4.5, 3.0
# Okabe and Ito, Color Universal Design (2008)
OKABE_ITO = {"#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#000000"}
# Machado, Oliveira and Fernandes, A Physiologically-based Model for Simulation of Color Vision Deficiency
# (2009), table for severity 1, in linear RGB
BLINDNESS = {
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
TO_XYZ = [  # of sRGB, IEC 61966-2-1
    [0.4124, 0.3576, 0.1805],
    [0.2126, 0.7152, 0.0722],
    [0.0193, 0.1192, 0.9505],
]

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.parent.name + path.stem)


def linear(colour: str | tuple) -> np.ndarray:
    """Linear RGB of an sRGB colour."""
    rgb = np.array(matplotlib.colors.to_rgb(colour))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def contrast(one: str | tuple, other: str | tuple = "white") -> float:
    low, high = sorted(linear(it) @ TO_XYZ[1] for it in (one, other))
    return (high + 0.05) / (low + 0.05)


def seen(colour: str, blindness: str | None = None) -> np.ndarray:
    """CIELAB coordinates, in which a distance of about 2 can just be told, by eyes of all kinds."""
    rgb = linear(colour) if blindness is None else np.array(BLINDNESS[blindness]) @ linear(colour)
    t = np.array(TO_XYZ) @ np.clip(rgb, 0, 1) / np.sum(TO_XYZ, axis=1)
    x, y, z = np.where(t > (6 / 29) ** 3, np.cbrt(t), t * (29 / 6) ** 2 / 3 + 4 / 29)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def distance(one: str, other: str, blindness: str | None = None) -> float:
    return float(np.linalg.norm(seen(one, blindness) - seen(other, blindness)))


def test_the_measures_agree_with_what_is_published():
    assert contrast("black") == pytest.approx(21)
    assert contrast("#767676") == pytest.approx(4.54, abs=0.01)  # the lightest grey for text on white
    np.testing.assert_allclose(seen("red"), [53.2, 80.1, 67.2], atol=0.1)
    for kind, matrix in BLINDNESS.items():
        np.testing.assert_allclose(np.sum(matrix, axis=1), 1, atol=1e-5)  # greys stay as they are
        assert distance("#777777", "#777777", kind) == 0
    assert distance("#E00000", "#707000", "deuteranopia") < 0.4 * distance("#E00000", "#707000")


def test_the_colours_of_looks_are_okabe_and_itos_and_come_with_line_and_marker():
    assert {look["color"] for look in figures.LOOKS} <= OKABE_ITO
    for one, other in combinations(figures.LOOKS, 2):
        assert all(one[key] != other[key] for key in ("color", "linestyle", "marker"))


@pytest.mark.parametrize("kind", [None, *BLINDNESS])
def test_looks_differ_in_colour_for_all_eyes(kind):
    for one, other in combinations([look["color"] for look in figures.LOOKS], 2):
        assert distance(one, other, kind) > 10, (one, other)


def coloured(tree: ast.AST) -> Iterator[tuple[str, bool]]:
    """Every grey or colour given as a word, and whether it is for text."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            for_text = isinstance(node.func, ast.Attribute) and node.func.attr in ("text", "annotate")
            named = [(it.arg, it.value) for it in node.keywords]
        elif isinstance(node, ast.Dict):
            for_text = False
            named = [(it.value, to) for it, to in zip(node.keys, node.values, strict=True) if is_word(it)]
        else:
            continue
        for name, value in named:
            if name and re.search("colou?rs?$", name):
                parts = value.elts if isinstance(value, ast.List | ast.Tuple) else [value]
                yield from ((it.value, for_text) for it in parts if is_word(it))


def is_word(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def trees(path: Path) -> list[ast.AST]:
    return [ast.parse(it.source) for it in nbformat.read(path, as_version=4).cells if it.cell_type == "code"]


@every_notebook
def test_notebooks_use_the_course_s_colours_black_white_and_greys_that_are_seen(path):
    for tree in trees(path):
        for word, for_text in coloured(tree):
            if word != "white":  # paper
                assert re.fullmatch(r"black|[01]|0?\.\d+", word), word
                assert contrast(word) >= (TEXT if for_text else LINES), word


@every_notebook
def test_notebooks_name_no_colour_anywhere_else(path):
    known = {*matplotlib.colors.CSS4_COLORS, *matplotlib.colors.TABLEAU_COLORS} - {"black", "white"}
    for tree in trees(path):
        words = {node.value for node in ast.walk(tree) if is_word(node)}
        assert not words & known
        assert not [word for word in words if re.fullmatch(r"#[0-9a-fA-F]{6}|C\d", word)]


def test_the_package_names_colours_in_one_place():
    other = {"#E4E4E4", "#a00000"}  # the grid, which no one needs to see; errors where there is no theme
    for file in (ROOT / "gaussreg_lab").rglob("*.py"):
        named = set(re.findall(r"#[0-9a-fA-F]{6}\b", file.read_text()))
        assert named <= (OKABE_ITO | other if file.name in ("figures.py", "panels.py") else set()), file.name
    assert contrast("#a00000") >= TEXT


@every_notebook
def test_maps_of_colour_keep_their_order_for_the_colour_blind(path):
    """Lightness runs one way, or to and fro in maps with a middle; so it does for everyone."""
    for tree in trees(path):
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg == "cmap" and is_word(node.value):
                colours = matplotlib.colormaps[node.value.value](np.linspace(0, 1, 33))[:, :3]
                steps = np.diff([seen(tuple(it), "deuteranopia")[0] for it in colours])
                halves = (steps[:16], steps[16:]) if node.value.value == "PuOr" else (steps,)
                assert all((half > 0).all() or (half < 0).all() for half in halves), node.value.value


def test_words_in_figures_are_twelve_points_or_more():
    with matplotlib.rc_context(figures.STYLE):
        figure, (ax,) = figures.new_figure()
        ax.plot([0, 1], label="a line")
        ax.set(title="title", xlabel="x", ylabel="y")
        legend = ax.legend()
    figure.draw_without_rendering()
    words = [ax.title, ax.xaxis.label, ax.yaxis.label, *ax.get_xticklabels(), *legend.get_texts()]
    assert len(words) > 6
    assert min(it.get_fontsize() for it in words) >= 12


@every_notebook
def test_no_notebook_writes_smaller_or_makes_letters_shrink(path):
    for tree in trees(path):
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg in ("fontsize", "labelsize", "titlesize"):
                assert ast.literal_eval(node.value) >= 12
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "new_figure":
                for size in (ast.literal_eval(it.value) for it in node.keywords if it.arg == "size"):
                    assert size[0] <= 9  # inches: a wider one shrinks on the page of a small projector


PANEL = """
import gaussreg_lab as lab
figure, (axes,) = lab.new_figure()
def draw(level, kind, thick):
    if level > 0.9:
        raise ValueError("too high")
    axes.axhline(level, linestyle=kind, linewidth=4 if thick else 2)
    return f"A line at {level:.2f}."
kind = lab.choice("kind", {"drawn through": "-", "broken": "--"})
lab.explore(draw, figure, level=(0, 1, 0.85), kind=kind, thick=False, presets={"low": {"level": 0.1}})
"""
ON_PAGE = """it => {
    const behind = [];
    for (let at = it; at; at = at.parentElement) behind.push(getComputedStyle(at).backgroundColor);
    return [getComputedStyle(it).color, ...behind];
}"""


def rgba(css: str) -> tuple[np.ndarray, float]:
    red, green, blue, *alpha = (float(it) for it in re.findall(r"[\d.]+", css))
    return np.array([red, green, blue]) / 255, alpha[0] if alpha else 1.0


def contrast_on_page(element) -> float:
    """Of an element's letters on all that shines through behind them."""
    letters, *behind = element.evaluate(ON_PAGE)
    paper = np.ones(3)
    for css in reversed(behind):
        colour, alpha = rgba(css)
        paper = alpha * colour + (1 - alpha) * paper
    ink, alpha = rgba(letters)
    return contrast(tuple(alpha * ink + (1 - alpha) * paper), tuple(paper))


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium, or set CHROMIUM")
def test_a_panel_can_be_read_on_light_and_dark_pages(tmp_path):
    pytest.importorskip("playwright.sync_api", reason="pip install playwright drives the browser")
    with served_lab(tmp_path) as address, chromium(tmp_path) as browser:
        page = LabPage(browser, address, START)
        panel = LivePanel(page, page.scroll_to(page.run_below(PANEL), "img.widget-image"))
        panel.press(panel.sliders[0], *["ArrowRight"] * 6)
        error = panel.output.locator("[role=alert]")
        error.wait_for()
        assert "ValueError: too high" in error.inner_text()
        labels = panel.output.locator("label:visible, .widget-readout, select, button").all()
        assert len(labels) >= 7
        for theme, light in (("JupyterLab Light", True), ("JupyterLab Dark", False)):
            page.use_theme(theme, light)
            for element in (panel.sentence, error, *labels):
                assert contrast_on_page(element) >= TEXT, (theme, element.evaluate("it => it.outerHTML"))
        page.close()
