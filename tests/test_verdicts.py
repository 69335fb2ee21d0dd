"""An answer as a number, whatever a student may have written."""

import math

import pytest
import torch

from gaussreg_lab.verdicts import number


@pytest.mark.parametrize("answer", [0.5, "0.5", torch.tensor(0.5), torch.tensor([0.5])])
def test_what_is_a_number_is_one(answer):
    assert number(answer) == 0.5


@pytest.mark.parametrize("answer", ["a lot", [0.5, 0.6], {}, object()])
def test_what_is_no_number_is_nan(answer):
    assert math.isnan(number(answer))
