"""The glossary has every symbol of the lessons' displayed formulas, and says truly where each is introduced."""

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


def test_there_are_rows():
    assert len(ROWS) >= 40
    assert all(all(row) for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=[re.sub(r"\W+", "_", row[0]) for row in ROWS])
def test_a_symbol_appears_first_in_the_lesson_that_is_named(row):
    symbols, lesson, link = row[0], row[4], row[5]
    assert (ROOT / "notebooks" / link).exists()
    assert link.startswith(lesson)
    for symbol in parts(symbols):
        stem = (
            symbol.replace(r" \cdot ", " ").replace(r"\lVert \rVert", r"\lVert").removesuffix("(\\mu, s^2)")
        )
        if "_F" in stem:
            stem = r"\rVert_F"
        assert stem.split("(")[0] in FORMULAS[lesson] or lesson == "00", symbol


@pytest.mark.parametrize("lesson", FORMULAS)
def test_every_greek_letter_of_a_lesson_stands_in_the_glossary(lesson):
    known = {letter for row in ROWS for letter in re.findall(GREEK, row[0])}
    assert set(re.findall(GREEK, FORMULAS[lesson])) <= known | PASSING


def test_names_in_the_code_exist():
    import gaussreg_lab as lab

    words = {word for row in ROWS for word in re.findall(r"`([a-z]+_[a-z_]+|[A-Z]\w+)", row[2])}
    # arguments, not names of the package
    assert {word for word in words if not hasattr(lab, word)} <= {"inner_lr"}
