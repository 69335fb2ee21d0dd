"""The glossary has every Greek letter of the lessons' formulas, and a lesson where each symbol stands."""

import re

import nbformat
import pytest
from course import LESSONS, ROOT

GLOSSARY = (ROOT / "notebooks" / "GLOSSARY.md").read_text()
# symbol | say | in the code | meaning | lesson
ROWS = re.findall(r"^\| (.*\$.*?) \| (.*?) \| (.*?) \| (.*?) \| \[(\d\d)\]\((\S+)\) \|$", GLOSSARY, re.M)
GREEK = (
    r"\\(?:boldsymbol\s*\\)?(alpha|beta|gamma|delta|epsilon|varepsilon|zeta|eta|theta|lambda|mu|nu|xi|rho|sigma|"
    r"tau|phi|varphi|psi|omega|kappa|Phi|Psi|Sigma|Omega|Delta|Lambda|Theta|Gamma)\b"
)
# letters of a single derivation, told where they are used
PASSING = {"tau"}


def formulas(lesson) -> str:
    cells = nbformat.read(lesson, as_version=4).cells
    prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return "\n".join("".join(found) for found in re.findall(r"\$\$(.+?)\$\$|\$([^$]+?)\$", prose, re.S))


FORMULAS = {lesson.stem[:2]: formulas(lesson) for lesson in LESSONS}


def parts(symbol: str) -> list[str]:
    r"""The symbols of one row, without their dollars: "$\mu$, $\mathbf S$" has two."""
    return re.findall(r"\$(.+?)\$", symbol)


def occurs(symbol: str, text: str) -> bool:
    r"""Whether a symbol stands in formulas by itself: s does in "s^2" and in "\mathbf s", not in "\sigma"."""
    head = symbol.partition("(")[0]  # N(\mu, s^2) with any mean and variance
    pattern = r".+?".join(re.escape(part.strip()) for part in head.split(r"\cdot"))  # norms of whatever it is
    return re.search(rf"(?<![\\a-zA-Z]){pattern}(?![a-zA-Z])", text) is not None


def test_there_are_rows():
    assert len(ROWS) >= 40
    assert all(all(row) for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=[re.sub(r"\W+", "_", row[0]) for row in ROWS])
def test_a_symbol_stands_in_the_lesson_that_is_named(row):
    symbols, lesson, link = row[0], row[4], row[5]
    assert (ROOT / "notebooks" / link).exists()
    assert link.startswith(lesson)
    for symbol in parts(symbols):
        assert occurs(symbol, FORMULAS[lesson]), symbol


def test_a_letter_inside_a_name_is_no_symbol():
    assert occurs("s", "s^2")
    assert not occurs("s", r"\sigma + \mathrm{softmax}(z)")
    assert occurs(r"\lVert \cdot \rVert_F", r"\lVert \mathbf J \rVert_F^2")
    assert not occurs(r"\lVert \cdot \rVert_F", r"\lVert \mathbf J \rVert")


@pytest.mark.parametrize("lesson", FORMULAS)
def test_every_greek_letter_of_a_lesson_stands_in_the_glossary(lesson):
    known = {letter for row in ROWS for letter in re.findall(GREEK, row[0])}
    assert set(re.findall(GREEK, FORMULAS[lesson])) <= known | PASSING


def test_names_in_the_code_exist():
    import gaussreg_lab as lab

    words = {word for row in ROWS for word in re.findall(r"`([a-z]+_[a-z_]+|[A-Z]\w+)", row[2])}
    # arguments, not names of the package
    assert {word for word in words if not hasattr(lab, word)} <= {"inner_lr"}
