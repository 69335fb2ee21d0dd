"""The smoothed network: its ReLU against the accurate one and finite differences, its widths, its hooks."""

import pytest
import torch
from torch import nn

from gaussreg_lab.gaussian import relu_mean
from gaussreg_lab.models import lenet8, mlp
from gaussreg_lab.smoothing import listen, root_mean_square, smooth_relu, smoothed


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14)], ids=str)
@pytest.mark.parametrize("std", [1e-6, 1.0, 30.0])
def test_the_quick_relu_is_the_accurate_one_up_to_rounding_of_its_spread(dtype, tolerance, std):
    mean = std * torch.linspace(-40, 10, 2001, dtype=dtype)
    spread = torch.full((1,), std, dtype=dtype)
    away = (smooth_relu(mean, spread) - relu_mean(mean, spread**2)).abs() / std
    assert away.max() < tolerance * 10  # ten: the results are up to ten spreads


@pytest.mark.parametrize("shape", [(1, 4), (3, 4)], ids=["shared", "own"])
def test_all_its_derivatives_agree_with_finite_differences(shape):
    mean, std = randn(3, 4).requires_grad_(), (randn(*shape, seed=1).abs() + 0.3).requires_grad_()
    assert torch.autograd.gradcheck(smooth_relu, (mean, std))
    assert torch.autograd.gradgradcheck(smooth_relu, (mean, std))


def test_a_third_derivative_agrees_with_finite_differences():
    mean, std = randn(4).requires_grad_(), torch.full((4,), 0.7).double()

    def second(m: torch.Tensor) -> torch.Tensor:
        (slope,) = torch.autograd.grad(smooth_relu(m, std).sum(), m, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), m, create_graph=True)[0]

    assert torch.autograd.gradcheck(second, (mean,))


def test_listening_gives_what_goes_into_each_relu_in_order():
    model, x = mlp((4, 5, 6, 2)).double(), randn(3, 4)
    output, heard = listen(model, x)
    first = model[:3](x)
    torch.testing.assert_close(heard[0], first)
    torch.testing.assert_close(heard[1], model[4](first.relu()))
    torch.testing.assert_close(output, model(x))
    assert not output.requires_grad


def test_the_smoothed_network_unrolled_by_hand():
    model, x = mlp((4, 5, 6, 2)).double(), randn(3, 4)
    _, noisy = listen(model, x + 0.5 * randn(3, 4, seed=1))
    z = model[:3](x)
    z = relu_mean(z, (noisy[0] - z).square().mean(dim=0, keepdim=True).expand_as(z))
    z = model[4](z)
    z = relu_mean(z, (noisy[1] - z).square().mean(dim=0, keepdim=True).expand_as(z))
    torch.testing.assert_close(smoothed(model, x, noisy), model[6](z), rtol=1e-10, atol=1e-12)


def test_the_hooks_are_gone_afterwards_even_after_an_error():
    model, x = lenet8(), torch.rand(2, 1, 8, 8)
    before = model(x)
    _, noisy = listen(model, x)
    smoothed(model, x, noisy)
    with pytest.raises(RuntimeError):
        listen(model, torch.rand(2, 3))
    assert not any(layer._forward_hooks for layer in model.modules())
    assert torch.equal(model(x), before)


def test_a_relu_that_is_used_twice_is_smoothed_twice():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.relu, self.first, self.second = nn.ReLU(), nn.Linear(2, 3), nn.Linear(3, 3)

        def forward(self, x):
            return self.relu(self.second(self.relu(self.first(x))))

    model, x = Shared().double(), randn(5, 2)
    _, noisy = listen(model, x + randn(5, 2, seed=1))
    assert len(noisy) == 2
    assert (smoothed(model, x, noisy) > model(x)).all()  # noise lifts a ReLU


def test_without_noise_the_smoothed_network_is_the_network():
    model, x = mlp((4, 5, 2)), torch.rand(3, 4)
    _, quiet = listen(model, x)
    torch.testing.assert_close(smoothed(model, x, quiet), model(x))


def test_the_spread_is_held_fixed_in_the_derivatives():
    model, x = mlp((4, 5, 2)).double(), randn(3, 4).requires_grad_()
    _, noisy = listen(model, x.detach() + 0.5 * randn(3, 4, seed=1))
    z = model[:3](x)
    std = root_mean_square((noisy[0] - z).detach())
    gate = torch.special.ndtr(z / std)
    expected = 2 * ((gate * model[4].weight[0]) @ model[2].weight)  # twice, by normalization
    (got,) = torch.autograd.grad(smoothed(model, x, noisy)[:, 0].sum(), x)
    torch.testing.assert_close(got, expected)


def test_a_root_mean_square_is_never_zero():
    assert root_mean_square(torch.zeros(3, 2)).min() > 0
    expected = torch.tensor([[12.5**0.5, 0.5**0.5]])
    torch.testing.assert_close(root_mean_square(torch.tensor([[3.0, 0.0], [4.0, 1.0]])), expected)


@pytest.mark.parametrize(
    ("model", "got"),
    [(nn.Linear(2, 2), "none"), (nn.ReLU(inplace=True), "one with inplace=True")],
    ids=["no ReLU", "in place"],
)
def test_models_without_fitting_relus_are_refused(model, got):
    with pytest.raises(ValueError, match=f"nn.ReLU layers that do not work in place, got {got}"):
        listen(model, torch.zeros(1, 2))
