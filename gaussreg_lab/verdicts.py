"""What a grader says of an answer: its state, and a sentence that helps.

Lesson: none of its own; the exercises of all.
"""

from typing import NamedTuple

NOT_ATTEMPTED, WRONG, RIGHT = "not attempted yet", "not yet", "right"


class Verdict(NamedTuple):
    """NOT_ATTEMPTED, WRONG or RIGHT, and a sentence that helps."""

    state: str
    sentence: str


def number(answer: object) -> float:
    """The answer as a number, nan if it is none.

    >>> number("0.5"), number("a lot")
    (0.5, nan)
    """
    try:
        return float(answer)
    except (TypeError, ValueError):
        return float("nan")
