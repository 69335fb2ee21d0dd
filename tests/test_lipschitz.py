"""How far a network can move its output: never less than it is seen to, and exact where it can be."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from gaussreg_lab.layer_maps import layer_map
from gaussreg_lab.linear_map import jacobian_map, lanczos, length, matrix_of, random_start
from gaussreg_lab.lipschitz import layer_gains, lipschitz_bound, margin_scale, steepest_slope
from gaussreg_lab.models import Normalize, lenet8, mlp
from gaussreg_lab.robustness import margins
from gaussreg_lab.spectral import cap_network

ONE = torch.ones(1, dtype=torch.float64)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dense(layer: nn.Module, size: tuple[int, ...] | None = None) -> Tensor:
    return matrix_of(layer_map(layer, size), ONE)


def top(matrix: Tensor) -> float:
    return torch.linalg.svdvals(matrix)[0].item()


def batch_norm(kind: type[nn.Module], channels: int) -> nn.Module:
    layer = kind(channels).double()
    layer.running_mean.copy_(randn(channels, seed=1))
    layer.running_var.copy_(randn(channels, seed=2).square() + 0.1)
    nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(3))
    return layer


def small_convnet(pool: nn.Module | None = None, activation: nn.Module | None = None) -> nn.Sequential:
    """(1, 6, 5) images to three logits."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            Normalize(),
            nn.Conv2d(1, 3, 3, padding=1, stride=(1, 2)),
            activation or nn.ReLU(),
            nn.Conv2d(3, 4, (2, 3), padding=1, groups=1, padding_mode="circular"),
            activation or nn.ReLU(),
            pool or nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(12, 3),
        ).double()


def normed_network() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        first = nn.Sequential(nn.Conv2d(1, 3, 3), batch_norm(nn.BatchNorm2d, 3), nn.Tanh())
        last = nn.Sequential(nn.Flatten(), nn.Linear(36, 5), batch_norm(nn.BatchNorm1d, 5), nn.Sigmoid())
        return nn.Sequential(first, nn.Dropout(0.3), nn.Identity(), last).double()


def upsampling_network() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return nn.Sequential(
            nn.ConvTranspose2d(1, 2, 3, stride=2),
            nn.ELU(1.7),
            nn.AdaptiveAvgPool2d((3, 2)),
            nn.LeakyReLU(-1.5),
        ).double()


NETWORKS = {
    "linear layers": mlp((30, 8, 6, 3)).double(),
    "convolutions": small_convnet(),
    "maxima": small_convnet(nn.MaxPool2d(2), nn.LeakyReLU(0.1)),
    "overlapping maxima": small_convnet(nn.MaxPool2d(3, stride=1, padding=1, dilation=1).eval()),
    "batch norm": normed_network(),
    "upsampling": upsampling_network(),
    "capped": cap_network(mlp((30, 8, 6, 3)), torch.zeros(1, 1, 6, 5), 0.3).double().eval(),
}
NETWORKS["overlapping maxima"][-1] = nn.Linear(4 * 7 * 3, 3).double()
NETWORKS["overlapping maxima"][-1].requires_grad_(False)
EXAMPLE = torch.zeros(1, 1, 6, 5, dtype=torch.float64)
EACH = pytest.mark.parametrize("name", NETWORKS)
BOUNDS: dict[str, float] = {}


def bound_of(name: str) -> float:
    if name not in BOUNDS:
        BOUNDS[name] = lipschitz_bound(NETWORKS[name], EXAMPLE)
    return BOUNDS[name]


# the bound holds


@EACH
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([1e-3, 0.1, 1.0, 30.0]), step=st.floats(1e-3, 30.0))
def test_no_two_inputs_move_further_apart_than_the_bound(name, seed, scale, step):
    model = NETWORKS[name].eval()
    x = scale * randn(8, 1, 6, 5, seed=seed)
    away = step * randn(8, 1, 6, 5, seed=seed + 1)
    with torch.no_grad():
        gain = length(model(x + away) - model(x)) / length(away)
    assert gain.max().item() <= bound_of(name) * (1 + 1e-6)


