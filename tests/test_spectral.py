"""Caps on operator norms and the penalty on them, against dense singular values and finite differences."""

import copy
import gc
import io
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gaussreg_lab.datasets import Images, batches, digits
from gaussreg_lab.layer_maps import layer_map
from gaussreg_lab.linear_map import matrix_of, orthonormal
from gaussreg_lab.losses import cross_entropy
from gaussreg_lab.models import Normalize, lenet8, mlp
from gaussreg_lab.spectral import SpectralPenalty, cap_network, cap_spectral_norm, input_sizes, operator_norm
from gaussreg_lab.training import fit

ONE = torch.ones(1, dtype=torch.float64)
LAYERS = [  # layer, size of its input
    (lambda: nn.Linear(7, 5), None),
    (lambda: nn.Conv2d(2, 3, 3, padding=1), (6, 5)),
    (lambda: nn.Conv2d(4, 6, 3, stride=2, padding=2, dilation=2, groups=2), (6, 7)),
    (lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), (5, 4)),
    (lambda: nn.Conv2d(2, 3, 3, padding="same", padding_mode="reflect"), (5, 4)),
    (lambda: nn.Conv1d(2, 3, 4, stride=3), (9,)),
    (lambda: nn.Conv3d(1, 2, 2, padding=1), (3, 2, 3)),
    (lambda: nn.ConvTranspose2d(4, 2, 3, stride=2, padding=1, output_padding=1, groups=2), (3, 4)),
]
EACH = pytest.mark.parametrize(("build", "size"), LAYERS, ids=[str(build()) for build, _ in LAYERS])


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dense(layer: nn.Module, size: tuple[int, ...] | None, weight: Tensor | None = None) -> Tensor:
    weight = (layer.weight if weight is None else weight).detach().double()
    return matrix_of(layer_map(layer, size, weight), ONE)


def dense_norm(layer: nn.Module, size: tuple[int, ...] | None, weight: Tensor | None = None) -> float:
    return torch.linalg.svdvals(dense(layer, size, weight))[0].item()


def cap_of(layer: nn.Module) -> nn.Module:
    return layer.parametrizations.weight[0]


def inputs(layer: nn.Module, size: tuple[int, ...] | None, batch: int = 2) -> Tensor:
    return randn(batch, *([layer.in_features] if size is None else [layer.in_channels, *size])).to(
        layer.weight
    )


def odd_network(seed: int = 0) -> nn.Sequential:
    """Strides, dilation, groups, a rectangular kernel and circular padding."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            Normalize(),
            nn.Conv2d(1, 8, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=4),
            nn.ReLU(),
            nn.Conv2d(8, 12, (3, 2), stride=(1, 2), padding=1, groups=2, padding_mode="circular"),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(144, 10),
        )


NETWORKS = {"lenet8": lenet8, "mlp": mlp, "odd": odd_network}


def few_digits(count: int = 384) -> Images:
    x, y = digits().train
    return Images(x[:count], y[:count])


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, epochs: int = 10, images: int = 384
) -> list[float]:
    return fit(
        model, batches(few_digits(images), 128), cross_entropy, optimizer, epochs=epochs, progress=False
    ).losses


# the norm


@EACH
def test_the_norm_in_float32_is_that_of_the_dense_matrix(build, size):
    layer = build()
    assert operator_norm(layer, size) == pytest.approx(dense_norm(layer, size), rel=1e-9)


def test_the_norm_of_a_large_layer_is_below_its_claimed_error():
    """LeNet's first layers at their sizes, against a thousand more steps."""
    for layer, size in input_sizes(lenet8(), torch.zeros(1, 1, 8, 8)).items():
        assert operator_norm(layer, size) == pytest.approx(dense_norm(layer, size), rel=1e-9)


def test_the_norm_leaves_layer_and_generator_as_they_were():
    layer, state = nn.Conv2d(1, 2, 3), torch.get_rng_state()
    before = layer.weight.detach().clone()
    operator_norm(layer, (5, 5))
    assert torch.equal(layer.weight, before)
    assert layer.weight.grad is None
    assert torch.equal(torch.get_rng_state(), state)


