"""Each layer's rule: affine ones against their dense matrix, the others against samples and identities."""

import math

import pytest
import torch
from torch import nn

from gaussreg_lab.covariance import relu_covariance, relu_covariance_gate
from gaussreg_lab.gaussian import Gaussian, leaky_relu_mean, leaky_relu_var, relu_mean, relu_var
from gaussreg_lab.layer_moments import affine, has_rule, known_layers, layer_moments
from gaussreg_lab.maxima import gate
from gaussreg_lab.models import Normalize


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def wishart(batch: int, n: int) -> torch.Tensor:
    factor = randn(batch, n, n + 3, seed=9)
    return factor @ factor.mT / n


def batch_norm(channels: int, kind=nn.BatchNorm2d, **options) -> nn.Module:
    layer = kind(channels, **options).double().eval()
    layer.running_mean.copy_(randn(channels, seed=1))
    layer.running_var.copy_(randn(channels, seed=2).square() + 0.1)
    if layer.weight is not None:
        nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(3))
        nn.init.normal_(layer.bias, generator=torch.Generator().manual_seed(4))
    return layer


def conv(kind, *arguments, **options) -> nn.Module:
    return kind(*arguments, **options, dtype=torch.float64)


AFFINE = [  # layer, shape of one image
    (conv(nn.Linear, 5, 3), (5,)),
    (conv(nn.Linear, 5, 3, bias=False), (5,)),
    (conv(nn.Conv1d, 2, 4, 3, padding=1), (2, 7)),
    (conv(nn.Conv1d, 4, 4, 2, stride=3, groups=2), (4, 8)),
    (conv(nn.Conv2d, 2, 3, 3, padding=1), (2, 5, 4)),
    (conv(nn.Conv2d, 2, 3, 3, padding="same", dilation=2), (2, 6, 5)),
    (conv(nn.Conv2d, 4, 6, (2, 3), stride=(2, 1), padding=(1, 2), groups=2), (4, 5, 4)),
    (conv(nn.Conv2d, 2, 2, 3, padding=1, padding_mode="circular"), (2, 5, 4)),
    (Normalize(0.3, 0.5).double(), (1, 3, 3)),
    (Normalize([0.1, 0.2], [0.5, 2.0]).double(), (2, 3, 3)),
    (batch_norm(3), (3, 4, 2)),
    (batch_norm(3, affine=False), (3, 4, 2)),
    (batch_norm(4, nn.BatchNorm1d), (4,)),
    (batch_norm(4, nn.BatchNorm1d), (4, 5)),
    (nn.AvgPool2d(2), (2, 4, 6)),
    (nn.AvgPool2d(3, stride=2, padding=1), (1, 5, 6)),
    (nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False, ceil_mode=True), (1, 6, 5)),
    (nn.AvgPool2d(2, divisor_override=3), (1, 4, 4)),
    (nn.AvgPool1d(3, stride=2, padding=1), (2, 7)),
    (nn.AvgPool1d(2, count_include_pad=False, padding=1), (2, 6)),
    (nn.AdaptiveAvgPool2d((2, 3)), (2, 5, 7)),
    (nn.AdaptiveAvgPool2d(1), (2, 3, 3)),
    (nn.AdaptiveAvgPool1d(3), (2, 7)),
    (nn.Flatten(), (2, 3, 2)),
    (nn.Identity(), (4,)),
    (nn.Dropout(0.5).eval(), (4,)),
    (nn.Dropout2d(0.5).eval(), (2, 3, 3)),
]
AFFINE_IDS = [f"{number}-{layer}" for number, (layer, _) in enumerate(AFFINE)]


def matrix_of(layer: nn.Module, shape: tuple[int, ...]) -> torch.Tensor:
    """The layer's linear part, column by column."""
    n = math.prod(shape)
    columns = layer(torch.eye(n, dtype=torch.float64).view(n, *shape)) - layer(
        torch.zeros(1, *shape).double()
    )
    return columns.flatten(1).T