@EACH
def test_no_jacobian_stretches_more_than_the_bound(name):
    model, x = NETWORKS[name].eval(), 2 * randn(200, 1, 6, 5)
    linear = jacobian_map(model, x)
    norms = lanczos(linear, random_start(linear, x, batch=200)).value
    assert norms.max().item() <= bound_of(name) * (1 + 1e-6)
    assert norms.max().item() > 0.01 * bound_of(name)  # and it is not absurdly far away


# the bound is what it says


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(7, 4), (7,)),
        (nn.Conv1d(2, 3, 3, stride=2), (2, 9)),
        (nn.Conv2d(2, 4, 3, stride=(2, 1), padding=2, dilation=2, groups=2), (2, 6, 5)),
        (nn.Conv3d(1, 2, 2), (1, 3, 4, 3)),
        (nn.ConvTranspose1d(2, 3, 3, stride=2), (2, 5)),
        (nn.ConvTranspose2d(2, 3, 3, stride=2, output_padding=1), (2, 3, 4)),
        (nn.ConvTranspose3d(1, 2, 2), (1, 3, 2, 2)),
    ],
    ids=str,
)
def test_the_bound_of_one_affine_layer_is_reached(layer, shape):
    model = nn.Sequential(layer.double())
    norm = lipschitz_bound(model, torch.zeros(1, *shape).double())
    _, values, directions = torch.linalg.svd(dense(layer, shape[1:] or None))
    assert norm == pytest.approx(values[0].item(), rel=1e-9)
    x = randn(1, *shape)
    with torch.no_grad():
        moved = model(x + directions[0].view(1, *shape)) - model(x)
    assert moved.norm().item() == pytest.approx(norm, rel=1e-9)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (Normalize(0.3, 0.25), (1, 4, 4)),
        (Normalize([0.1, 0.2], [0.5, 2.0]), (2, 3, 3)),
        (nn.AvgPool1d(3, stride=1, padding=1), (2, 7)),
        (nn.AvgPool2d(2), (2, 4, 6)),
        (nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False, ceil_mode=True), (1, 6, 5)),
        (nn.AdaptiveAvgPool2d((2, 3)), (2, 5, 7)),
        (batch_norm(nn.BatchNorm1d, 4).eval(), (4,)),
        (batch_norm(nn.BatchNorm2d, 3).eval(), (3, 4, 2)),
    ],
    ids=str,
)
def test_the_slope_of_other_affine_layers_is_the_norm_of_their_jacobian(layer, shape):
    layer = layer.double()
    jacobian = torch.func.jacrev(lambda x: layer(x[None])[0].flatten())(randn(*shape)).detach()
    got = steepest_slope(layer, torch.zeros(1, *shape).double())
    assert got == pytest.approx(top(jacobian.flatten(1)), rel=1e-9)


@pytest.mark.parametrize(
    "layer",
    [nn.ReLU(), nn.Tanh(), nn.Sigmoid(), nn.Softplus(), nn.Softplus(3.0), nn.Identity(), nn.LeakyReLU(0.2),
     nn.LeakyReLU(-1.5), nn.LeakyReLU(3.0), nn.ELU(), nn.ELU(2.5), nn.ELU(0.5)],
    ids=str,
)  # fmt: skip
def test_the_slope_of_an_activation_is_the_largest_on_a_fine_grid(layer):
    t = torch.linspace(-12, 12, 480_001, dtype=torch.float64)
    measured = (layer(t).diff() / t.diff()).abs().max().item()
    assert steepest_slope(layer, torch.zeros(1, 3)) == pytest.approx(measured, rel=1e-4)


def test_a_small_network_has_the_product_of_its_norms():
    model = mlp((30, 8, 6, 3)).double()
    expected = 2 * math.prod(torch.linalg.matrix_norm(model[k].weight, 2).item() for k in (2, 4, 6))
    assert lipschitz_bound(model, EXAMPLE) == pytest.approx(expected, rel=1e-9)  # 2: Normalize


def test_gains_are_named_as_in_the_model_and_nested_networks_unfolded():
    model = normed_network()
    gains = layer_gains(model, EXAMPLE)
    names = ["0.0", "0.1", "0.2", "1", "2", "3.0", "3.1", "3.2", "3.3"]
    assert [it.name for it in gains] == names
    assert [it.gain for it in gains if it.name in ("0.2", "1", "2", "3.0", "3.3")] == [1, 1, 1, 1, 0.25]
    assert gains[0].gain == pytest.approx(top(dense(model[0][0], (6, 5))), rel=1e-9)
    assert lipschitz_bound(model, EXAMPLE) == math.prod(it.gain for it in gains)