def test_the_norm_of_zero_weights_is_zero():
    layer = nn.Conv2d(1, 2, 3)
    nn.init.zeros_(layer.weight)
    assert operator_norm(layer, (5, 5)) == 0


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_weights_that_are_not_finite_have_no_norm(wrong):
    layer = nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight[0, 1] = wrong
    for refuse in (operator_norm, lambda it: cap_spectral_norm(it, 1.0)):
        with pytest.raises(ValueError, match="Expected finite weights, got 1 others in Linear"):
            refuse(layer)
    assert not parametrize.is_parametrized(layer)


# the cap on one layer


@EACH
def test_a_layer_below_its_bound_keeps_its_weight_bitwise(build, size):
    layer = build()
    before = layer.weight.detach().clone()
    cap_spectral_norm(layer, 1.01 * operator_norm(layer, size), size)
    for _ in range(3):
        layer(inputs(layer, size))
        assert torch.equal(layer.weight, before)


@EACH
def test_a_layer_above_its_bound_has_exactly_that_norm_at_once(build, size):
    layer = build()
    bound = 0.4 * operator_norm(layer, size)
    before = layer.weight.detach().clone()
    assert cap_spectral_norm(layer, bound, size) is layer
    assert dense_norm(layer, size) == pytest.approx(bound, rel=1e-5)
    torch.testing.assert_close(layer.weight, 0.4 * before, rtol=1e-5, atol=0)
    assert torch.equal(layer.parametrizations.weight.original, before)


def test_an_infinite_bound_caps_nothing():
    layer = nn.Conv2d(1, 2, 3)
    with torch.no_grad():
        layer.weight.mul_(1e6)
    before = layer.weight.detach().clone()
    cap_spectral_norm(layer, math.inf, (5, 5))
    layer(torch.zeros(1, 1, 5, 5))
    assert torch.equal(layer.weight, before)


@EACH
def test_a_training_forward_makes_exactly_one_step_of_power_iteration(build, size):
    layer = cap_spectral_norm(build().double(), 0.5, size)
    cap, x = cap_of(layer), inputs(layer, size)
    trained = layer.parametrizations.weight.original
    start = orthonormal(randn(*cap.directions.shape))
    cap.directions.copy_(start)
    layer(x)
    matrix = dense(layer, size, trained)
    expected = matrix.T @ matrix @ start.flatten(1).T  # the same space, in whatever basis
    got = cap.directions.flatten(1)
    torch.testing.assert_close(got @ got.T, torch.eye(len(got), dtype=torch.float64))
    rank = torch.linalg.matrix_rank(expected).item()
    q, _ = torch.linalg.qr(torch.linalg.svd(expected, full_matrices=False).U[:, :rank])
    torch.testing.assert_close(got[:rank] @ q @ q.T, got[:rank], rtol=1e-8, atol=1e-9)


@EACH
def test_neither_eval_mode_nor_a_forward_without_gradients_makes_a_step(build, size):
    layer = cap_spectral_norm(build(), 0.5, size)
    x, cap = inputs(layer, size), cap_of(layer)
    cap.directions.copy_(orthonormal(randn(*cap.directions.shape)))
    before = cap.directions.clone()
    with torch.no_grad():
        layer.train()(x)
    layer.eval()(x).sum().backward()
    with torch.no_grad():
        layer(x)
    assert torch.equal(cap.directions, before)
    layer.train()(x)
    assert not torch.equal(cap.directions, before)


@EACH
def test_the_gradient_through_a_cap_is_that_of_finite_differences(build, size):
    """The direction that counts as fixed in the derivative is the converged one."""
    layer = build().double()
    bound, target, x = 0.6 * dense_norm(layer, size), None, inputs(layer, size)
    plain = copy.deepcopy(layer)
    cap_spectral_norm(layer, bound, size)
    target = randn(*layer(x).shape, seed=3)
    for _ in range(200):  # to convergence
        layer(x)
    (layer(x) * target).sum().backward()
    trained = layer.parametrizations.weight.original

    def loss(weight: Tensor) -> float:
        capped = weight / max(1.0, dense_norm(plain, size, weight) / bound)
        with torch.no_grad():
            plain.weight.copy_(capped)
            return (plain(x) * target).sum().item()

    for seed in range(3):
        along = randn(*trained.shape, seed=seed)
        step = 1e-5 * along
        expected = (loss(trained.detach() + step) - loss(trained.detach() - step)) / 2e-5
        assert (trained.grad * along).sum().item() == pytest.approx(expected, rel=1e-6, abs=1e-7)


