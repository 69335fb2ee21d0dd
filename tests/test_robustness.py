"""Accuracy and accuracy under noise, against classifiers whose accuracy is known exactly."""

import math

import mpmath as mp
import pytest
import torch
from torch import Tensor, nn

from gaussreg_lab.datasets import digits
from gaussreg_lab.models import lenet8
from gaussreg_lab.robustness import (
    BATCH,
    accuracy,
    accuracy_under_noise,
    folds_equivalent,
    gaussian_robustness,
    margins,
    noise_curve,
    predictions,
)


class Threshold(nn.Module):
    """Class 1 where the one pixel of an image is above `at`. Keeps its batches' sizes and its modes."""

    def __init__(self, at: float = 0.5) -> None:
        super().__init__()
        self.at = at
        self.sizes: list[int] = []
        self.modes: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        self.modes.append(self.training)
        return torch.cat([self.at - x, x - self.at], dim=1)


def line(count: int = 400) -> tuple[Tensor, Tensor]:
    """One-pixel images across the whole range, labelled by the threshold."""
    x = torch.linspace(0, 1, count)[:, None]
    return x, (x[:, 0] > 0.5).long()


def exact_chances(x: Tensor, sigma: float) -> Tensor:
    """The probability of each image in `line` to stay on its side of the threshold."""
    return torch.tensor([float(mp.ncdf(abs(value - 0.5) / sigma)) for value in x.flatten().tolist()])


# without noise


def test_accuracy_is_the_share_of_largest_logits_at_the_label():
    x, y = torch.tensor([[0.1], [0.4], [0.6], [0.9], [0.7]]), torch.tensor([0, 1, 1, 1, 0])
    assert accuracy(Threshold(), x, y) == 0.6


def test_accuracy_of_many_images_equals_that_of_one_batch():
    model, x = lenet8(), torch.rand(2 * BATCH + 345, 1, 8, 8)
    y = torch.randint(10, (len(x),))
    assert accuracy(model, x, y) == (model(x).argmax(dim=1) == y).sum().item() / len(y)


def test_many_images_are_judged_a_thousand_at_a_time():
    model = Threshold()
    accuracy(model, *line(2345))
    assert model.sizes == [1000, 1000, 345]


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_judged_in_evaluation_mode_and_put_back(training):
    model = Threshold().train(training)
    accuracy(model, *line())
    assert model.modes == [False]
    assert model.training is training


def test_layers_with_a_mode_of_their_own_are_put_back_too():
    model = lenet8().train()
    model[0].eval()
    accuracy(model, *digits().test)
    assert not model[0].training


def test_the_mode_is_put_back_after_an_error():
    model = lenet8().train()
    with pytest.raises(RuntimeError):
        accuracy(model, torch.zeros(2, 3, 8, 8), torch.zeros(2).long())
    assert model.training


def test_accuracy_needs_no_gradients():
    grads = []
    model = nn.Sequential(nn.Linear(1, 2))
    model.register_forward_hook(lambda module, inputs, output: grads.append(output.requires_grad))
    accuracy(model, *line())
    assert grads == [False]


@pytest.mark.parametrize(("images", "labels"), [(3, 2), (2, 3), (0, 0)])
def test_images_without_labels_are_refused(images, labels):
    message = f"as many images as labels and at least one, got {images} and {labels}"
    with pytest.raises(ValueError, match=message):
        accuracy(Threshold(), torch.zeros(images, 1), torch.zeros(labels).long())
    with pytest.raises(ValueError, match=message):
        accuracy_under_noise(Threshold(), torch.zeros(images, 1), torch.zeros(labels).long(), sigma=0.1)


# with noise


@pytest.mark.parametrize("sigma", [0.05, 0.3, 2.0])
def test_accuracy_under_noise_is_the_mean_normal_probability(sigma):
    x, y = line()
    chances = exact_chances(x, sigma)
    standard_error = (chances * (1 - chances)).sum().sqrt() / len(y) / math.sqrt(100)
    estimate = accuracy_under_noise(Threshold(), x, y, sigma, draws=100)
    assert abs((estimate.mean - chances.mean()) / standard_error) < 4.5


@pytest.mark.parametrize("sigma", [0.05, 0.3, 2.0])
def test_the_standard_error_is_that_of_independent_images(sigma):
    x, y = line()
    chances = exact_chances(x, sigma)
    theory = ((chances * (1 - chances)).sum().sqrt() / len(y) / math.sqrt(100)).item()
    estimate = accuracy_under_noise(Threshold(), x, y, sigma, draws=100)
    assert estimate.standard_error == pytest.approx(theory, rel=4.5 / math.sqrt(2 * 100))


def test_the_standard_error_of_two_draws_is_half_their_difference():
    first = accuracy_under_noise(Threshold(), *line(), sigma=0.3, draws=1).mean
    both = accuracy_under_noise(Threshold(), *line(), sigma=0.3, draws=2)
    second = 2 * both.mean - first
    assert first != second
    assert both.standard_error == pytest.approx(abs(first - second) / 2)


