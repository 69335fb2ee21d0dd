"""Singular values by iteration, of matrices, Jacobians and pooling, against dense decompositions."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from gaussreg_lab.linear_map import (
    LinearMap,
    affine_map,
    jacobian_map,
    lanczos,
    length,
    matrix_of,
    power_iteration,
    random_start,
    unit,
)
from gaussreg_lab.models import Normalize

ONE = torch.ones(1, dtype=torch.float64)
BOTH = pytest.mark.parametrize("iterate", [power_iteration, lanczos])


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def as_map(matrices: Tensor) -> LinearMap:
    """One matrix for each element of the batch."""
    return LinearMap(
        lambda x: (matrices @ x[..., None])[..., 0],
        lambda y: (matrices.mT @ y[..., None])[..., 0],
        (matrices.shape[-1],),
    )


def with_values(values: list[float], rows: int, seed: int = 0) -> Tensor:
    """A matrix with these singular values and directions drawn by chance."""
    left, _ = torch.linalg.qr(randn(rows, rows, seed=seed))
    right, _ = torch.linalg.qr(randn(len(values), len(values), seed=seed + 1))
    return left[:, : len(values)] @ torch.diag(torch.tensor(values).double()) @ right


def counted(linear: LinearMap) -> tuple[LinearMap, list[str]]:
    calls: list[str] = []

    def forward(x: Tensor) -> Tensor:
        calls.append("forward")
        return linear.forward(x)

    def adjoint(y: Tensor) -> Tensor:
        calls.append("adjoint")
        return linear.adjoint(y)

    return LinearMap(forward, adjoint, linear.input_shape), calls


# both iterations


@BOTH
@pytest.mark.parametrize("shape", [(5, 8), (8, 5), (6, 6), (1, 4), (4, 1)])
def test_the_value_is_the_top_singular_value_of_each_matrix(iterate, shape):
    matrices = randn(3, *shape, seed=4)
    linear = as_map(matrices)
    got = iterate(linear, random_start(linear, ONE, batch=3), tolerance=1e-6, most=2000)
    torch.testing.assert_close(got.value, torch.linalg.svdvals(matrices)[:, 0], rtol=1e-10, atol=0)


@BOTH
def test_the_direction_has_length_1_and_is_stretched_by_the_value(iterate):
    linear = as_map(randn(3, 5, 7))
    got = iterate(linear, random_start(linear, ONE, batch=3), tolerance=1e-3)
    torch.testing.assert_close(length(got.direction), torch.ones(3).double(), rtol=1e-12, atol=0)
    torch.testing.assert_close(length(linear.forward(got.direction)), got.value, rtol=1e-12, atol=0)


@BOTH
@pytest.mark.parametrize("most", [1, 2, 5])
def test_the_residual_is_that_of_the_direction(iterate, most):
    matrices = randn(3, 9, 12)
    got = iterate(as_map(matrices), randn(3, 12, seed=1), tolerance=0, most=most)
    squares = (matrices.mT @ matrices @ got.direction[..., None])[..., 0]
    expected = length(squares - got.value[:, None].square() * got.direction) / got.value.square()
    torch.testing.assert_close(got.residual, expected, rtol=1e-9, atol=1e-12)
    assert got.steps == most


@BOTH
def test_every_step_gives_a_lower_bound_that_climbs(iterate):
    matrices = randn(2, 20, 20)
    linear, start = as_map(matrices), randn(2, 20, seed=1)
    values = torch.stack([iterate(linear, start, tolerance=0, most=most).value for most in range(1, 30)])
    assert (values.diff(dim=0) > -1e-12).all()
    assert (values <= torch.linalg.svdvals(matrices)[:, 0] * (1 + 1e-13)).all()


@BOTH
def test_a_singular_value_is_within_half_the_residual(iterate):
    matrices = randn(4, 15, 15)
    every = torch.linalg.svdvals(matrices)
    for most in range(1, 20):
        got = iterate(as_map(matrices), randn(4, 15, seed=1), tolerance=0, most=most)
        away = (every / got.value[:, None] - 1).abs().amin(dim=1)
        sure = got.residual < 0.1
        # to first order: the second one is residual^2 / 8
        assert (away <= got.residual / 2 + got.residual.square() / 7 + 1e-14)[sure].all()


@BOTH
def test_it_stops_at_its_tolerance_and_not_before(iterate):
    linear = as_map(randn(1, 30, 30))
    start = random_start(linear, ONE)
    got = iterate(linear, start, tolerance=1e-3)
    assert got.residual.item() <= 1e-3
    assert iterate(linear, start, tolerance=1e-3, most=got.steps - 1).residual.item() > 1e-3


@BOTH
def test_it_stops_at_most_and_counts_its_products(iterate):
    linear, calls = counted(as_map(with_values([1.0, 0.99, 0.98, 0.97, 0.96, 0.95, 0.94, 0.93], 9)[None]))
    got = iterate(linear, randn(1, 8), tolerance=1e-12, most=4)
    assert got.steps == 4
    assert (calls.count("forward"), calls.count("adjoint")) == (4, 4)


@BOTH
def test_the_hardest_of_a_batch_decides_how_long_it_takes(iterate):
    easy, hard = with_values([1.0, 0.1, 0.1, 0.1], 4), with_values([1.0, 0.9, 0.8, 0.7], 4)
    start = randn(1, 4)
    alone = [iterate(as_map(it[None]), start).steps for it in (easy, hard)]
    together = iterate(as_map(torch.stack([easy, hard])), start.expand(2, 4))
    assert together.steps == max(alone) > min(alone)
    torch.testing.assert_close(together.value, torch.ones(2).double(), rtol=1e-5, atol=0)


@BOTH
@pytest.mark.parametrize("values", [[0.0] * 5, [2.0, 0.0, 0.0, 0.0, 0.0], [2.0, 2.0, 1.0, 0.0, 0.0]], ids=str)
def test_maps_of_low_rank_have_finite_values(iterate, values):
    linear = as_map(with_values(values, 6)[None])
    got = iterate(linear, random_start(linear, ONE), tolerance=1e-9)
    assert got.value.item() == pytest.approx(max(values), rel=1e-12)
    assert all(it.isfinite().all() for it in got[:3])


@BOTH
def test_a_start_of_another_shape_is_refused(iterate):
    linear = as_map(randn(1, 3, 4))
    for start in (randn(1, 3), randn(4), randn(0, 4), randn(1, 4, 1)):
        with pytest.raises(ValueError, match=r"shape \(batch, \*\(4,\)\), got "):
            iterate(linear, start)


@BOTH
def test_a_start_of_zeros_is_refused(iterate):
    start = torch.stack([torch.ones(4), torch.zeros(4)]).double()
    with pytest.raises(ValueError, match="start that is not zero"):
        iterate(as_map(randn(1, 3, 4)), start)


@BOTH
@pytest.mark.parametrize("limits", [{"tolerance": -1e-3}, {"tolerance": float("nan")}, {"most": 0}], ids=str)
def test_limits_without_meaning_are_refused(iterate, limits):
    with pytest.raises(ValueError, match="tolerance >= 0 and most >= 1, got "):
        iterate(as_map(randn(1, 3, 4)), randn(1, 4), **limits)


# Lanczos alone


def test_lanczos_is_far_sooner_where_two_values_are_close():
    linear = as_map(with_values([1.0, 0.999, *torch.linspace(0.9, 0.1, 58).tolist()], 60)[None])
    start = random_start(linear, ONE)
    quick, slow = lanczos(linear, start, tolerance=1e-6), power_iteration(linear, start, 1e-6, most=20_000)
    assert abs(quick.value.item() - 1) < 1e-11
    assert abs(slow.value.item() - 1) < 1e-8
    assert 50 * quick.steps < slow.steps < 20_000


@given(
    rows=st.integers(1, 7),
    columns=st.integers(1, 7),
    seed=st.integers(0, 1000),
    rank=st.integers(0, 7),
    tolerance=st.sampled_from([0.0, 1e-12]),
)
def test_lanczos_finds_the_norm_of_any_small_matrix(rows, columns, seed, rank, tolerance):
    matrix = randn(rows, rank, seed=seed) @ randn(rank, columns, seed=seed + 1)
    got = lanczos(as_map(matrix[None]), randn(1, columns, seed=seed + 2), tolerance)
    expected = torch.linalg.svdvals(matrix).max().item()
    assert got.value.item() == pytest.approx(expected, rel=1e-12, abs=1e-300)


def test_lanczos_stays_below_the_norm_when_part_of_a_batch_has_nothing_left_to_find():
    """The first map moves two coordinates; after two steps its products are rounding alone."""
    diagonals = torch.stack([torch.tensor([3.0, 1, 0, 0, 0, 0, 0, 0]), torch.linspace(1, 3, 8)]).double()
    starts = torch.stack([torch.tensor([1.0, 1, 0, 0, 0, 0, 0, 0]), torch.ones(8)]).double()
    got = lanczos(LinearMap(diagonals.mul, diagonals.mul, (8,)), starts)
    assert got.steps > 3
    torch.testing.assert_close(got.value, torch.full((2,), 3.0).double(), rtol=1e-12, atol=0)


def test_lanczos_works_in_float32():
    matrices = randn(4, 20, 30)
    got = lanczos(as_map(matrices.float()), randn(4, 30, seed=1).float())
    assert got.value.dtype == torch.float32
    torch.testing.assert_close(got.value.double(), torch.linalg.svdvals(matrices)[:, 0], rtol=1e-6, atol=0)


# Jacobians

NETWORKS = [
    nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 4), nn.Softplus()),
    nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 9), nn.ReLU(), nn.Linear(9, 4)),
    nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 3, 2, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()
    ),
]
NETWORK_IDS = ["smooth", "relu", "conv and maxima"]


@pytest.mark.parametrize("model", NETWORKS, ids=NETWORK_IDS)
def test_a_jacobian_map_pushes_and_pulls_as_torch_func_does(model):
    model, x = model.double(), randn(5, 6)
    linear, u = jacobian_map(model, x), randn(5, 6, seed=1)
    image, pushed = torch.func.jvp(model, (x,), (u,))
    torch.testing.assert_close(linear.forward(u), pushed.detach(), rtol=1e-12, atol=1e-13)
    v = randn(*image.shape, seed=2)
    (pulled,) = torch.func.vjp(model, x)[1](v)
    torch.testing.assert_close(linear.adjoint(v), pulled.detach(), rtol=1e-12, atol=1e-13)


@BOTH
@pytest.mark.parametrize("model", NETWORKS, ids=NETWORK_IDS)
def test_the_norms_of_a_batch_of_jacobians_are_those_of_dense_ones(iterate, model):
    model, x = model.double(), randn(7, 6)
    linear = jacobian_map(model, x)
    got = iterate(linear, random_start(linear, x, batch=7), tolerance=1e-6, most=5000)
    dense = torch.func.vmap(torch.func.jacrev(lambda one: model(one[None])[0]))(x)
    torch.testing.assert_close(got.value, torch.linalg.svdvals(dense.detach())[:, 0], rtol=1e-9, atol=0)


def test_a_jacobian_map_leaves_no_gradients_behind():
    model, x = NETWORKS[0].double(), randn(2, 6).requires_grad_()
    model.zero_grad()
    with torch.no_grad():
        linear = jacobian_map(model, x)
        assert not linear.forward(randn(2, 6)).requires_grad
        linear.adjoint(randn(2, 4))
    assert x.grad is None
    assert all(weight.grad is None for weight in model.parameters())


def test_a_diagonal_jacobian_is_the_derivative():
    x = randn(3, 4)
    u = randn(3, 4, seed=1)
    linear = jacobian_map(torch.sin, x)
    torch.testing.assert_close(linear.forward(u), x.cos() * u)
    torch.testing.assert_close(linear.adjoint(u), x.cos() * u)


# affine maps


def batch_norm(channels: int) -> nn.Module:
    layer = nn.BatchNorm2d(channels).double().eval()
    layer.running_mean.copy_(randn(channels, seed=1))
    layer.running_var.copy_(randn(channels, seed=2).square() + 0.1)
    nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(3))
    nn.init.normal_(layer.bias, generator=torch.Generator().manual_seed(4))
    return layer


AFFINE = [
    (nn.AvgPool2d(2), (2, 4, 6)),
    (nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False, ceil_mode=True), (1, 6, 5)),
    (nn.AvgPool1d(3, stride=2, padding=1), (2, 7)),
    (nn.AdaptiveAvgPool2d((2, 3)), (2, 5, 7)),
    (batch_norm(3), (3, 4, 2)),
    (Normalize([0.1, 0.2], [0.5, 2.0]).double(), (2, 3, 3)),
    (nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3)).double(), (1, 4, 4)),
]


@pytest.mark.parametrize(("layer", "shape"), AFFINE, ids=str)
def test_an_affine_map_is_the_jacobian_of_the_layer(layer, shape):
    linear = affine_map(layer, shape, like=ONE)
    dense = torch.func.jacrev(lambda x: layer(x[None])[0].flatten())(randn(*shape)).detach().flatten(1)
    torch.testing.assert_close(matrix_of(linear, ONE).detach(), dense, rtol=1e-12, atol=1e-12)
    y = randn(2, *layer(randn(1, *shape)).shape[1:])
    expected = (y.flatten(1) @ dense).view(2, *shape)
    torch.testing.assert_close(linear.adjoint(y), expected, rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        norm = lanczos(linear, random_start(linear, ONE), tolerance=1e-9).value.item()
    assert norm == pytest.approx(torch.linalg.svdvals(dense)[0].item(), rel=1e-10)


# the small tools


def test_a_matrix_is_read_off_its_map():
    matrix = randn(3, 5)
    torch.testing.assert_close(matrix_of(as_map(matrix), ONE), matrix, rtol=1e-15, atol=0)


def test_starts_are_repeatable_and_leave_the_global_generator_alone():
    linear, state = as_map(randn(1, 3, 4)), torch.get_rng_state()
    first, again, other = (random_start(linear, ONE, batch=2, seed=seed) for seed in (1, 1, 2))
    assert first.shape == (2, 4)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(state, torch.get_rng_state())


def test_units_have_length_1_and_zeros_stay():
    x = randn(3, 2, 2)
    x[1] = 0
    torch.testing.assert_close(length(unit(x)), torch.tensor([1.0, 0.0, 1.0]).double(), rtol=1e-14, atol=0)