def test_two_forwards_come_before_one_backward():
    layer, other = (cap_spectral_norm(nn.Linear(4, 3).double(), 0.1) for _ in range(2))
    other.load_state_dict(layer.state_dict())
    x, z = randn(5, 4), randn(5, 4, seed=1)
    (layer(x).square().sum() + layer(z).sum()).backward()
    other(x).square().sum().backward()
    other(z).sum().backward()
    got, expected = (it.parametrizations.weight.original.grad for it in (layer, other))
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-14)


def test_a_removed_cap_leaves_the_capped_weight_behind():
    layer = cap_spectral_norm(nn.Conv2d(1, 2, 3), 0.1, (5, 5))
    capped, x = layer.eval().weight.detach().clone(), torch.rand(1, 1, 5, 5)
    expected = layer(x)
    parametrize.remove_parametrizations(layer, "weight")
    assert type(layer) is nn.Conv2d
    assert torch.equal(layer.weight, capped)
    assert torch.equal(layer(x), expected)
    assert set(layer.state_dict()) == {"weight", "bias"}


@EACH
def test_weights_that_began_at_zero_are_capped_once_they_are_large(build, size):
    layer = build()
    nn.init.zeros_(layer.weight)
    cap_spectral_norm(layer, 0.5, size)
    x = inputs(layer, size)
    layer(x)
    assert torch.equal(layer.weight, torch.zeros_like(layer.weight))
    layer.weight = 10 * randn(*layer.weight.shape).float()
    for _ in range(300):
        layer(x)
    assert dense_norm(layer, size) == pytest.approx(0.5, rel=1e-3)


def test_a_weight_assigned_to_the_layer_is_the_trained_one():
    layer = cap_spectral_norm(nn.Linear(4, 4), 0.5)
    layer.weight = 3 * torch.eye(4)
    assert torch.equal(layer.parametrizations.weight.original, 3 * torch.eye(4))


def test_a_cap_moves_to_another_dtype_with_its_layer():
    layer = cap_spectral_norm(nn.Conv2d(1, 2, 3, padding=1), 0.5, (5, 5)).double()
    assert layer(randn(1, 1, 5, 5)).dtype == torch.float64
    assert cap_of(layer).directions.dtype == torch.float64
    assert "bound=0.5" in repr(layer)


@pytest.mark.parametrize("bound", [0.0, -1.0, math.nan, -math.inf])
def test_a_bound_has_to_be_positive(bound):
    layer = nn.Linear(3, 2)
    with pytest.raises(ValueError, match="bound > 0, got "):
        cap_spectral_norm(layer, bound)
    with pytest.raises(ValueError, match="bound > 0, got "):
        cap_network(nn.Sequential(layer), torch.zeros(1, 3), bound)
    assert not parametrize.is_parametrized(layer)


def test_a_layer_is_capped_once():
    layer = cap_spectral_norm(nn.Linear(3, 2), 1.0)
    with pytest.raises(ValueError, match="no parametrization yet, got ParametrizedLinear"):
        cap_spectral_norm(layer, 1.0)


def test_a_layer_without_weights_is_refused_with_the_known_ones():
    with pytest.raises(NotImplementedError, match=r"Expected one of Linear, Conv1d, Conv2d.*got ReLU"):
        cap_spectral_norm(nn.ReLU(), 1.0)


@pytest.mark.parametrize("size", [None, (8,), (8, 8, 8)])
def test_a_convolution_cannot_be_capped_without_the_size_its_norm_depends_on(size):
    layer = nn.Conv2d(1, 2, 3)
    with pytest.raises(ValueError, match=r"on which the norm of a Conv2d depends; got "):
        cap_spectral_norm(layer, 1.0, size)
    assert not parametrize.is_parametrized(layer)


# caps on a network


