"""What `progress` prints is what `check` has said, the best of it, and at first nothing."""

import pytest

from gaussreg_lab import exercises, standing
from gaussreg_lab.exercises import GRADERS, check, progress
from gaussreg_lab.standing import account, note
from gaussreg_lab.verdicts import NOT_ATTEMPTED, RIGHT, WRONG

LIFT = 0.5 / (2 * 3.14159265) ** 0.5


@pytest.fixture(autouse=True)
def _from_zero():
    standing.forget()
    yield
    standing.forget()


def test_a_new_kernel_has_attempted_nothing(capsys):
    progress("01")
    assert capsys.readouterr().out == (
        "Lesson 01: 0 of 5 exercises right.\nNot attempted yet: 1.1, 1.2, 1.3, 1.4, 1.5.\n"
    )


def test_every_exercise_belongs_to_one_lesson(capsys):
    progress()
    told = capsys.readouterr().out
    assert [line.split(":")[0] for line in told.splitlines()[::2]] == [f"Lesson {n:02d}" for n in range(9)]
    assert all(told.count(f"{exercise}") == 1 for exercise in GRADERS)


def test_check_is_remembered(capsys):
    check("1.1", LIFT)
    check("1.3", 0.2)
    check("1.4", ...)
    capsys.readouterr()
    progress("01")
    assert capsys.readouterr().out == (
        "Lesson 01: 1 of 5 exercises right.\nNot yet: 1.3. Not attempted yet: 1.2, 1.4, 1.5.\n"
    )


def test_what_was_right_stays_right_and_what_was_tried_stays_tried(capsys):
    for answer in (LIFT, 0.0, ...):
        check("1.1", answer)
    for answer in (0.2, None):
        check("1.3", answer)
    capsys.readouterr()
    progress("01")
    assert "1 of 5" in capsys.readouterr().out
    assert account("01", ["1.3"]).endswith("Not yet: 1.3.")


def test_all_right():
    assert [note(exercise, RIGHT) for exercise in ("9.1", "9.2")] == [None, None]
    assert account("09", ["9.1", "9.2"]) == "Lesson 09: all 2 exercises right."
    assert account("09", ["9.1"]) == "Lesson 09: solved."


def test_states_in_every_order_end_in_the_best():
    for first in (NOT_ATTEMPTED, WRONG, RIGHT):
        for second in (NOT_ATTEMPTED, WRONG, RIGHT):
            standing.forget()
            note("9.1", first)
            note("9.1", second)
            told = account("09", ["9.1"])
            assert ("solved" in told) == (RIGHT in (first, second))
            assert ("Not yet" in told) == (WRONG in (first, second) and RIGHT not in (first, second))


def test_an_unknown_lesson_is_refused():
    with pytest.raises(ValueError, match=r"one of the lessons .*'08'.* got '9'"):
        exercises.progress("9")