def test_a_single_draw_has_no_standard_error():
    assert math.isnan(accuracy_under_noise(Threshold(), *line(), sigma=0.3, draws=1).standard_error)


def test_five_draws_are_the_default():
    estimate = accuracy_under_noise(Threshold(), *line(), sigma=0.3)
    assert estimate == accuracy_under_noise(Threshold(), *line(), sigma=0.3, draws=5)


def test_no_noise_gives_the_plain_accuracy_without_error():
    model, test = lenet8(), digits().test
    assert accuracy_under_noise(model, *test, sigma=0.0, draws=3) == (accuracy(model, *test), 0.0)


def test_one_seed_repeats_the_estimate_and_another_does_not():
    first, second, other = (accuracy_under_noise(Threshold(), *line(), 0.3, seed=seed) for seed in (5, 5, 6))
    assert first == second != other


def test_noise_has_a_generator_of_its_own():
    before = torch.get_rng_state()
    accuracy_under_noise(Threshold(), *line(), sigma=0.3)
    assert torch.equal(torch.get_rng_state(), before)


def test_noise_does_not_depend_on_the_dtype_of_the_images():
    x, y = line()
    estimates = [
        accuracy_under_noise(Threshold(), x.to(dtype), y, 0.3) for dtype in (torch.float32, torch.double)
    ]
    assert estimates[0] == estimates[1]


@pytest.mark.parametrize(("pixel", "threshold"), [(0.0, -0.2), (1.0, 1.2)])
def test_noise_on_black_and_on_white_pixels_is_not_clipped(pixel, threshold):
    x, y = torch.full((50_000, 1), pixel), torch.full((50_000,), int(pixel > threshold))
    estimate = accuracy_under_noise(Threshold(threshold), x, y, sigma=0.3, draws=4)
    exact = float(mp.ncdf(0.2 / 0.3))
    assert abs(estimate.mean - exact) < 4.5 * math.sqrt(exact * (1 - exact) / 200_000)


def test_noise_does_not_change_the_images():
    x, y = line()
    accuracy_under_noise(Threshold(), x, y, sigma=0.3)
    assert torch.equal(x, line()[0])


@pytest.mark.parametrize("sigma", [-0.1, math.nan, math.inf])
def test_a_sigma_that_is_no_noise_level_is_refused(sigma):
    with pytest.raises(ValueError, match="Expected sigma >= 0 and finite"):
        accuracy_under_noise(Threshold(), *line(), sigma=sigma)


@pytest.mark.parametrize("draws", [0, -1])
def test_less_than_one_draw_is_refused(draws):
    with pytest.raises(ValueError, match=f"Expected draws >= 1, got {draws}"):
        accuracy_under_noise(Threshold(), *line(), sigma=0.1, draws=draws)


# margins


def test_a_margin_is_the_lead_of_the_label_over_the_next_best():
    model, (x, y) = lenet8(), digits().test
    leads = []
    for z, label in zip(model(x).tolist(), y.tolist(), strict=True):
        leads.append(z[label] - max(z[:label] + z[label + 1 :]))
    torch.testing.assert_close(margins(model, x, y), torch.tensor(leads))


def test_a_margin_is_positive_where_the_image_is_read_rightly():
    model, (x, y) = lenet8(), digits().test
    assert torch.equal(margins(model, x, y) > 0, predictions(model, x) == y)
    assert (margins(model, x, y) > 0).double().mean().item() == accuracy(model, x, y)


def test_a_margin_of_two_classes_is_the_difference_of_their_logits():
    x, y = line()
    expected = torch.where(y == 1, 1, -1) * (2 * x[:, 0] - 1)
    torch.testing.assert_close(margins(Threshold(), x, y), expected)


def test_margins_of_many_images_are_those_of_one_batch_a_thousand_at_a_time():
    model, (x, y) = Threshold(), line(2345)
    z = model(x)
    model.sizes.clear()
    torch.testing.assert_close(margins(model, x, y), (2 * y - 1) * (z[:, 1] - z[:, 0]))
    assert model.sizes == [1000, 1000, 345]


@pytest.mark.parametrize("training", [True, False])
def test_margins_leave_the_model_and_the_images_as_they_were(training):
    model, (x, y) = lenet8().train(training), digits().test
    kept = x.clone()
    leads = margins(model, x.requires_grad_(), y)
    assert model.training is training
    assert not leads.requires_grad
    assert torch.equal(x, kept)
    assert all(weight.grad is None for weight in model.parameters())


def test_margins_are_judged_in_evaluation_mode():
    model = Threshold().train()
    margins(model, *line())
    assert model.modes == [False]
    assert model.training


@pytest.mark.parametrize(("images", "labels"), [(3, 2), (0, 0)])
def test_margins_of_images_without_labels_are_refused(images, labels):
    with pytest.raises(ValueError, match=f"images as labels and at least one, got {images} and {labels}"):
        margins(Threshold(), torch.zeros(images, 1), torch.zeros(labels).long())


