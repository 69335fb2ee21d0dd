"""The losses: what they average, which noise they draw, and what they refuse."""

import math

import pytest
import torch
from torch import Tensor, nn

from gaussreg_lab.losses import NoisyLoss, cross_entropy, expect_sigma, weighted_sum
from gaussreg_lab.models import lenet8, mlp


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int = 6) -> tuple[Tensor, Tensor]:
    return torch.rand(count, 1, 8, 8, generator=generator(1)), torch.arange(count) % 10


def squared_error(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return (model(x).squeeze(1) - y).square().mean()


class Spy(nn.Module):
    """Keeps every input it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        return x.flatten(1)


# cross entropy


def test_cross_entropy_is_the_mean_of_minus_log_softmax_at_the_label():
    model, (x, y) = lenet8(), images()
    logits = model(x)
    by_hand = [logits[i].logsumexp(0) - logits[i, y[i]] for i in range(len(y))]
    torch.testing.assert_close(cross_entropy(model, x, y), torch.stack(by_hand).mean())


def test_cross_entropy_is_pytorchs():
    model, (x, y) = lenet8(), images()
    assert cross_entropy(model, x, y) == nn.functional.cross_entropy(model(x), y)


# noise


def test_no_noise_gives_the_loss_itself():
    model, (x, y) = lenet8(), images()
    assert NoisyLoss(sigma=0.0, samples=3)(model, x, y) == cross_entropy(model, x, y)


def test_no_noise_draws_no_numbers():
    before = torch.get_rng_state()
    NoisyLoss(sigma=0.0)(lenet8(), *images())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("samples", [1, 2, 5])
def test_the_noisy_loss_is_the_mean_of_the_losses_of_its_samples(samples):
    model, (x, y) = lenet8(), images()
    noises = torch.randn(samples * len(x), 1, 8, 8, generator=generator()).split(len(x))
    by_hand = torch.stack([cross_entropy(model, x + 0.3 * noise, y) for noise in noises]).mean()
    torch.testing.assert_close(NoisyLoss(0.3, samples, generator=generator())(model, x, y), by_hand)


def test_labels_stay_with_their_images():
    x = 10 * torch.eye(4)
    loss = NoisyLoss(sigma=0.01, samples=3, generator=generator())
    assert loss(nn.Flatten(), x, torch.arange(4)) < 1e-3


def test_the_noisy_loss_averages_whatever_loss_it_is_given():
    model, x, y = nn.Linear(4, 1), torch.rand(5, 4), torch.rand(5)
    noise = torch.randn(5, 4, generator=generator())
    noisy = NoisyLoss(0.3, loss=squared_error, generator=generator())
    torch.testing.assert_close(noisy(model, x, y), squared_error(model, x + 0.3 * noise, y))


def test_noise_adds_sigma_squared_times_the_squared_weights_to_a_linear_regression():
    model, x, y = nn.Linear(6, 1).double(), torch.rand(5, 6).double(), torch.rand(5).double()
    exact = squared_error(model, x, y) + 0.4**2 * model.weight.square().sum()
    noisy = NoisyLoss(0.4, loss=squared_error, generator=generator())
    draws = torch.stack([noisy(model, x, y).detach() for _ in range(4000)])
    assert ((draws.mean() - exact) / (draws.std() / math.sqrt(len(draws)))).abs() < 4.5


def test_noise_never_lowers_the_cross_entropy_of_a_linear_model():
    model, x, y = mlp((16, 10)), torch.rand(8, 16), torch.arange(8)
    noisy = NoisyLoss(0.5, generator=generator())
    draws = torch.stack([noisy(model, x, y).detach() for _ in range(1000)])
    gain = (draws.mean() - cross_entropy(model, x, y)) / (draws.std() / math.sqrt(len(draws)))
    assert gain > 4.5  # Jensen's inequality, and by more than chance


def test_noise_of_a_generator_is_independent_for_every_sample():
    spy = Spy()
    NoisyLoss(1.0, samples=2, generator=generator())(spy, torch.zeros(3000, 10), torch.zeros(3000).long())
    first, second = spy.seen[0].split(3000)
    correlation = (first * second).mean().item()
    assert abs(correlation) < 4.5 / math.sqrt(first.numel())


def test_every_call_draws_fresh_noise():
    noisy, model = NoisyLoss(0.3), lenet8()
    assert noisy(model, *images()) != noisy(model, *images())


def test_a_generator_repeats_the_noise():
    first, second = (NoisyLoss(0.3, generator=generator(7))(lenet8(), *images()) for _ in range(2))
    other = NoisyLoss(0.3, generator=generator(8))(lenet8(), *images())
    assert first == second != other


def test_a_generator_leaves_the_global_one_alone():
    before = torch.get_rng_state()
    NoisyLoss(0.3, generator=generator())(lenet8(), *images())
    assert torch.equal(torch.get_rng_state(), before)


def test_without_a_generator_the_global_seed_repeats_the_noise():
    values = []
    for _ in range(2):
        torch.manual_seed(3)
        values.append(NoisyLoss(0.3)(lenet8(), *images()))
    assert values[0] == values[1]


def test_noise_on_black_and_on_white_pixels_is_not_clipped():
    spy, count = Spy(), 100_000
    x = torch.tensor([0.0, 1.0]).expand(count, 2)
    NoisyLoss(0.4, generator=generator())(spy, x, torch.zeros(count).long())
    noise = spy.seen[0] - x
    assert (noise.mean(dim=0).abs() < 4.5 * 0.4 / math.sqrt(count)).all()
    assert ((noise.std(dim=0) / 0.4 - 1).abs() < 4.5 / math.sqrt(2 * count)).all()


def test_noise_does_not_change_the_images():
    x, y = images()
    before = x.clone()
    NoisyLoss(0.4)(lenet8(), x, y)
    assert torch.equal(x, before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_noise_has_the_dtype_of_the_images(dtype):
    spy = Spy()
    NoisyLoss(0.4)(spy, torch.zeros(3, 4, dtype=dtype), torch.zeros(3).long())
    assert spy.seen[0].dtype == dtype


def test_the_noisy_loss_has_gradients_for_the_weights_and_the_images():
    model, (x, y) = lenet8(), images()
    x.requires_grad_()
    NoisyLoss(0.3, samples=2)(model, x, y).backward()
    assert all(weight.grad.abs().sum() > 0 for weight in model.parameters())
    assert x.grad.abs().sum() > 0


def test_a_noisy_loss_shows_its_sigma():
    assert "sigma=0.3" in repr(NoisyLoss(0.3))


@pytest.mark.parametrize("sigma", [-0.1, math.nan, math.inf, -math.inf])
def test_a_sigma_that_is_no_noise_level_is_refused(sigma):
    with pytest.raises(ValueError, match=f"Expected sigma >= 0 and finite, .* pixel units, got {sigma}"):
        NoisyLoss(sigma)
    with pytest.raises(ValueError, match=f"Expected sigma >= 0 and finite, .* pixel units, got {sigma}"):
        expect_sigma(sigma)


@pytest.mark.parametrize("samples", [0, -1])
def test_less_than_one_sample_is_refused(samples):
    with pytest.raises(ValueError, match=f"Expected samples >= 1, got {samples}"):
        NoisyLoss(0.1, samples=samples)


# sums


def constant(value: float):
    return lambda model, x, y: torch.tensor(value)


def test_a_weighted_sum_is_linear_in_its_terms():
    loss = weighted_sum((1.0, constant(2.0)), (0.5, constant(8.0)), (-3.0, constant(1.0)))
    assert loss(None, None, None) == 3.0


def test_a_weighted_sum_hands_on_model_images_and_labels():
    model, (x, y) = lenet8(), images()
    torch.testing.assert_close(
        weighted_sum((0.25, cross_entropy))(model, x, y), cross_entropy(model, x, y) / 4
    )


def test_weighted_sums_can_be_nested():
    inner = weighted_sum((2.0, constant(1.0)), (1.0, constant(3.0)))
    assert weighted_sum((10.0, inner), (1.0, constant(0.5)))(None, None, None) == 50.5


def test_a_weighted_sum_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"at least one pair \(weight, loss\), got none"):
        weighted_sum()


@pytest.mark.parametrize("weight", [math.nan, math.inf])
def test_a_weight_that_is_not_finite_is_refused(weight):
    with pytest.raises(ValueError, match=f"Expected a finite weight for .*cross_entropy.*, got {weight}"):
        weighted_sum((1.0, cross_entropy), (weight, cross_entropy))


def test_a_loss_that_cannot_be_called_is_refused():
    with pytest.raises(TypeError, match=r"pairs \(weight, loss\) with a callable loss, got 0.5"):
        weighted_sum((cross_entropy, 0.5))
