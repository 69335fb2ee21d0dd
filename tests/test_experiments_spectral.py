"""The study of caps: its grid and choices are those of the record, its runs give the recorded numbers."""

import pytest
import torch
from rerun import expect_equal, from_record

from gaussreg_lab.experiments.bench import images_of
from gaussreg_lab.experiments.spectral import SIZES, _setting, run, spectral
from gaussreg_lab.records import recorded


def test_the_study_is_the_recorded_one():
    about, results = from_record(spectral, "digits", "attacks_digits")
    record = recorded("attacks_digits")
    assert results == record["runs"]
    for name in ("radius", "gamma", "steps", "training images", "test images", "validation images"):
        assert about[name] == record["about"][name]


def test_the_study_on_mnist_is_the_recorded_one(mnist_root):
    about, results = from_record(spectral, "mnist", "attacks_mnist", mnist_root)
    assert results == recorded("attacks_mnist")["runs"]
    assert about["gamma"] == recorded("attacks_mnist")["about"]["gamma"]


def test_the_study_of_the_convolutional_network_is_the_recorded_one(mnist_root):
    about, results = from_record(spectral, "convnet", "spectral_convnet", mnist_root)
    record = recorded("spectral_convnet")
    assert results == record["runs"]
    assert about["chosen caps"] == record["about"]["chosen caps"]
    assert about["training images"] == 1000


def test_a_run_of_the_convolutional_network_gives_the_recorded_numbers(mnist_root):
    setting = _setting(SIZES["convnet"], "FGM", None)
    expect_equal(run, setting, "spectral_convnet", "FGM | seed 0", tolerance=0.03, root=mnist_root)


def test_a_run_gives_the_recorded_numbers():
    # equal to the last digit on the processor that made the record; another one rounds otherwise
    setting = _setting(SIZES["digits"], "ERM", None)
    expect_equal(run, setting, "attacks_digits", "ERM | seed 0", tolerance=0.02)


def test_a_run_with_caps_comes_near_the_recorded_numbers():
    """Caps follow another number of directions than when the record was made: nearly the same accuracies."""
    torch.manual_seed(1)
    got = run(**_setting(SIZES["digits"], "FGM", 2.0), seed=1)
    wanted = recorded("attacks_digits")["runs"]["FGM with caps | seed 1"]
    for field in ("training accuracy", "test accuracy", "clean test accuracy"):
        assert got[field] == pytest.approx(wanted[field], abs=0.02)
    assert got["Lipschitz bound"] <= 1.05 * wanted["Lipschitz bound"]


def test_images_to_learn_from_to_choose_by_and_to_judge_by_are_apart():
    train, held, test = images_of("digits", None, 400, 100, None)
    assert (len(train.y), len(held.y), len(test.y)) == (1042, 400, 100)
    seen = {image.numpy().tobytes() for image in held.x}
    assert not seen & {image.numpy().tobytes() for image in train.x}