def test_sizes_are_those_of_the_inputs_in_order():
    model = odd_network().train()
    model[4].eval()
    got = list(input_sizes(model, torch.zeros(2, 1, 8, 8)).items())
    assert got == [(model[1], (8, 8)), (model[3], (4, 4)), (model[5], (4, 4)), (model[8], None)]
    assert model.training
    assert not model[4].training
    assert not any(layer._forward_pre_hooks for layer in model.modules())


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_of_a_network_begins_below_its_bound(name):
    model, example = NETWORKS[name](), torch.zeros(1, 1, 8, 8)
    sizes = input_sizes(model, example)
    free = [dense_norm(layer, size) for layer, size in sizes.items()]
    assert cap_network(model, example, 0.6) is model
    for before, (layer, size) in zip(free, sizes.items(), strict=True):
        assert dense_norm(layer, size) == pytest.approx(min(0.6, before), rel=1e-5)


@pytest.mark.parametrize("bound", [0.5, 1.0])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_trained_network_keeps_to_its_bound(name, optimizer, bound):
    model, example = NETWORKS[name](), torch.zeros(1, 1, 8, 8)
    sizes = input_sizes(model, example)
    cap_network(model, example, bound)
    weights = model.parameters()
    losses = train(
        model,
        torch.optim.Adam(weights, lr=1e-3) if optimizer == "adam" else torch.optim.SGD(weights, lr=0.1),
    )
    assert len(losses) == 30
    for layer, size in sizes.items():
        assert operator_norm(layer, size) <= 1.01 * bound, layer


@pytest.mark.parametrize("name", NETWORKS)
def test_a_saved_network_is_restored_bitwise_and_goes_on_as_the_first(name):
    example = torch.zeros(1, 1, 8, 8)
    first = cap_network(NETWORKS[name](), example, 0.5)
    adam = torch.optim.Adam(first.parameters(), lr=1e-3)
    train(first, adam, epochs=2, images=256)
    file = io.BytesIO()
    torch.save({"model": first.state_dict(), "adam": adam.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)

    second = cap_network(NETWORKS[name](seed=7), example, 0.5)
    assert not torch.equal(first[-1].weight, second[-1].weight)
    second.load_state_dict(saved["model"])
    x = few_digits().x[:32]
    assert torch.equal(first.eval()(x), second.eval()(x))
    again = torch.optim.Adam(second.parameters(), lr=1e-3)
    again.load_state_dict(saved["adam"])
    assert train(first, adam, epochs=2, images=256) == train(second, again, epochs=2, images=256)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])


def test_a_copy_of_a_capped_network_lives_on_its_own():
    model = cap_network(odd_network(), torch.zeros(1, 1, 8, 8), 0.5)
    twin, x = copy.deepcopy(model), few_digits().x[:16]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert torch.equal(model(x), twin(x))
    train(twin, torch.optim.SGD(twin.parameters(), lr=0.1), epochs=1, images=128)
    model.load_state_dict(before)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not torch.equal(model[1].weight, twin[1].weight)


def test_a_network_is_left_alone_if_one_of_its_layers_cannot_be_capped():
    for spoil, message in [
        (lambda layer: cap_spectral_norm(layer, 2.0), "no parametrization yet"),
        (lambda layer: nn.init.constant_(layer.weight, math.nan), "Expected finite weights"),
    ]:
        model = mlp((64, 8, 8, 10))
        spoil(model[-1])
        weights, state = list(model.parameters()), copy.deepcopy(model.state_dict())
        with pytest.raises(ValueError, match=message):
            cap_network(model, torch.zeros(1, 1, 8, 8), 0.1)
        assert all(now is before for now, before in zip(model.parameters(), weights, strict=True))
        assert type(model[2]) is type(model[4]) is nn.Linear
        for name, value in model.state_dict().items():
            torch.testing.assert_close(value, state[name], rtol=0, atol=0, equal_nan=True)


class AtTwoSizes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.conv(x))


def test_a_layer_at_two_sizes_has_no_one_norm():
    model = AtTwoSizes()
    with pytest.raises(ValueError, match=r"each layer at one input size.*\(8, 8\) and \(6, 6\)"):
        cap_network(model, torch.zeros(1, 1, 8, 8), 1.0)
    assert not parametrize.is_parametrized(model.conv)
    assert not model.conv._forward_pre_hooks


def test_a_layer_used_twice_at_one_size_is_capped_once():
    layer = nn.Linear(4, 4)
    cap_network(nn.Sequential(layer, nn.ReLU(), layer), torch.zeros(1, 4), 0.2)
    assert operator_norm(layer) == pytest.approx(0.2, rel=1e-5)


