"""How far a student has come: what `check` has said of each exercise since the kernel began.

`check` notes its verdicts here; the last cell of every lesson asks for its own:

    lab.progress("03")
    Lesson 03: 1 of 3 exercises right.
    Not yet: 3.2. Not attempted yet: 3.3.

What was right once stays right: who tries another way afterwards has solved the exercise all the same.
Nothing is written to disk, so a new kernel begins at zero, for the student and for whoever checks the lesson.

Lesson: the end of each
"""

from collections.abc import Iterable

from gaussreg_lab.verdicts import NOT_ATTEMPTED, RIGHT, WRONG

_reached: dict[str, str] = {}  # exercise: its best state so far


def note(exercise: str, state: str) -> None:
    """Remember a verdict of `check`; what was right stays right, what was tried stays tried."""
    order = (NOT_ATTEMPTED, WRONG, RIGHT)
    _reached[exercise] = max(state, _reached.get(exercise, NOT_ATTEMPTED), key=order.index)


def forget() -> None:
    """Begin again at zero, as a new kernel does."""
    _reached.clear()


def account(lesson: str, exercises: Iterable[str]) -> str:
    """How many of a lesson's exercises are right, and which are left, in two lines at most.

    lesson: its two digits. exercises: their numbers, in order.

    >>> account("42", ["42.1", "42.2"])
    'Lesson 42: 0 of 2 exercises right.\\nNot attempted yet: 42.1, 42.2.'
    """
    exercises = list(exercises)
    by_state = {
        state: [it for it in exercises if _reached.get(it, NOT_ATTEMPTED) == state]
        for state in (RIGHT, WRONG, NOT_ATTEMPTED)
    }
    right = len(by_state.pop(RIGHT))
    if right == len(exercises):
        return f"Lesson {lesson}: all {right} exercises right." if right > 1 else f"Lesson {lesson}: solved."
    left = " ".join(f"{state.capitalize()}: {', '.join(them)}." for state, them in by_state.items() if them)
    return f"Lesson {lesson}: {right} of {len(exercises)} exercises right.\n{left}"