def test_a_layer_used_twice_counts_twice():
    layer = nn.Linear(4, 4).double()
    model = nn.Sequential(layer, relu := nn.ReLU(), layer, relu, layer)
    norm = top(dense(layer))
    assert len(layer_gains(model, randn(1, 4))) == 5
    assert lipschitz_bound(model, randn(1, 4)) == pytest.approx(norm**3, rel=1e-9)
    assert margin_scale(model, randn(1, 4)) == pytest.approx(
        norm**3 * math.sqrt(3) * dense(layer).norm().item() / norm, rel=1e-9
    )


def test_only_the_size_of_the_example_matters():
    model = small_convnet()
    expected = lipschitz_bound(model, EXAMPLE)
    assert lipschitz_bound(model, 5 * randn(3, 1, 6, 5)) == expected


def test_the_model_is_left_in_its_mode_and_without_gradients():
    model = normed_network().train()
    model[1].eval()
    lipschitz_bound(model, EXAMPLE)
    assert model.training
    assert model[0][1].training
    assert not model[1].training
    assert all(weight.grad is None for weight in model.parameters())


# maxima


POOLS = [
    (nn.MaxPool2d(2), (4, 4)),
    (nn.MaxPool2d(3, stride=1), (5, 5)),
    (nn.MaxPool2d(3, stride=2), (7, 6)),
    (nn.MaxPool2d(3, stride=2, padding=1), (6, 5)),
    (nn.MaxPool2d(3, stride=2, ceil_mode=True), (4, 4)),  # the second window hangs over
    (nn.MaxPool2d((3, 2), stride=(2, 1), padding=(1, 0), ceil_mode=True), (4, 5)),
    (nn.MaxPool2d((2, 3), stride=(1, 2), dilation=(2, 1), padding=(1, 0)), (6, 7)),
    (nn.MaxPool2d(2, stride=1, dilation=3), (7, 5)),
    (nn.MaxPool2d(2, stride=3), (7, 7)),
]


@pytest.mark.parametrize(("pool", "size"), POOLS, ids=str)
def test_the_slope_of_a_pooling_counts_the_windows_over_a_pixel(pool, size):
    """A single bright pixel is the maximum of every window over it, which reaches the bound."""
    pixels = size[0] * size[1]
    bright = torch.eye(pixels).view(pixels, 1, *size).double()
    windows = pool(bright).flatten(1).sum(dim=1).max().item()
    slope = steepest_slope(pool, torch.zeros(1, 3, *size))
    assert slope == pytest.approx(math.sqrt(windows), rel=1e-6)
    x, away = randn(500, 1, *size), randn(500, 1, *size, seed=1)
    assert (length(pool(x + away) - pool(x)) / length(away)).max().item() <= slope * (1 + 1e-12)


# margins


def scale_by_hand(matrices: list[Tensor], attacked: bool) -> float:
    norms = [top(it) for it in matrices]
    ratios = sum((it.norm().item() / norm) ** 2 for it, norm in zip(matrices, norms, strict=True))
    growth, product = 2.0, 1.0
    for norm in norms[:-1]:
        product *= norm
        growth += product
    return product * norms[-1] * math.sqrt(ratios) * (growth if attacked else 1)


@pytest.mark.parametrize("attacked", [False, True])
def test_the_scale_of_margins_is_that_of_dense_matrices(attacked):
    model = small_convnet()
    matrices = [dense(model[1], (6, 5)), dense(model[3], (6, 3)), dense(model[7])]
    expected = scale_by_hand(matrices, attacked)
    assert margin_scale(model, randn(2, 1, 6, 5), attacked) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("attacked", [False, True])
def test_the_scale_holds_for_transposed_and_strided_layers_too(attacked):
    first = nn.ConvTranspose2d(2, 4, 3, stride=2, padding=1, output_padding=1, groups=2)
    second = nn.Conv2d(4, 2, 3, stride=3, padding=2, dilation=2, groups=2, padding_mode="circular")
    model = nn.Sequential(first, nn.Sequential(nn.ReLU(), second)).double()
    expected = scale_by_hand([dense(first, (3, 4)), dense(second, (6, 8))], attacked)
    assert margin_scale(model, randn(1, 2, 3, 4), attacked) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("factor", [2.0, 0.01])
