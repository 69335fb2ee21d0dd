"""Every formula of the course becomes MathML that browsers draw, and no TeX is left."""

import re
import sys
from xml.etree import ElementTree

import nbformat
import pytest
from course import NOTEBOOKS

from gaussreg_lab.formulas import mathml

CORE = {
    "math", "mrow", "mi", "mn", "mo", "mtext", "mspace", "mfrac", "msqrt", "msub", "msup", "msubsup",
    "munder", "mover", "munderover", "mtable", "mtr", "mtd", "mstyle", "mpadded",
    "menclose",  # not of Core: the style sheet draws the box
}  # fmt: skip


def parts(tex: str) -> list[tuple[str, str]]:
    """Every token of a formula: what it is, and what it says."""
    tree = ElementTree.fromstring(mathml(tex))
    return [(it.tag.split("}")[1], it.text) for it in tree.iter() if it.text]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_every_formula_of_the_course_is_of_mathml_core(path):
    cells = nbformat.read(path, as_version=4).cells
    prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    for block, inline in re.findall(r"\$\$(.+?)\$\$|\$([^$]+?)\$", prose, re.S):
        tree = ElementTree.fromstring(mathml(block or inline, block=bool(block)))
        assert {it.tag.split("}")[1] for it in tree.iter()} <= CORE
        assert not re.search(r"[\\$&{}]", "".join(tree.itertext()).replace("{", "", 1))
        assert {it.get("mathvariant", "normal") for it in tree.iter()} == {"normal"}
        assert tree.get("display") == ("block" if block else "inline")


@pytest.mark.parametrize(
    ("tex", "letter"),
    [
        (r"\mathbf w", "𝐰"),
        (r"\mathbf J", "𝐉"),
        (r"\mathbf 1", "𝟏"),
        (r"\mathbb E", "𝔼"),
        (r"\mathbb P", "ℙ"),
        (r"\boldsymbol\mu", "𝝁"),
        (r"\boldsymbol\varepsilon", "𝜺"),
        (r"\boldsymbol\Delta", "𝜟"),
    ],
)
def test_letters_of_another_alphabet_are_characters_of_their_own(tex, letter):
    assert [text for _tag, text in parts(tex)] == [letter]


@pytest.mark.parametrize(
    ("tex", "is_sign"), [("-a", True), ("(-a)", True), ("t > -a", True), ("b - a", False), ("(b) - a", False)]
)
def test_a_minus_is_a_sign_or_a_difference(tex, is_sign):
    (minus,) = (it for it in ElementTree.fromstring(mathml(tex)).iter() if it.text == "\N{MINUS SIGN}")
    assert minus.get("form") == ("prefix" if is_sign else None)


def test_is_distributed_as_is_a_relation():
    assert ("mo", "\N{TILDE OPERATOR}") in parts(r"n \sim N(0, 1)")


def test_what_is_no_formula_is_refused():
    with pytest.raises(ValueError, match=r"Expected a formula .*left"):
        mathml(r"\nosuchthing x")
    with pytest.raises(ValueError, match=r"Expected a formula in TeX, got '.{1,2}left"):
        mathml(r"\left( a")


def test_without_latex2mathml_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "latex2mathml", None)
    with pytest.raises(ImportError, match="pip install latex2mathml"):
        mathml("x")
