"""Whole networks: exact where theory says so, against samples elsewhere; graphs, sums, refusals."""

import pytest
import torch
from torch import nn

from gaussreg_lab.covariance import relu_covariance_gate, relu_covariance_hermite
from gaussreg_lab.datasets import batches, digits
from gaussreg_lab.gaussian import Gaussian
from gaussreg_lab.losses import cross_entropy
from gaussreg_lab.models import cifar_convnet, lenet, lenet8, mlp
from gaussreg_lab.propagation import layer_by_layer, propagate
from gaussreg_lab.sampling import sample_moments
from gaussreg_lab.training import fit


def independent(x: torch.Tensor, sigma: float) -> Gaussian:
    return Gaussian(x, var=torch.tensor(sigma**2).to(x))


def correlated(x: torch.Tensor, sigma: float) -> Gaussian:
    n = x[0].numel()
    return Gaussian(x, cov=sigma**2 * torch.eye(n).to(x).expand(len(x), n, n))


def trained(model: nn.Module, epochs: int) -> nn.Module:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    fit(model, batches(digits().train, 64), cross_entropy, optimizer, epochs, progress=False)
    return model


@pytest.fixture(scope="module")
def deep_mlp() -> nn.Module:
    return trained(mlp((64, 128, 128, 10)), epochs=20)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return digits().test.x[:16]


def randomized(model: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.5, generator=generator)
    return model.double().eval()


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# what is exact


def test_one_hidden_layer_is_exact():
    model, x = randomized(mlp((6, 8, 3))), randn(3, 6)
    got = propagate(model, correlated(x, 0.7))
    sampled = sample_moments(model, correlated(x, 0.7), 200_000)
    assert ((got.mean - sampled.mean) / sampled.mean_error).abs().max() < 4.5
    assert ((got.variances - sampled.var) / sampled.var_error).abs().max() < 4.5
    own = got.variances
    error = (
        (2 * own[:, :, None] * own[:, None, :] + got.cov**2) / 200_000
    ).sqrt()  # generous: tails are light
    assert ((got.cov - sampled.cov) / error).abs().max() < 4.5