def test_scaled_margins_do_not_change_with_the_last_layer(factor):
    model, x, y = lenet8(), torch.rand(50, 1, 8, 8), torch.arange(50) % 10
    before = margins(model, x, y) / margin_scale(model, x)
    with torch.no_grad():
        model[-1].weight.mul_(factor)
        model[-1].bias.mul_(factor)
    torch.testing.assert_close(margins(model, x, y) / margin_scale(model, x), before, rtol=1e-5, atol=1e-8)


def test_a_single_layer_reaches_twice_its_scale_when_attacked():
    model = nn.Sequential(nn.Linear(5, 3)).double()
    assert margin_scale(model, randn(1, 5)) == pytest.approx(dense(model[0]).norm().item(), rel=1e-12)
    assert margin_scale(model, randn(1, 5), True) == pytest.approx(
        2 * dense(model[0]).norm().item(), rel=1e-12
    )


def test_a_padding_whose_pixels_count_several_times_has_no_scale():
    model = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"))
    with pytest.raises(NotImplementedError, match="padding_mode zeros or circular, got 'reflect'"):
        margin_scale(model, torch.zeros(1, 1, 4, 4))
    model = nn.Sequential(nn.Conv2d(1, 1, 5, padding=2, padding_mode="circular"))
    with pytest.raises(NotImplementedError, match="circular kernel no longer than the input"):
        margin_scale(model, torch.zeros(1, 1, 8, 4))
    assert margin_scale(model, torch.zeros(1, 1, 8, 5)) == pytest.approx(
        dense(model[0].double(), (8, 5)).norm().item(), rel=1e-6
    )


def test_a_model_without_weights_has_no_scale():
    with pytest.raises(ValueError, match="linear layers or convolutions, got none"):
        margin_scale(nn.Sequential(nn.ReLU()), torch.zeros(1, 4))


# rules


class Twice(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


class Thrice(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 3 * x


def test_a_layer_without_a_rule_is_refused_with_the_known_ones():
    with pytest.raises(
        NotImplementedError, match=r"known \(AdaptiveAvgPool2d, .*Linear.*Tanh.*\), got Thrice"
    ):
        lipschitz_bound(nn.Sequential(nn.ReLU(), Thrice()), torch.zeros(1, 4))


def test_a_layer_of_your_own_joins_by_a_rule():
    @steepest_slope.register
    def _(layer: Twice, example: Tensor) -> float:
        assert example.shape == (1, 3)
        return 2.0

    assert lipschitz_bound(nn.Sequential(nn.Flatten(), Twice(), Twice()), torch.zeros(7, 1, 3)) == 4


@pytest.mark.parametrize("measure", [layer_gains, lipschitz_bound, margin_scale])
def test_layers_have_to_follow_each_other(measure):
    with pytest.raises(TypeError, match=r"nn\.Sequential, whose layers follow each other, got Linear"):
        measure(nn.Linear(4, 2), torch.zeros(1, 4))


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(4), nn.BatchNorm2d(4), nn.Dropout(0.5)], ids=str)
def test_a_layer_that_is_no_fixed_map_in_train_mode_is_refused_there(layer):
    with pytest.raises(ValueError, match=f"{type(layer).__name__} in eval mode, where it is a fixed map"):
        steepest_slope(layer.train(), torch.zeros(2, 4, 3, 3))


def test_a_batch_norm_without_statistics_of_its_own_is_never_a_fixed_map():
    layer = nn.BatchNorm1d(4, track_running_stats=False).eval()
    with pytest.raises(ValueError, match="BatchNorm1d with running statistics"):
        steepest_slope(layer, torch.zeros(1, 4))


def test_a_network_with_a_layer_of_zeros_has_no_scale():
    model = nn.Sequential(nn.Linear(3, 2))
    nn.init.zeros_(model[0].weight)
    with pytest.raises(ValueError, match="layers that do something, got weights of 0 in Linear"):
        margin_scale(model, torch.zeros(1, 3))
