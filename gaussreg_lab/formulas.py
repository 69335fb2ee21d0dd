r"""Formulas on a page without scripts: TeX becomes MathML, which browsers draw themselves.

    mathml(r"\mathbb E[z^2]")   ->   <math><mrow><mi>𝔼</mi><mo>[</mo> ... </math>

latex2mathml does the work. Browsers follow MathML Core, which is smaller than what it writes, so
three things are put right: letters in bold or double-struck become characters of their own
(Core has no `mathvariant` for them), a minus sign behind another sign is a sign and not a
difference, and bars and function names stand close to what they belong to.

Source: W3C, MathML Core, sections 3.2.4 (operators) and C (mathvariant).
Lesson: none of its own; the handout writes all formulas of the course with it.
"""

import unicodedata
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

ALPHABETS = {
    "bold": "MATHEMATICAL BOLD",
    "bold-italic": "MATHEMATICAL BOLD ITALIC",
    "double-struck": "MATHEMATICAL DOUBLE-STRUCK",
}
MINUS, SIGNS = "\N{MINUS SIGN}", "-+\N{MINUS SIGN}\N{PLUS-MINUS SIGN}"
CLOSING = ")]}|\N{DOUBLE VERTICAL LINE}\N{MATHEMATICAL RIGHT ANGLE BRACKET}\N{PRIME}"
FUNCTIONS = {"exp", "log", "sin", "cos"}
INVISIBLE = {"mspace"}
BARS, TILDE, THIN = "|\N{DOUBLE VERTICAL LINE}", "\N{TILDE OPERATOR}", "0.17em"


def mathml(tex: str, block: bool = False) -> str:
    """A formula as a MathML element; block: on a line of its own.

    Raises ImportError where latex2mathml is not installed, ValueError for what it cannot read.

    >>> mathml(r"\\mathbf w")
    '<math display="inline" xmlns="http://www.w3.org/1998/Math/MathML"><mrow><mi>𝐰</mi></mrow></math>'
    """
    formula = _parsed(tex, "block" if block else "inline")
    for row in list(formula.iter()):
        _mend_signs(row)
        _mend_spaces(row)
    for letter in formula.iter():
        _mend_alphabet(letter)
    return ElementTree.tostring(formula, encoding="unicode")


def _parsed(tex: str, display: str) -> Element:
    try:
        from latex2mathml import converter
    except ImportError as error:
        raise ImportError(
            "Expected latex2mathml, which turns formulas into MathML: pip install latex2mathml"
        ) from error
    try:
        written = converter.convert(tex, display=display)
    except Exception as error:
        raise ValueError(f"Expected a formula in TeX, got {tex!r}: {error!r}") from error
    formula = ElementTree.fromstring(written.replace(' xmlns="http://www.w3.org/1998/Math/MathML"', ""))
    left = [part.text for part in formula.iter() if "\\" in (part.text or "")]
    if left:
        raise ValueError(f"Expected a formula that latex2mathml knows, got {tex!r}: {left} is left of it")
    formula.set("xmlns", "http://www.w3.org/1998/Math/MathML")
    return formula


def _mend_signs(row: Element) -> None:
    before = None
    for part in row:
        if part.tag in INVISIBLE:
            continue
        if part.tag == "mo" and part.text == "-":
            part.text = MINUS
        if part.tag == "mo" and part.text in SIGNS and _is_open(before):
            part.set("form", "prefix")
        before = part


def _is_open(before: Element | None) -> bool:
    """Whether what stands before a sign leaves it nothing to be subtracted from."""
    return before is None or (before.tag == "mo" and before.text not in CLOSING)


def _mend_spaces(row: Element) -> None:
    for before, part, after in zip([None, *row], [*row], [*row, None][1:], strict=False):
        if part.text == "~" or part.text in FUNCTIONS:  # written as if they were variables
            part.tag, part.text = "mo", part.text.replace("~", TILDE)
        if part.tag != "mo" or not part.text:
            continue
        if part.text in BARS:
            part.set("stretchy", "false")
            _set_spaces(part, "0", "0")
        elif part.text == TILDE:
            _set_spaces(part, "0.28em", "0.28em")
        elif len(part.text) > 1 and part.text.isalpha():  # max, exp, trace
            bracketed = after is not None and (after.text or "") in ("(", "[")
            _set_spaces(part, "0" if _is_open(before) else THIN, "0" if bracketed else THIN)


def _set_spaces(part: Element, left: str, right: str) -> None:
    part.set("lspace", left)
    part.set("rspace", right)


def _mend_alphabet(letter: Element) -> None:
    name = ALPHABETS.get(letter.get("mathvariant", ""))
    if name and letter.text:
        letter.text = "".join(_in_alphabet(name, it) for it in letter.text)
        del letter.attrib["mathvariant"]


def _in_alphabet(name: str, character: str) -> str:
    words = unicodedata.name(character, "").replace("LATIN ", "").replace("GREEK ", "")
    words = words.replace(" LETTER", "")  # LATIN SMALL LETTER W -> SMALL W
    for known in (f"{name} {words}", f"{name.removeprefix('MATHEMATICAL ')} {words}"):
        try:
            return unicodedata.lookup(known)
        except KeyError:
            continue
    return character