def test_an_affine_network_is_exact_with_correlated_input():
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(8, 3))
    model, x = randomized(model), randn(2, 1, 4, 4)
    factor = randn(2, 16, 16, seed=1)
    cov = factor @ factor.mT
    eye = torch.eye(16).double().view(16, 1, 4, 4)
    matrix = (model(eye) - model(torch.zeros(1, 1, 4, 4).double())).T
    got = propagate(model, Gaussian(x, cov=cov))
    torch.testing.assert_close(got.mean, model(x))
    torch.testing.assert_close(got.cov, matrix @ cov @ matrix.T, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("given", [independent, correlated])
@pytest.mark.parametrize("model", [mlp((64, 16, 10)), lenet8(channels=(2, 3), hidden=8, pool=nn.MaxPool2d)])
def test_without_noise_the_mean_is_the_output(model, given):
    model, x = randomized(model), randn(2, 1, 8, 8)
    got = propagate(model, given(x, 0.0))
    torch.testing.assert_close(got.mean, model(x), rtol=1e-9, atol=1e-9)
    assert got.std.max() < 1e-6


# what is close


@pytest.mark.parametrize("sigma", [0.125, 0.5])
def test_logits_of_a_trained_mlp_are_those_of_samples(deep_mlp, images, sigma):
    sampled = sample_moments(deep_mlp, independent(images, sigma), 40_000)

    def std_ratio_and_cov_error(got: Gaussian) -> tuple[float, float]:
        missed = torch.linalg.matrix_norm(got.cov - sampled.cov) / torch.linalg.matrix_norm(sampled.cov)
        return (got.std / sampled.var.sqrt()).mean().item(), missed.mean().item()

    x = correlated(images, sigma)
    for ratio, missed in map(
        std_ratio_and_cov_error,
        (propagate(deep_mlp, x), propagate(deep_mlp, x, relu_covariance_hermite)),
    ):
        assert abs(ratio - 1) < 0.02
        assert missed < 0.05
    ratio, _ = std_ratio_and_cov_error(propagate(deep_mlp, x, relu_covariance_gate))
    assert abs(ratio - 1) < 0.03


def test_independence_loses_most_of_the_spread(deep_mlp, images):
    sampled = sample_moments(deep_mlp, independent(images, 0.25), 5_000)
    got = propagate(deep_mlp, independent(images, 0.25))
    assert (got.std / sampled.var.sqrt()).mean() < 0.25


def test_a_small_convolutional_network_with_all_covariances(images):
    model = trained(lenet8(channels=(4, 8), hidden=16), epochs=10)
    got = propagate(model, correlated(images[:2], 0.25))
    sampled = sample_moments(model, independent(images[:2], 0.25), 20_000)
    assert ((got.std / sampled.var.sqrt()).mean() - 1).abs() < 0.03
    assert ((got.mean - sampled.mean).norm() / sampled.mean.norm()) < 0.02


# gradients


def test_moments_have_derivatives_by_weights_and_input():
    model, x = randomized(mlp((3, 4, 2))), randn(2, 3)
    assert torch.autograd.gradcheck(
        lambda mean: propagate(model, independent(mean, 0.5)).var, (x.clone().requires_grad_(),)
    )
    assert torch.autograd.gradcheck(
        lambda mean: propagate(model, correlated(mean, 0.5)).cov, (x.clone().requires_grad_(),)
    )
    propagate(model, correlated(x, 0.5)).cov.sum().backward()
    assert all(weight.grad.abs().sum() > 0 for weight in model[2].parameters())


# step by step


def test_every_layer_is_a_step_with_its_name():
    steps = list(
        layer_by_layer(lenet(channels=(2, 3), hidden=4), independent(torch.zeros(1, 1, 28, 28), 0.1))
    )
    assert [step.name for step in steps] == ["input", *(str(number) for number in range(11))]
    assert steps[-1].moments.mean.shape == (1, 10)


def test_a_step_says_which_independence_it_assumed():
    x = torch.zeros(1, 4)
    steps = {step.name: step.assumed for step in layer_by_layer(mlp((4, 3, 2)), independent(x, 0.1))}
    assert steps["3"] == ""  # a ReLU looks at one input
    assert steps["4"] == "its inputs are independent of each other"
    by_cov = layer_by_layer(mlp((4, 3, 2)), correlated(x, 0.1))
    assert all(step.assumed == "" for step in by_cov)


class InARow(nn.Module):
    """Calls the layers of a Sequential, one of them twice; has to be traced."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x):
        first, relu, second, _, third = self.layers
        return third(relu(second(relu(first(x)))))


@pytest.mark.parametrize("gaussian", [independent, correlated])
def test_layers_in_a_row_are_what_tracing_finds(gaussian):
    relu = nn.ReLU()
    model = nn.Sequential(nn.Linear(4, 6), relu, nn.Linear(6, 5), relu, nn.Linear(5, 3))
    x = gaussian(randn(2, 4), 0.6)
    steps, traced = (list(layer_by_layer(it, x)) for it in (randomized(model), InARow(model)))
    assert [step.name for step in steps] == ["input", "0", "1", "2", "3", "4"]
    assert len(traced) == len(steps)
    for one, other in zip(steps, traced, strict=True):
        assert torch.equal(one.moments.mean, other.moments.mean)
        assert torch.equal(one.moments.variances, other.moments.variances)
        assert one.assumed == other.assumed


# residual sums


class Block(nn.Module):
    """x + relu(x), and then a sum of it all."""

    def __init__(self, n: int = 4) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.linear = nn.Linear(n, 2)

    def forward(self, x):
        out = self.relu(x)
        out += x
        return self.linear(out)


class Deep(nn.Module):
    """Two paths of different length between the same ends, relu and flatten called as functions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(4, 4) for _ in range(3))

    def forward(self, x):
        x = torch.flatten(x, 1)
        early = self.first(x)
        late = self.third(torch.relu(self.second(early.relu())))
        return torch.add(late, early)


def test_a_residual_sum_with_covariances_is_exact_for_one_relu():
    model, x = randomized(Block()), randn(2, 4)
    factor = randn(2, 4, 4, seed=2)
    given = Gaussian(x, cov=factor @ factor.mT)
    got, sampled = propagate(model, given), sample_moments(model, given, 200_000)
    assert ((got.mean - sampled.mean) / sampled.mean_error).abs().max() < 4.5
    assert ((got.variances - sampled.var) / sampled.var_error).abs().max() < 4.5


def test_a_residual_sum_without_covariances_says_what_it_assumes():
    model, x = randomized(Block()), independent(randn(2, 4), 1.0)
    sums = [step for step in layer_by_layer(model, x) if "branches" in step.assumed]
    assert [step.assumed for step in sums] == ["the two branches of the sum are independent of each other"]
    sampled = sample_moments(model, x, 20_000)
    assert (propagate(model, x).var < 0.9 * sampled.var).all()  # the branches rise and fall together