def test_a_network_without_weights_cannot_be_capped():
    with pytest.raises(ValueError, match="linear layers or convolutions, got none"):
        cap_network(nn.Sequential(nn.Flatten(), nn.ReLU()), torch.zeros(1, 4), 1.0)


def test_an_optimizer_built_before_the_cap_trains_the_same_weights():
    model = mlp()
    weights = list(model.parameters())
    cap_network(model, torch.zeros(1, 1, 8, 8), 0.5)
    assert {id(weight) for weight in model.parameters()} == {id(weight) for weight in weights}


# the penalty


def penalty_by_hand(model: nn.Module, example: Tensor) -> float:
    return 0.5 * sum(dense_norm(layer, size) ** 2 for layer, size in input_sizes(model, example).items())


@pytest.mark.parametrize("name", NETWORKS)
def test_the_penalty_is_half_the_sum_of_squared_norms(name):
    model, x = NETWORKS[name]().double(), randn(3, 1, 8, 8)
    got = SpectralPenalty()(model, x, None)
    assert got.shape == ()
    assert got.item() == pytest.approx(penalty_by_hand(model, x), rel=1e-9)


def test_the_gradient_of_the_penalty_is_that_of_finite_differences():
    model, x = odd_network().double(), randn(1, 1, 8, 8)
    SpectralPenalty()(model, x, None).backward()
    for layer in input_sizes(model, x):
        along = randn(*layer.weight.shape, seed=5)
        values = []
        for step in (1e-5, -2e-5):
            with torch.no_grad():
                layer.weight.add_(step * along)
            values.append(penalty_by_hand(model, x))
        with torch.no_grad():
            layer.weight.add_(1e-5 * along)
        expected = (values[0] - values[1]) / 2e-5
        assert (layer.weight.grad * along).sum().item() == pytest.approx(expected, rel=1e-6)
        assert layer.bias.grad is None


def test_the_penalty_follows_weights_that_stand_still_to_their_norms():
    model, x, penalty = mlp((64, 6, 4)).double(), randn(1, 1, 8, 8), SpectralPenalty()
    penalty(model, x, None)
    with torch.no_grad():
        for layer in input_sizes(model, x):
            layer.weight.copy_(randn(*layer.weight.shape, seed=8))
    expected = penalty_by_hand(model, x)
    values = [penalty(model, x, None).item() for _ in range(200)]
    assert values[0] < 0.99 * expected  # one step behind
    assert values == sorted(values) or max(values) - values[-1] < 1e-9
    assert values[-1] == pytest.approx(expected, rel=1e-6)


def test_one_penalty_serves_several_networks_and_forgets_those_that_are_gone():
    penalty, x = SpectralPenalty(), torch.zeros(1, 1, 8, 8)
    models = [mlp(seed=1), lenet8(), mlp(seed=2)]
    expected = [SpectralPenalty()(model, x, None).item() for model in models]
    assert [penalty(model, x, None).item() for model in models] == expected
    assert len(penalty._followed) == 3
    del models
    gc.collect()
    assert len(penalty._followed) == 0


def test_training_with_the_penalty_shrinks_the_norms():
    model, x = mlp((64, 16, 10)), few_digits(128).x
    before, penalty = penalty_by_hand(model, x[:1]), SpectralPenalty()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    fit(model, batches(few_digits(128)), penalty, optimizer, epochs=30, progress=False)
    after = penalty_by_hand(model, x[:1])
    assert after < 0.8 * before
    assert penalty(model, x, None).item() <= after * (1 + 1e-6)
    for _ in range(300):  # the weights stand still now
        last = penalty(model, x, None).item()
    assert last == pytest.approx(after, rel=1e-3)


def test_the_penalty_complains_as_the_caps_do():
    with pytest.raises(ValueError, match="each layer at one input size"):
        SpectralPenalty()(AtTwoSizes(), torch.zeros(1, 1, 8, 8), None)
    with pytest.raises(ValueError, match="linear layers or convolutions, got none"):
        SpectralPenalty()(nn.Sequential(nn.ReLU()), torch.zeros(1, 4), None)
