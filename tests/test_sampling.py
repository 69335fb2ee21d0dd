"""Monte Carlo against known moments, with its own error bars as the measure."""

import math

import pytest
import torch
from torch import nn

from gaussreg_lab import sampling
from gaussreg_lab.gaussian import Gaussian, relu_mean, relu_var
from gaussreg_lab.sampling import sample_moments

MEAN = torch.tensor([[0.3, -1.0, 2.0], [1.5, 0.0, -0.2]], dtype=torch.float64)
COV = torch.tensor([[1.0, 0.9, 0.1], [0.9, 1.0, 0.0], [0.1, 0.0, 0.25]], dtype=torch.float64).expand(2, 3, 3)


def worst_z(got, wanted, error) -> float:
    return ((got - wanted) / error).abs().max().item()


def linear(seed: int = 0) -> nn.Linear:
    layer = nn.Linear(3, 4).double()
    generator = torch.Generator().manual_seed(seed)
    for weight in layer.parameters():
        nn.init.normal_(weight, generator=generator)
    return layer


@pytest.mark.parametrize("kind", ["var", "cov"])
def test_an_affine_map_has_its_exact_moments_within_the_error_bars(kind):
    x = Gaussian(MEAN, cov=COV) if kind == "cov" else Gaussian(MEAN, var=torch.tensor(0.49).double())
    layer = linear()
    spread = x.cov if kind == "cov" else torch.diag_embed(x.var)
    cov = layer.weight @ spread @ layer.weight.T
    sampled = sample_moments(layer, x, count=40_000)
    assert worst_z(sampled.mean, layer(MEAN), sampled.mean_error) < 4
    assert worst_z(sampled.var, cov.diagonal(dim1=1, dim2=2), sampled.var_error) < 4
    own = cov.diagonal(dim1=1, dim2=2)
    error = ((own[:, :, None] * own[:, None, :] + cov**2) / 40_000).sqrt()  # of a Gaussian's covariance
    assert worst_z(sampled.cov, cov, error) < 4.5


def test_relus_have_their_closed_moments_within_the_error_bars():
    x = Gaussian(MEAN, var=torch.tensor(0.8).double())
    sampled = sample_moments(nn.ReLU(), x, count=100_000)
    assert worst_z(sampled.mean, relu_mean(x.mean, x.var), sampled.mean_error) < 4
    assert worst_z(sampled.var, relu_var(x.mean, x.var), sampled.var_error) < 4


def test_the_error_bars_are_as_wide_as_the_scatter_of_repeated_runs():
    x = Gaussian(MEAN, var=torch.tensor(0.8).double())
    runs = [sample_moments(nn.ReLU(), x, 400, torch.Generator().manual_seed(seed)) for seed in range(300)]
    for value, error in (("mean", "mean_error"), ("var", "var_error")):
        scatter = torch.stack([getattr(run, value) for run in runs]).std(dim=0)
        claimed = torch.stack([getattr(run, error) for run in runs]).mean(dim=0)
        wide = x.mean > -0.5  # a unit hardly ever on has error bars as erratic as its variance
        assert ((scatter / claimed)[wide] - 1).abs().max() < 0.2


def test_the_sums_are_those_of_numpy(monkeypatch):
    """All draws of a call, caught on their way into the model, against torch's own statistics."""
    seen = []

    def recording(x):
        seen.append(x)
        return x.exp()

    model = nn.Identity()
    model.forward = recording
    monkeypatch.setattr(sampling, "AT_ONCE", 6 * 100)  # a hundred draws at a time
    x = Gaussian(MEAN, var=torch.tensor(0.5).double())
    sampled = sample_moments(model, x, count=1_050)
    assert len(seen) == 1 + 11
    values = torch.cat([it.view(-1, 2, 3) for it in seen[1:]]).exp()
    assert len(values) == 1_050
    torch.testing.assert_close(sampled.mean, values.mean(dim=0), rtol=1e-10, atol=0)
    torch.testing.assert_close(sampled.var, values.var(dim=0), rtol=1e-10, atol=0)
    expected = torch.stack([torch.cov(values[:, number].T) for number in range(2)])
    torch.testing.assert_close(sampled.cov, expected, rtol=1e-10, atol=1e-12)
    away = values - values.mean(dim=0)
    var_error = ((away.pow(4).mean(dim=0) - away.square().mean(dim=0).square()) / 1_050).sqrt()
    torch.testing.assert_close(sampled.var_error, var_error, rtol=1e-8, atol=0)


def test_images_keep_their_shape_on_the_way_in_and_are_flat_on_the_way_out():
    x = Gaussian(torch.zeros(2, 1, 4, 4), var=torch.tensor(1.0))
    sampled = sample_moments(nn.Conv2d(1, 3, 3), x, count=10)
    assert sampled.mean.shape == (2, 3 * 2 * 2)
    assert sampled.cov.shape == (2, 12, 12)
    assert sampled.count == 10
    assert sampled.mean.dtype == torch.float32


def test_a_large_common_value_costs_no_digits():
    x = Gaussian(torch.full((1, 1), 1e6).double(), var=torch.tensor(1e-6).double())
    assert sample_moments(nn.Identity(), x, 20_000).var.item() == pytest.approx(1e-6, rel=0.05)


def test_a_singular_covariance_can_be_drawn_from():
    x = Gaussian(torch.zeros(1, 2).double(), cov=torch.ones(1, 2, 2).double())
    cov = sample_moments(nn.Identity(), x, 1_000).cov[0]
    assert cov[0, 1].item() == pytest.approx(cov[0, 0].item(), rel=1e-6)


def test_the_default_generator_is_its_own():
    x = Gaussian(MEAN, var=torch.tensor(0.5).double())
    layer, state = linear(), torch.get_rng_state()
    first, second = (sample_moments(layer, x, count=50) for _ in range(2))
    assert torch.equal(first.mean, second.mean)
    assert torch.equal(torch.get_rng_state(), state)
    third = sample_moments(layer, x, 50, torch.Generator().manual_seed(7))
    assert not math.isclose(first.mean[0, 0].item(), third.mean[0, 0].item())


@pytest.mark.parametrize(
    ("x", "count", "error", "message"),
    [
        (MEAN, 10, TypeError, "Expected x to be a Gaussian, got Tensor"),
        (Gaussian(MEAN, cov=COV), 1, ValueError, "Expected count >= 2, got 1"),
    ],
)
def test_bad_arguments_are_refused_by_name(x, count, error, message):
    with pytest.raises(error, match=message):
        sample_moments(nn.Identity(), x, count)
