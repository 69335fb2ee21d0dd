"""Tangents and half-tangents: exact where the network is a line, honest where it is not."""

import pytest
import torch
from torch import nn

from gaussreg_lab.datasets import batches, digits
from gaussreg_lab.gaussian import Gaussian, relu_mean
from gaussreg_lab.linearization import (
    first_relu_mean,
    linearize,
    linearize_smoothed,
    split_at_first_relu,
    spread_through,
    two_stage,
)
from gaussreg_lab.losses import cross_entropy
from gaussreg_lab.models import lenet, lenet8, mlp
from gaussreg_lab.propagation import propagate
from gaussreg_lab.sampling import sample_moments
from gaussreg_lab.training import fit

WAYS = [linearize, linearize_smoothed, two_stage]
every_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def randomized(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(5)
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.5, generator=generator)
    return model.double()


def spreads(n: int) -> list[dict]:
    factor = randn(2, n, n, seed=3)
    return [{"var": torch.tensor(0.3).double()}, {"cov": factor @ factor.mT / n}]


@every_way
@pytest.mark.parametrize("which", [0, 1], ids=["var", "cov"])
def test_far_from_every_kink_all_are_exact(way, which):
    model, x = randomized(mlp((4, 5, 3))), 0.01 * randn(2, 4)
    nn.init.constant_(model[2].bias, 1e3)  # every unit is on, whatever the noise
    given = Gaussian(x, **spreads(4)[which])
    matrix = 2 * model[4].weight @ model[2].weight  # twice, by normalization
    spread = given.cov if which else torch.diag_embed(given.var)
    got = way(model, given)
    torch.testing.assert_close(got.mean, model(x), rtol=1e-9, atol=1e-8)
    torch.testing.assert_close(got.cov, matrix @ spread @ matrix.T, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("which", [0, 1], ids=["var", "cov"])
def test_the_tangent_is_that_of_jacrev(which):
    model, x = randomized(mlp((4, 6, 5, 3))), randn(2, 4)
    given = Gaussian(x, **spreads(4)[which])
    jacobian = torch.func.vmap(torch.func.jacrev(model))(x[:, None]).squeeze()
    spread = given.cov if which else torch.diag_embed(given.var)
    torch.testing.assert_close(linearize(model, given).cov, jacobian @ spread @ jacobian.mT)


def test_two_stages_are_exact_for_one_hidden_layer():
    model, given = randomized(mlp((4, 6, 3))), Gaussian(randn(2, 4), **spreads(4)[1])
    exact, got = propagate(model, given), two_stage(model, given)
    torch.testing.assert_close((got.mean, got.cov), (exact.mean, exact.cov), rtol=1e-9, atol=1e-10)


def test_one_hidden_layer_smoothed_has_the_exact_mean_and_gates():
    from gaussreg_lab.covariance import relu_covariance_gate

    model, x = randomized(mlp((4, 6, 3))), randn(2, 4)
    got = linearize_smoothed(model, Gaussian(x, var=torch.tensor(0.3).double()))
    full = Gaussian(x, cov=0.3 * torch.eye(4).double().expand(2, 4, 4))
    torch.testing.assert_close(got.mean, propagate(model, full).mean)
    # the same first order, but for the gates' exact diagonal, which only a full covariance can carry
    z = propagate(model[:3], full)
    hidden = relu_covariance_gate(z.mean, z.cov)
    on = torch.special.ndtr(z.mean / z.std)
    hidden = hidden.diagonal_scatter(z.variances * on**2, dim1=1, dim2=2)
    torch.testing.assert_close(got.cov, model[4].weight @ hidden @ model[4].weight.T)


def test_the_papers_mean_is_exact_at_the_first_relu_and_plain_behind_it():
    model, given = randomized(mlp((4, 6, 5, 3))), Gaussian(randn(2, 4), var=torch.tensor(0.3).double())
    before = propagate(model[:3], given)
    expected = model[4:](relu_mean(before.mean, before.var))
    torch.testing.assert_close(first_relu_mean(model, given), expected)


@pytest.fixture(scope="module")
def trained_lenet8() -> nn.Module:
    model = lenet8()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    fit(model, batches(digits().train, 64), cross_entropy, optimizer, 15, progress=False)
    return model


def std_ratio(model: nn.Module, x: Gaussian, count: int) -> float:
    sampled = sample_moments(model, x, count)
    return (linearize_smoothed(model, x).std / sampled.var.sqrt()).mean().item()


def test_the_smoothed_tangent_has_the_spread_of_a_trained_lenet_on_digits(trained_lenet8):
    x = Gaussian(digits().test.x[:16], var=torch.tensor(0.25**2))
    assert abs(std_ratio(trained_lenet8, x, 4_000) - 1) < 0.1
    assert (propagate(trained_lenet8, x).std / linearize_smoothed(trained_lenet8, x).std).mean() < 0.1


def test_the_smoothed_tangent_has_the_spread_of_a_trained_lenet_on_mnist(real_mnist):
    from gaussreg_lab.datasets import Images

    model = lenet()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    few = Images(real_mnist.train.x[:10_000], real_mnist.train.y[:10_000])
    fit(model, batches(few), cross_entropy, optimizer, 2, progress=False)
    x = Gaussian(real_mnist.test.x[:8], var=torch.tensor(0.25**2))
    assert abs(std_ratio(model, x, 1_500) - 1) < 0.1


def test_the_smoothed_mean_is_closer_than_the_papers_and_the_plain_one(trained_lenet8):
    x = Gaussian(digits().test.x[:16], var=torch.tensor(0.5**2))
    truth = sample_moments(trained_lenet8, x, 4_000).mean
    plain = (trained_lenet8(x.mean) - truth).norm()
    paper = (first_relu_mean(trained_lenet8, x) - truth).norm()
    smooth = (linearize_smoothed(trained_lenet8, x).mean - truth).norm()
    assert smooth < paper < plain


def test_splitting_shares_the_weights_and_goes_into_nested_parts():
    model = nn.Sequential(nn.Sequential(nn.Linear(2, 3), nn.ReLU()), nn.Linear(3, 2))
    before, after = split_at_first_relu(model)
    assert before[0] is model[0][0]
    assert after[0] is model[1]
    x = randn(2, 2).float()
    torch.testing.assert_close(after(before(x).relu()), model(x))


def test_a_jacobian_carries_both_kinds_of_spread():
    jacobian, var = randn(2, 3, 4), randn(2, 4, seed=1).square()
    by_var = spread_through(jacobian, Gaussian(randn(2, 4), var=var))
    by_cov = spread_through(jacobian, Gaussian(randn(2, 4), cov=torch.diag_embed(var)))
    torch.testing.assert_close(by_var, by_cov)


def test_no_graph_is_left_and_the_callers_tensors_are_untouched():
    model, x = randomized(mlp((4, 5, 3))), randn(2, 4)
    got = linearize_smoothed(model, Gaussian(x, var=torch.tensor(0.3).double()))
    assert not got.cov.requires_grad
    assert not x.requires_grad
    assert all(weight.grad is None for weight in model.parameters())


@pytest.mark.parametrize("way", [two_stage, first_relu_mean], ids=lambda way: way.__name__)
def test_models_that_cannot_be_split_are_refused(way):
    given = Gaussian(torch.zeros(1, 2), var=torch.tensor(1.0))
    with pytest.raises(NotImplementedError, match=r"an nn.Sequential, got Linear"):
        way(nn.Linear(2, 2), given)
    with pytest.raises(ValueError, match=r"a model with a ReLU, got \['Linear'\]"):
        way(nn.Sequential(nn.Linear(2, 2)), given)
