"""The top eigenvalue of a Hessian: against dense Hessians, of both signs, and from finite differences."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call

from gaussreg_lab.curvature import curvature, hessian_map, top_eigenvalue
from gaussreg_lab.linear_map import LinearMap, matrix_of
from gaussreg_lab.losses import cross_entropy
from gaussreg_lab.models import lenet8, mlp
from gaussreg_lab.spectral import cap_network

ONE = torch.ones(1, dtype=torch.float64)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def smooth(seed: int = 0) -> nn.Sequential:
    layers = [nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)]
    model = nn.Sequential(*layers).double()
    for number, weight in enumerate(model.parameters()):
        nn.init._no_grad_normal_(weight, 0, 1, torch.Generator().manual_seed(10 * seed + number))
    return model


X, Y = randn(6, 3, seed=9), torch.tensor([0, 1, 2, 0, 1, 2])


def by_differences(model: nn.Module, x: Tensor, y: Tensor, h: float = 1e-4) -> Tensor:
    """The dense Hessian from the loss alone: second differences by every pair of weights."""
    names, weights = zip(*model.named_parameters(), strict=True)
    flat = torch.cat([weight.detach().flatten() for weight in weights])

    def at(vector: Tensor) -> Tensor:
        parts = vector.split([weight.numel() for weight in weights])
        named = {name: part.view_as(weight) for name, part, weight in zip(names, parts, weights, strict=True)}
        return nn.functional.cross_entropy(functional_call(model, named, (x,)), y).detach()

    steps, corners = h * torch.eye(len(flat), dtype=flat.dtype), ((1, 1), (1, -1), (-1, 1), (-1, -1))
    rows = [
        torch.stack([sum(i * k * at(flat + i * a + k * b) for i, k in corners) for b in steps]) for a in steps
    ]
    return torch.stack(rows) / (4 * h * h)


def symmetric(eigenvalues: list[float], seed: int = 0) -> LinearMap:
    turn = torch.linalg.qr(randn(len(eigenvalues), len(eigenvalues), seed=seed)).Q
    matrix = turn @ torch.diag(torch.tensor(eigenvalues, dtype=torch.float64)) @ turn.mT
    return LinearMap(lambda v: v @ matrix, lambda v: v @ matrix, (len(eigenvalues),))


def test_the_map_is_the_dense_hessian():
    model = smooth()
    torch.testing.assert_close(
        matrix_of(hessian_map(model, X, Y), ONE), by_differences(model, X, Y), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("seed", range(4))
def test_the_largest_eigenvalue_is_that_of_the_dense_hessian(seed):
    model = smooth(seed)
    top = torch.linalg.eigvalsh(by_differences(model, X, Y))[-1].item()
    assert math.isclose(curvature(model, X, Y, tolerance=1e-9).value, top, rel_tol=1e-4)


def test_it_agrees_with_a_dense_hessian_in_single_precision_too():
    model = mlp((4, 3, 3))
    x, y = randn(8, 4).float(), torch.arange(8) % 3
    dense = matrix_of(hessian_map(model, x, y), torch.ones(1))
    top = torch.linalg.eigvalsh(dense.double())[-1].item()
    assert math.isclose(curvature(model, x, y).value, top, rel_tol=1e-3)


@pytest.mark.parametrize(
    "eigenvalues",
    [
        [-5.0, 1.0, 2.0],  # the largest in size is negative
        [-2.0, 1.0, 2.0],  # one of each sign
        [-2.0001, -1.0, 2.0],
        [-1.9999, -1.0, 2.0],
        [-3.0, -2.0, -1.0],  # all of them negative
        [-4.0, -4.0, 0.0],
        [7.0, 7.0, -7.0],
        [0.0, 0.0, 0.0],
        [3.0],
        [-3.0],
    ],
)
def test_it_is_the_algebraically_largest(eigenvalues):
    found = top_eigenvalue(symmetric(eigenvalues), randn(1, len(eigenvalues), seed=5), tolerance=1e-10)
    assert math.isclose(found.value, max(eigenvalues), abs_tol=1e-7)
    assert found.residual < 1e-3


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=6), st.integers(0, 100))
def test_for_any_spectrum_no_value_is_larger_and_none_is_far(eigenvalues, seed):
    found = top_eigenvalue(symmetric(eigenvalues, seed), randn(1, len(eigenvalues), seed=seed + 1), 1e-9)
    assert found.value <= max(eigenvalues) + 1e-9  # Rayleigh's quotient never exceeds it
    assert found.value >= max(eigenvalues) - 1e-3


def test_the_direction_and_the_residual_are_what_they_say():
    model = smooth()
    found, applied = curvature(model, X, Y), hessian_map(model, X, Y).forward
    image = applied(found.direction[None])[0]
    assert math.isclose(found.direction.norm().item(), 1, rel_tol=1e-12)
    assert math.isclose((image - found.value * found.direction).norm().item(), found.residual, rel_tol=1e-6)
    spectrum = torch.linalg.eigvalsh(by_differences(model, X, Y))
    assert (spectrum - found.value).abs().min() <= found.residual + 1e-5


def test_the_products_are_counted():
    counts = []
    diagonal = torch.tensor([-5.0, 1.0, 2.0], dtype=torch.float64)
    counted = LinearMap(*[lambda v: counts.append(1) or v * diagonal] * 2, (3,))
    for negative in (True, False):
        counts.clear()
        diagonal[0] = -5.0 if negative else 5.0
        assert top_eigenvalue(counted, torch.ones(1, 3, dtype=torch.float64)).products == len(counts)


def test_a_loss_that_is_linear_in_the_weights_is_flat():
    model = nn.Linear(2, 1)
    found = curvature(model, torch.ones(3, 2), torch.zeros(3), lambda model, x, y: model(x).sum())
    assert found.value == 0


def test_weights_that_the_loss_does_not_reach_have_no_curvature():
    model = nn.ModuleList([nn.Linear(2, 1, bias=False), nn.Linear(5, 1)]).double()
    height = lambda model, x, y: (model[0].weight ** 2 * torch.tensor([1.0, 3.0])).sum()  # noqa: E731
    found = curvature(model, torch.zeros(1), torch.zeros(1), height)
    assert math.isclose(found.value, 6, rel_tol=1e-6)
    assert found.direction[2:].abs().max() < 1e-6


def test_everything_is_as_it_was():
    model = lenet8(channels=(2, 3), hidden=5).train()
    cap_network(model, torch.zeros(1, 1, 8, 8), 0.5)  # in train mode its buffers would follow
    x, y = torch.rand(7, 1, 8, 8), torch.arange(7)
    cross_entropy(model, x, y).backward()
    gradients = [weight.grad.clone() for weight in model.parameters()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random_state = torch.get_rng_state()
    assert curvature(model, x, y).value > 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(weight.grad, it) for weight, it in zip(model.parameters(), gradients, strict=True))
    assert all(layer.training for layer in model.modules())
    assert torch.equal(torch.get_rng_state(), random_state)


@pytest.mark.parametrize(
    ("model", "x", "y", "message"),
    [
        (smooth(), X, Y[:5], "as many images as labels and at least one, got 6 and 5"),
        (smooth(), X[:0], Y[:0], "at least one, got 0 and 0"),
        (smooth(), X * torch.nan, Y, "Expected a finite loss, got nan"),
        (nn.Flatten(), X, Y, "weights that require gradients, got none"),
        (smooth().requires_grad_(False), X, Y, "weights that require gradients, got none"),
    ],
)
def test_what_makes_no_sense_is_refused(model, x, y, message):
    with pytest.raises(ValueError, match=message):
        hessian_map(model, x, y)
    with pytest.raises(ValueError, match=message):
        curvature(model, x, y)


def test_a_start_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"Expected start of shape \(batch, \*\(3,\)\), got \(1, 2\)"):
        top_eigenvalue(symmetric([1.0, 2.0, 3.0]), torch.ones(1, 2))
    with pytest.raises(ValueError, match="most >= 1"):
        top_eigenvalue(symmetric([1.0, 2.0, 3.0]), randn(1, 3), most=0)
