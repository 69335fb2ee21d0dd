"""The noise study: its grid and choices are those of the record, its runs give the recorded numbers."""

import pytest
import torch
from rerun import expect_equal, from_record
from torch.nn.functional import cross_entropy as torch_cross_entropy

from gaussreg_lab.datasets import Images
from gaussreg_lab.experiments.noise import SIGMA, SIZES, _setting, frozen_folds, loss_of, noise, run
from gaussreg_lab.models import mlp
from gaussreg_lab.records import recorded


def test_the_study_is_the_recorded_one():
    about, results = from_record(noise, "digits", "noise_digits")
    record = recorded("noise_digits")
    assert results == record["runs"]
    assert {name: about[name] for name in about.keys() & record["about"].keys()} == {
        name: record["about"][name] for name in about.keys() & record["about"].keys()
    }
    assert about["trace weight"] == 4.0


def test_the_grid_on_mnist_is_the_recorded_one(mnist_root):
    about, results = from_record(noise, "grid", "noise_grid", mnist_root)
    assert results == recorded("noise_grid")["runs"]
    assert about["test images"] == 2000
    assert "trace weight" not in about  # chosen where methods are compared


def test_a_run_of_the_grid_gives_the_recorded_numbers(mnist_root):
    setting = _setting(SIZES["grid"], "paper", alpha=1.0, sigma=0.5, why="grid")
    key = "paper, alpha 1, sigma 0.5 | seed 0"
    expect_equal(run, setting, "noise_grid", key, tolerance=0.03, root=mnist_root)


@pytest.mark.parametrize(
    ("key", "setting"),
    [
        ("plain | seed 0", _setting(SIZES["digits"], "plain")),
        ("1 frozen folds | seed 2", {**_setting(SIZES["digits"], "frozen folds", count=1), "epochs": 10}),
        ("1 fresh fold | seed 2", _setting(SIZES["digits"], "fresh folds", count=1)),
    ],
)
def test_a_run_gives_the_recorded_numbers(key, setting):
    # equal to the last digit on the processor that made the record; another one rounds otherwise
    expect_equal(run, setting, "noise_digits", key, tolerance=0.02)


def test_fresh_folds_weigh_the_image_and_its_copies_alike():
    model, x, y = mlp((64, 10)), torch.rand(5, 1, 8, 8), torch.arange(5)
    loss = loss_of("fresh folds", torch.Generator().manual_seed(7), count=3)(model, x, y)
    noise_images = torch.randn(15, 1, 8, 8, generator=torch.Generator().manual_seed(7))
    copies = x.repeat(3, 1, 1, 1) + SIGMA * noise_images
    by_hand = torch_cross_entropy(model(torch.cat([x, copies])), torch.cat([y, y.repeat(3)]))
    torch.testing.assert_close(loss, by_hand)


def test_frozen_copies_share_one_noise_image_each():
    train = Images(torch.rand(4, 1, 8, 8), torch.arange(4))
    x, y = frozen_folds(train, count=2)
    assert torch.equal(x[:4], train.x)
    assert torch.equal(y, train.y.repeat(3))
    for copy in (x[4:8], x[8:]):
        noise_image = (copy - train.x) / SIGMA
        assert torch.allclose(noise_image, noise_image[:1].expand_as(noise_image), atol=1e-6)
    assert not torch.allclose(x[4:8], x[8:])