# curves


def test_every_point_of_a_curve_is_the_accuracy_at_its_level():
    sigmas = [0.0, 0.1, 0.4, 1.5]
    curve = noise_curve(Threshold(), *line(), sigmas, draws=7, seed=3)
    torch.testing.assert_close(curve.sigmas, torch.tensor(sigmas))
    for index, sigma in enumerate(sigmas):
        point = accuracy_under_noise(Threshold(), *line(), sigma, draws=7, seed=3)
        assert curve.mean[index].item() == pytest.approx(point.mean, rel=1e-6)
        assert curve.standard_error[index].item() == pytest.approx(point.standard_error, rel=1e-6)


def test_a_curve_of_the_same_draws_falls_without_a_wiggle():
    # an image that noise carries over the threshold stays there when the same noise grows
    curve = noise_curve(Threshold(), *line(), sigmas=torch.linspace(0, 1, 50).tolist(), draws=3)
    assert (curve.mean.diff() <= 0).all()
    assert curve.mean[-1] < 0.8 < curve.mean[0]


def test_the_levels_of_a_curve_may_be_a_tensor():
    curve = noise_curve(Threshold(), *line(), sigmas=torch.tensor([0.0, 0.25]))
    assert curve.sigmas.tolist() == [0, 0.25]


def test_a_curve_refuses_a_negative_level():
    with pytest.raises(ValueError, match="Expected sigma >= 0 and finite"):
        noise_curve(Threshold(), *line(), sigmas=[0.1, -0.1])


def test_a_curve_without_levels_is_refused():
    with pytest.raises(ValueError, match="at least one sigma"):
        noise_curve(Threshold(), torch.zeros(2, 1), torch.zeros(2).long(), [])


# agreement and robustness


@pytest.mark.parametrize("largest", [0.5, 0.2])
def test_gaussian_robustness_is_the_area_under_the_normal_probabilities(largest):
    x, _ = line(2_000)
    levels, draws = 30, 8
    sigmas = [largest * level / (levels - 1) for level in range(levels)]
    chances = torch.tensor([1.0, *(exact_chances(x, sigma).mean().item() for sigma in sigmas[1:])]).double()
    inner = chances[1:-1].sum() + (chances[0] + chances[-1]) / 2
    exact = inner.item() / (levels - 1)
    got = gaussian_robustness(Threshold(), x, largest, levels, draws)
    assert abs(got.mean - exact) < 4.5 * got.standard_error
    assert got.standard_error < 0.003


def test_gaussian_robustness_knows_no_labels_and_praises_a_constant_classifier():
    assert gaussian_robustness(Threshold(at=-1e6), line()[0]).mean == 1.0


def test_gaussian_robustness_of_one_draw_has_no_standard_error_and_repeats():
    first, second = (gaussian_robustness(Threshold(), line()[0], seed=3) for _ in range(2))
    assert math.isnan(first.standard_error)
    assert first.mean == second.mean
    assert first.mean != gaussian_robustness(Threshold(), line()[0], seed=4).mean


def test_gaussian_robustness_by_default_takes_thirty_levels_up_to_a_half():
    model = Threshold()
    gaussian_robustness(model, line()[0])
    assert len(model.sizes) == 1 + 30  # one without noise to agree with


@pytest.mark.parametrize(
    "bad", [{"largest": 0.0}, {"largest": -1.0}, {"largest": math.nan}, {"levels": 1}, {"draws": 0}]
)
def test_gaussian_robustness_refuses_what_is_no_curve(bad):
    with pytest.raises(ValueError, match=r"Expected (sigma|largest)"):
        gaussian_robustness(Threshold(), line()[0], **bad)


def test_predictions_of_no_images_are_refused():
    with pytest.raises(ValueError, match="at least one image, got none"):
        predictions(Threshold(), torch.zeros(0, 1))


@pytest.mark.parametrize(
    ("score", "folds"),
    [(0.1, 0.0), (0.5, 0.0), (0.55, 0.5), (0.6, 1.0), (0.7, 3.0), (0.8, 5.0), (0.81, math.inf)],
)
def test_folds_equivalent_is_read_off_the_curve(score, folds):
    assert folds_equivalent(score, [0, 1, 5], [0.5, 0.6, 0.8]) == pytest.approx(folds)


def test_folds_equivalent_takes_the_first_crossing_of_a_curve_that_falls_again():
    assert folds_equivalent(0.55, [0, 1, 5, 20], [0.5, 0.6, 0.5, 0.7]) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("folds", "scores", "message"),
    [
        ([], [], "as many folds as scores"),
        ([0, 1], [0.5], "got 2, 1"),
        ([0, 5, 1], [0.1, 0.2, 0.3], "folds that rise"),
        ([0, 1], [0.5, math.nan], "finite numbers"),
    ],
)
def test_folds_equivalent_refuses_what_is_no_curve(folds, scores, message):
    with pytest.raises(ValueError, match=message):
        folds_equivalent(0.5, folds, scores)