def test_two_paths_of_different_length_are_close_to_samples():
    model, x = randomized(Deep(), seed=3), randn(2, 1, 2, 2)
    got, sampled = propagate(model, correlated(x, 0.5)), sample_moments(model, correlated(x, 0.5), 100_000)
    assert (got.std / sampled.var.sqrt() - 1).abs().max() < 0.05
    assert ((got.mean - sampled.mean) / sampled.var.sqrt()).abs().max() < 0.05


def test_a_resnet_propagates_and_names_its_sums():
    from torchvision.models import resnet18

    torch.manual_seed(0)
    model = resnet18(num_classes=10)
    model.train()
    with torch.no_grad():
        model(torch.randn(16, 3, 32, 32))  # running statistics of something
    model.eval()
    x = independent(torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1)), 0.1)
    steps = list(layer_by_layer(model, x))
    assert sum("branches" in step.assumed for step in steps) == 8
    got, sampled = steps[-1].moments, sample_moments(model, x, 300)
    assert got.mean.shape == (1, 10)
    plain = (model(x.mean) - sampled.mean).norm()
    assert (got.mean - sampled.mean).norm() < plain  # better than ignoring the noise
    assert 0.5 < (got.std / sampled.var.sqrt()).mean() < 1.1


def test_a_single_layer_is_a_short_network():
    got = propagate(nn.ReLU(), independent(torch.zeros(1, 3), 1.0))
    assert got.mean[0, 0].item() == pytest.approx(0.3989, abs=1e-4)


def test_cifar_network_passes():
    got = propagate(cifar_convnet(width=4), independent(torch.rand(2, 3, 32, 32), 0.1))
    assert got.mean.shape == (2, 10)


# refusals


class Squared(nn.Module):
    def forward(self, x):
        return x * x


class Choosing(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class TwoInputs(nn.Module):
    def forward(self, x, y):
        return x + y


class FlattensAll(nn.Module):
    def forward(self, x):
        return torch.flatten(x)


X = Gaussian(torch.zeros(2, 3), var=torch.tensor(1.0))
BAD = [
    (nn.Sequential(nn.Linear(3, 2), nn.Sigmoid()), X, NotImplementedError, r"Linear.*got Sigmoid.*register"),
    (Squared(), X, NotImplementedError, "got a call of mul"),
    (Choosing(), X, NotImplementedError, "torch.fx can trace.*got Choosing"),
    (TwoInputs(), X, NotImplementedError, "one input, got one of 2"),
    (FlattensAll(), X, ValueError, "start_dim=0"),
    (nn.Sequential(nn.BatchNorm1d(3)).train(), X, ValueError, "eval mode.*BatchNorm1d.*train mode"),
    (nn.ReLU(), torch.zeros(2, 3), TypeError, "x to be a Gaussian, got Tensor"),
    (nn.ReLU(), Gaussian(torch.zeros(3), var=torch.tensor(1.0)), ValueError, r"batch first.*mean \(3,\)"),
    (nn.ReLU(), Gaussian(torch.zeros(3), cov=torch.eye(3)), ValueError, r"batch first"),
]


@pytest.mark.parametrize(("model", "x", "error", "message"), BAD)
def test_what_cannot_be_propagated_is_refused(model, x, error, message):
    with pytest.raises(error, match=message):
        propagate(model, x)


@pytest.mark.parametrize(
    ("spread", "message"),
    [
        ({}, "Expected either var or cov, got neither"),
        ({"var": torch.ones(2, 3), "cov": torch.eye(3).expand(2, 3, 3)}, "got both"),
        ({"cov": torch.ones(2, 3, 4)}, r"shape \(\.\.\., n, n\)"),
        ({"cov": torch.tensor([[1.0, 0.5, 0], [0.1, 1, 0], [0, 0, 1]]).expand(2, 3, 3)}, "symmetric"),
        (
            {"cov": (2 * torch.ones(3, 3) - torch.eye(3)).expand(2, 3, 3)},
            "semi-definite cov, got one with an eig",
        ),
    ],
)
def test_a_spread_that_is_none_is_refused(spread, message):
    with pytest.raises(ValueError, match=message):
        propagate(nn.ReLU(), Gaussian(torch.zeros(2, 3), **spread))


def test_images_carry_the_covariance_of_their_flattened_pixels():
    x = Gaussian(torch.zeros(2, 1, 2, 2), cov=torch.eye(4).expand(2, 4, 4))
    assert x.std.shape == (2, 1, 2, 2)
    with pytest.raises(ValueError, match=r"got cov \(2, 2, 2\) with mean \(2, 1, 2, 2\)"):
        Gaussian(torch.zeros(2, 1, 2, 2), cov=torch.eye(2).expand(2, 2, 2))
