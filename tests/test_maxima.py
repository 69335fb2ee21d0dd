"""Maxima of several Gaussians: exact for two, within known distances of samples for more."""

import math

import pytest
import torch
from torch import nn

from gaussreg_lab.covariance import larger_of_two, relu_covariance
from gaussreg_lab.gaussian import Gaussian
from gaussreg_lab.maxima import largest, largest_correlated, max_pool
from gaussreg_lab.sampling import sample_moments


def wishart(n: int, extra: int, seed: int) -> torch.Tensor:
    factor = torch.randn(n, n + extra, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return factor @ factor.T / n


def images(batch: int, *shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_two_players_are_clarks_maximum():
    mean, var = images(3, 2, 4), images(3, 2, 4, seed=1).square()
    got_mean, got_var = largest(mean, var)
    zero = torch.zeros(3, 4).double()
    expected = larger_of_two(mean[:, 0], var[:, 0], mean[:, 1], var[:, 1], zero)
    torch.testing.assert_close((got_mean, got_var), tuple(expected), rtol=1e-14, atol=0)


def test_two_correlated_players_have_the_covariance_of_samples():
    """Two maxima of two, all four correlated: exact, so far off as sampling is."""
    cov = wishart(4, 4, 0)
    mean = torch.tensor([0.2, -0.3, 0.1, 0.4]).double()
    got_mean, got_cov = largest_correlated(mean.view(1, 2, 2), cov[None], relu_covariance)
    count = 400_000
    noise = torch.randn(count, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    winners = (mean + noise @ torch.linalg.cholesky(cov).T).view(count, 2, 2).amax(dim=1)
    error = winners.std(dim=0) / math.sqrt(count)
    assert ((winners.mean(dim=0) - got_mean[0]) / error).abs().max() < 4.5
    away = winners - winners.mean(dim=0)
    products = away[:, :, None] * away[:, None, :]
    z = (products.mean(dim=0) - got_cov[0]) / (products.std(dim=0) / math.sqrt(count))
    assert z.abs().max() < 4.5


@pytest.mark.parametrize("players", [3, 4, 9])
def test_many_alike_players_are_close_to_their_integral(players):
    """The largest of k draws of N(0, 1) has the cdf Phi^k, so its mean is an integral of one variable."""
    t = torch.linspace(-9, 9, 20_001, dtype=torch.float64)
    cdf = torch.special.ndtr(t) ** players
    mean = t[-1] - torch.trapezoid(cdf, t)
    got, _ = largest(torch.zeros(1, players, 1).double(), torch.ones(1, players, 1).double())
    assert got.item() == pytest.approx(mean.item(), rel=0.012)


def test_a_clear_winner_takes_all():
    mean = torch.tensor([0.0, 50.0, 1.0]).double().view(1, 3, 1)
    var = torch.tensor([1.0, 2.0, 3.0]).double().view(1, 3, 1)
    torch.testing.assert_close(largest(mean, var), (mean[:, 1], var[:, 1]), rtol=1e-12, atol=0)
    got_mean, got_cov = largest_correlated(mean, torch.diag(var.flatten())[None], relu_covariance)
    torch.testing.assert_close((got_mean, got_cov[..., 0]), (mean[:, 1], var[:, 1]), rtol=1e-12, atol=0)


def test_without_noise_it_is_the_plain_maximum():
    mean = images(2, 5, 3)
    got, var = largest(mean, torch.zeros_like(mean))
    torch.testing.assert_close(got, mean.amax(dim=1), rtol=1e-12, atol=1e-12)
    assert var.max() < 1e-20


POOLS = [
    nn.MaxPool2d(2),
    nn.MaxPool2d(3, stride=2, padding=1),
    nn.MaxPool2d(2, stride=1),
    nn.MaxPool2d((2, 3), stride=(1, 2), dilation=(2, 1), padding=(1, 0)),
]


@pytest.mark.parametrize("pool", POOLS, ids=str)
@pytest.mark.parametrize("kind", ["var", "cov"])
def test_without_noise_a_pooling_is_pytorchs(pool, kind):
    mean = images(2, 3, 6, 7)
    n = mean[0].numel()
    none = {"var": torch.tensor(0.0).double()} if kind == "var" else {"cov": torch.zeros(2, n, n).double()}
    got = max_pool(pool, Gaussian(mean, **none), relu_covariance)
    torch.testing.assert_close(got.mean, pool(mean), rtol=1e-12, atol=1e-12)
    assert got.std.max() < 1e-9


@pytest.mark.parametrize("pool", POOLS, ids=str)
def test_a_pooling_of_noisy_images_is_close_to_samples(pool):
    x = Gaussian(images(2, 2, 6, 7), var=torch.tensor(0.3).double())
    sampled = sample_moments(pool, x, 20_000)
    for given in (x, Gaussian(x.mean, cov=torch.diag_embed(x.var.flatten(1)))):
        got = max_pool(pool, given, relu_covariance)
        away = (got.mean.flatten(1) - sampled.mean).abs() / sampled.var.sqrt()
        assert away.max() < 0.06  # of a standard deviation
        assert (got.std.flatten(1) / sampled.var.sqrt() - 1).abs().max() < 0.12


def test_shared_noise_is_kept_where_covariances_are_known():
    """All pixels move together: every maximum moves with them, by the full amount."""
    mean = images(1, 1, 4, 4)
    got = max_pool(
        nn.MaxPool2d(2), Gaussian(mean, cov=torch.full((1, 16, 16), 0.7).double()), relu_covariance
    )
    torch.testing.assert_close(got.mean, nn.MaxPool2d(2)(mean), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(got.cov, torch.full((1, 4, 4), 0.7).double(), rtol=1e-6, atol=0)
    forgetful = max_pool(nn.MaxPool2d(2), Gaussian(mean, var=torch.tensor(0.7).double()), relu_covariance)
    assert (forgetful.mean > got.mean + 0.1).any()


def test_the_covariance_is_semidefinite_after_several_rounds():
    x = Gaussian(images(1, 2, 4, 4), cov=wishart(32, 0, 3)[None])
    got = max_pool(nn.MaxPool2d(3, stride=1), x, relu_covariance)
    values = torch.linalg.eigvalsh(got.cov[0])
    assert values.min() > -1e-10 * values.max()


def test_windows_that_do_not_fit_are_refused():
    x = Gaussian(images(1, 1, 5, 5), var=torch.tensor(1.0).double())
    with pytest.raises(NotImplementedError, match="ceil_mode=False"):
        max_pool(nn.MaxPool2d(2, ceil_mode=True), x, relu_covariance)
