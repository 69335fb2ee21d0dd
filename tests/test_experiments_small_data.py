"""The study of small data: grid and choices are the record's, its runs give the recorded numbers."""

import pytest
from rerun import expect_equal, from_record

from gaussreg_lab.datasets import digits
from gaussreg_lab.experiments.small_data import SIZES, _images, _setting, run, small_data
from gaussreg_lab.records import recorded


def test_the_study_is_the_recorded_one():
    about, results = from_record(small_data, "digits", "gradients_digits")
    record = recorded("gradients_digits")
    assert results == record["runs"]
    shared = about.keys() & record["about"].keys()
    assert {name: about[name] for name in shared} == {name: record["about"][name] for name in shared}


def test_the_study_on_mnist_is_the_recorded_one(mnist_root):
    assert from_record(small_data, "mnist", "small_data", mnist_root)[1] == recorded("small_data")["runs"]


@pytest.mark.parametrize("method", ["dropout", "SpectReg"])
def test_a_run_gives_the_recorded_numbers(method):
    key = f"{method}, 200 images | seed 0"
    weight = recorded("gradients_digits")["runs"][key]["weight"]
    # equal to the last digit on the processor that made the record; another one rounds otherwise
    expect_equal(run, _setting(SIZES["digits"], 200, method, weight), "gradients_digits", key, tolerance=0.03)


def test_a_run_on_mnist_gives_the_recorded_numbers(mnist_root):
    setting = _setting(SIZES["mnist"], 200, "plain", 0.0)
    expect_equal(run, setting, "gradients_mnist", "plain, 200 images | seed 0", 0.03, mnist_root)


def test_what_is_chosen_by_is_never_trained_on():
    tried, held = _images(digits(), 200, 400, "validation", seed=0)
    seen = {image.numpy().tobytes() for image in held.x}
    assert len(held.y) == 400
    assert not seen & {image.numpy().tobytes() for image in tried.x}
    for seed in range(3):
        train, test = _images(digits(), 1000, 400, "test", seed)
        assert len(train.y) == 1000
        assert not seen & {image.numpy().tobytes() for image in train.x}
        assert len(test.y) == 355