@pytest.mark.parametrize(("layer", "shape"), AFFINE, ids=AFFINE_IDS)
def test_an_affine_layer_has_the_moments_of_its_matrix(layer, shape):
    matrix, n = matrix_of(layer, shape), math.prod(shape)
    mean, var, cov = randn(2, *shape), randn(2, *shape, seed=5).square(), wishart(2, n)
    by_var = layer_moments(layer, Gaussian(mean, var=var), relu_covariance)
    by_cov = layer_moments(layer, Gaussian(mean, cov=cov), relu_covariance)
    for got in (by_var, by_cov):
        torch.testing.assert_close(got.mean, layer(mean), rtol=1e-12, atol=1e-12)
    expected = (var.flatten(1) @ matrix.square().T).view_as(by_var.mean)
    torch.testing.assert_close(by_var.var, expected, rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(by_cov.cov, matrix @ cov @ matrix.T, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("mode", ["reflect", "replicate"])
def test_a_padding_that_repeats_pixels_needs_covariances(mode):
    layer, shape = conv(nn.Conv2d, 1, 2, 3, padding=1, padding_mode=mode), (1, 4, 4)
    with pytest.raises(NotImplementedError, match=f"got '{mode}'.*carry cov"):
        layer_moments(layer, Gaussian(randn(1, *shape), var=torch.tensor(1.0).double()), relu_covariance)
    matrix, cov = matrix_of(layer, shape), wishart(1, 16)
    got = layer_moments(layer, Gaussian(randn(1, *shape), cov=cov), relu_covariance)
    torch.testing.assert_close(got.cov, matrix @ cov @ matrix.T, rtol=1e-11, atol=1e-12)


def test_the_variance_of_a_padded_convolution_is_smaller_at_the_border():
    layer = conv(nn.Conv2d, 1, 1, 3, padding=1)
    nn.init.ones_(layer.weight)
    x = Gaussian(torch.zeros(1, 1, 4, 4).double(), var=torch.tensor(1.0).double())
    expected = [[4.0, 6, 6, 4], [6, 9, 9, 6], [6, 9, 9, 6], [4, 6, 6, 4]]
    assert layer_moments(layer, x, relu_covariance).var[0, 0].tolist() == expected


def test_relus_have_the_moments_of_one_and_of_two_units():
    mean, var, cov = randn(2, 3, 2), randn(2, 3, 2, seed=1).square(), wishart(2, 6)
    by_var = layer_moments(nn.ReLU(), Gaussian(mean, var=var), relu_covariance)
    torch.testing.assert_close((by_var.mean, by_var.var), (relu_mean(mean, var), relu_var(mean, var)))
    for rule in (relu_covariance, relu_covariance_gate):
        by_cov = layer_moments(nn.ReLU(), Gaussian(mean, cov=cov), rule)
        torch.testing.assert_close(by_cov.cov, rule(mean.flatten(1), cov))


@pytest.mark.parametrize("slope", [0.0, 0.2, 1.0, -1.0])
def test_leaky_relus_are_relus_put_together(slope):
    """leaky(z) = relu(z) - slope relu(-z): the four blocks of the covariance of (z, -z) after the ReLU."""
    layer, mean, cov = nn.LeakyReLU(slope), randn(1, 4), wishart(1, 4)
    got = layer_moments(layer, Gaussian(mean, cov=cov), relu_covariance)
    signs = torch.cat([torch.eye(4), -torch.eye(4)]).double()
    both = relu_covariance(mean @ signs.T, signs @ cov @ signs.T)
    put_together = torch.cat([torch.eye(4), -slope * torch.eye(4)], dim=1).double()
    torch.testing.assert_close(got.cov, put_together @ both @ put_together.T, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(
        got.mean, leaky_relu_mean(mean, got_var := cov.diagonal(dim1=1, dim2=2), slope)
    )
    by_var = layer_moments(layer, Gaussian(mean, var=got_var), relu_covariance)
    torch.testing.assert_close(by_var.var, leaky_relu_var(mean, got_var, slope))
    torch.testing.assert_close(by_var.var, got.variances, rtol=1e-10, atol=0)


def test_the_gate_is_the_probability_to_be_on():
    x = Gaussian(torch.tensor([[0.0, 1.0, -1.0, 3.0]]), var=torch.tensor([1.0, 1.0, 1.0, 0.0]))
    expected = torch.tensor([[0.5, 0.841345, 0.158655, 1.0]])
    torch.testing.assert_close(gate(x), expected, rtol=1e-5, atol=0)


class Twice(nn.Module):
    def forward(self, x):
        return 2 * x


class Thrice(nn.Module):
    def forward(self, x):
        return 3 * x


def test_a_layer_of_ones_own_joins_by_one_decorator():
    assert not has_rule(Thrice())

    @layer_moments.register
    def _(layer: Thrice, x: Gaussian, covariance) -> Gaussian:
        return affine(layer, x, var=lambda var: 9 * var)

    assert has_rule(Thrice())
    assert "Thrice" in known_layers()
    got = layer_moments(Thrice(), Gaussian(randn(1, 2), cov=wishart(1, 2)), relu_covariance)
    torch.testing.assert_close(got.cov, 9 * wishart(1, 2))


def test_an_unknown_layer_is_refused_with_the_known_ones():
    with pytest.raises(NotImplementedError, match=r"BatchNorm2d, Conv1d, Conv2d.*ReLU.*got Twice.*register"):
        layer_moments(Twice(), Gaussian(randn(1, 2), var=torch.tensor(1.0).double()), relu_covariance)


@pytest.mark.parametrize("layer", [nn.BatchNorm2d(2), nn.Dropout(0.5), nn.Dropout2d(0.5)], ids=str)
def test_a_layer_in_train_mode_is_refused(layer):
    x = Gaussian(torch.zeros(1, 2, 2, 2), var=torch.tensor(1.0))
    with pytest.raises(ValueError, match=rf"{type(layer).__name__} is a fixed map, got it in train mode"):
        layer_moments(layer.train(), x, relu_covariance)


def test_batch_norm_without_statistics_is_refused():
    x = Gaussian(torch.zeros(1, 2, 2, 2), var=torch.tensor(1.0))
    with pytest.raises(ValueError, match="track_running_stats=False"):
        layer_moments(nn.BatchNorm2d(2, track_running_stats=False).eval(), x, relu_covariance)


def test_a_flattening_of_the_batch_is_refused():
    with pytest.raises(ValueError, match="start_dim=0"):
        layer_moments(nn.Flatten(0), Gaussian(torch.zeros(2, 2), var=torch.tensor(1.0)), relu_covariance)
