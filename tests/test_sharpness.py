"""Sharpness where it is known in closed form, slices by hand, and weights that come back to the last bit."""

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call

from gaussreg_lab.losses import cross_entropy
from gaussreg_lab.models import lenet8, mlp
from gaussreg_lab.perturbation import AMP
from gaussreg_lab.sharpness import filter_direction, loss_slice, loss_surface, sharpness
from gaussreg_lab.spectral import cap_network

NOTHING = torch.zeros(1), torch.zeros(1)  # for losses that look at the weights alone


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spread(n: int, seed: int = 0) -> Tensor:
    """A symmetric matrix with eigenvalues of both signs, none close to the largest."""
    turn = torch.linalg.qr(randn(n, n, seed=seed)).Q
    return turn @ torch.diag(torch.linspace(-2, 3, n, dtype=torch.float64)) @ turn.mT


class Weights(nn.Module):
    """Nothing but weights, one tensor for each vector."""

    def __init__(self, *vectors: Tensor) -> None:
        super().__init__()
        self.tensors = nn.ParameterList([nn.Parameter(vector.clone()) for vector in vectors])


def quadratic(matrix: Tensor, slope: Tensor | None = None):
    """w'Aw / 2 + slope'w over all tensors in a row."""

    def loss(model, x, y):
        w = torch.cat([tensor.flatten() for tensor in model.tensors])
        return w @ matrix @ w / 2 + (0 if slope is None else slope @ w)

    return loss


def worst_on_a_sphere(matrix: Tensor, slope: Tensor, epsilon: float) -> float:
    """max of slope'd + d'Ad / 2 over |d| = epsilon, by the secular equation: (mu - A) d = slope, mu > A."""
    values, vectors = torch.linalg.eigh(matrix)
    parts = vectors.mT @ slope
    low, high = values[-1].item(), values[-1].item() + slope.norm().item() / epsilon + 1
    for _ in range(200):
        mu = (low + high) / 2
        low, high = (mu, high) if (parts / (mu - values)).norm() > epsilon else (low, mu)
    d = parts / (high - values)
    return (parts @ d + d @ (values * d) / 2).item()


def test_at_the_bottom_worst_and_average_are_eigenvalue_and_trace():
    matrix, model, epsilon = spread(8), Weights(torch.zeros(8, dtype=torch.float64)), 0.7
    found = sharpness(
        model, *NOTHING, epsilon, "model", loss=quadratic(matrix), steps=200, directions=400, seed=1
    )
    assert found.loss == 0
    assert math.isclose(found.worst, 3 * epsilon**2 / 2, rel_tol=1e-6)
    mean = matrix.trace().item() / 8 * epsilon**2 / 2
    assert abs(found.average - mean) < 4 * found.standard_error
    assert found.standard_error < mean / 10


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("epsilon", [0.1, 1.0, 5.0])
def test_on_a_slope_the_worst_solves_the_problem_on_the_sphere(epsilon, seed):
    matrix, at = spread(6, seed), randn(6, seed=seed + 50)
    found = sharpness(Weights(at), *NOTHING, epsilon, "model", loss=quadratic(matrix), steps=300)
    assert math.isclose(found.worst, worst_on_a_sphere(matrix, matrix @ at, epsilon), rel_tol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_a_ball_for_each_tensor_is_searched_as_a_product_of_balls(seed):
    """Two tensors of two numbers, coupled: every pair of angles, as a convex loss is worst on the surface."""
    turned, slope, epsilon = spread(4, seed), randn(4, seed=seed + 9), 0.5
    matrix = turned @ turned  # no negative eigenvalue
    angles = torch.arange(0, 2 * math.pi, 2 * math.pi / 400, dtype=torch.float64)
    circle = epsilon * torch.stack([angles.cos(), angles.sin()], dim=1)
    pairs = torch.cat([circle.repeat_interleave(400, dim=0), circle.repeat(400, 1)], dim=1)
    best = ((pairs @ matrix * pairs).sum(dim=1) / 2 + pairs @ slope).max().item()
    model, loss = Weights(*torch.zeros(2, 2, dtype=torch.float64)), quadratic(matrix, slope)

    def found(radius, ball):  # a climb may end on a lower top; other seeds begin elsewhere
        climbs = [sharpness(model, *NOTHING, radius, ball, loss=loss, steps=100, seed=it) for it in range(5)]
        return max(climb.worst for climb in climbs)

    assert best * (1 - 1e-9) <= found(epsilon, "parameter") < best * (1 + 1e-4)
    # two balls lie between one of radius epsilon and one of epsilon sqrt 2
    assert found(epsilon, "model") < best < found(math.sqrt(2) * epsilon, "model")


def test_the_average_in_separate_balls_is_the_sum_of_the_parts():
    matrix = torch.diag(torch.tensor([1.0, 3.0, 10.0, 20.0, 60.0], dtype=torch.float64))
    model = Weights(torch.zeros(2).double(), torch.zeros(3).double())
    found = sharpness(model, *NOTHING, 0.3, loss=quadratic(matrix), directions=500)
    mean = 0.3**2 / 2 * (4 / 2 + 90 / 3)
    assert abs(found.average - mean) < 4 * found.standard_error
    assert found.standard_error < 0.05 * mean


@pytest.mark.parametrize("ball", ["parameter", "model"])
def test_random_jolts_end_on_the_surface_and_climbs_stay_inside(ball):
    model, lengths = Weights(randn(2, 3), randn(4)), []
    start = [tensor.detach().clone() for tensor in model.tensors]

    def watched(model, x, y):
        apart = [now - then for now, then in zip(model.tensors, start, strict=True)]
        lengths.append([each.detach().norm().item() for each in apart])
        return sum((tensor**2).sum() for tensor in model.tensors)

    sharpness(model, *NOTHING, 0.5, ball, loss=watched, steps=7, directions=5)
    assert len(lengths) == 1 + 5 + 7  # the passes that were promised
    seen = [[math.hypot(*each)] if ball == "model" else each for each in lengths]
    assert seen[0] == [0.0] * len(seen[0])
    assert all(math.isclose(length, 0.5, rel_tol=1e-9) for each in seen[1:6] for length in each)
    assert all(length < 0.5 * (1 + 1e-9) for each in seen[6:] for length in each)


@pytest.mark.parametrize("ball", ["parameter", "model"])
def test_in_a_small_ball_the_worst_is_the_length_of_the_gradient(ball):
    model, x, y = mlp((64, 12, 10)).double(), torch.rand(20, 1, 8, 8).double(), torch.arange(20) % 10
    gradient = torch.autograd.grad(cross_entropy(model, x, y), model.parameters())
    lengths = [part.norm().item() for part in gradient]
    found = sharpness(model, x, y, 1e-6, ball)
    expected = sum(lengths) if ball == "parameter" else math.hypot(*lengths)
    assert math.isclose(found.worst, 1e-6 * expected, rel_tol=1e-3)


@pytest.mark.parametrize("ball", ["parameter", "model"])
def test_it_finds_more_than_one_step_of_amp_and_than_chance(ball):
    model, x, y = mlp((64, 12, 10)), torch.rand(20, 1, 8, 8), torch.arange(20) % 10
    heights = []

    def closure():
        loss = cross_entropy(model, x, y)
        loss.backward()
        heights.append(loss.item())
        return loss

    AMP(torch.optim.SGD(model.parameters(), lr=0.0), epsilon=0.2, inner_lr=1e9, ball=ball).step(closure)
    found = sharpness(model, x, y, 0.2, ball)
    assert found.loss == heights[0]
    assert found.worst >= heights[1] - heights[0] > 0
    assert found.worst > found.average + 5 * found.standard_error


@given(st.floats(0.01, 3), st.integers(0, 1000))
def test_the_worst_is_at_least_every_random_one(epsilon, seed):
    model = Weights(randn(5, seed=seed))
    found = sharpness(model, *NOTHING, epsilon, loss=quadratic(spread(5)), steps=1, directions=1, seed=seed)
    assert found.worst == max(found.average, 0.0)
    assert math.isnan(found.standard_error)


def test_without_a_ball_nothing_rises():
    model = mlp((64, 5, 10))
    x, y = torch.rand(4, 1, 8, 8), torch.arange(4)
    assert sharpness(model, x, y, 0.0)[1:] == (0.0, 0.0, 0.0)


def test_the_same_seed_gives_the_same_jolts_and_another_one_others():
    model = Weights(randn(5))
    first, again, other = (
        sharpness(model, *NOTHING, 1.0, loss=quadratic(spread(5)), seed=seed) for seed in (3, 3, 4)
    )
    assert first == again
    assert first.average != other.average


def batch_normed() -> nn.Sequential:
    layers = [nn.Flatten(), nn.Linear(64, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 10)]
    return nn.Sequential(*layers)


def capped() -> nn.Sequential:
    return cap_network(lenet8(channels=(2, 3), hidden=5), torch.zeros(1, 1, 8, 8), 0.5)


MEASURES = [
    lambda model, x, y: sharpness(model, x, y, 0.3),
    lambda model, x, y: sharpness(model, x, y, 0.3, "model"),
    lambda model, x, y: loss_slice(model, x, y, filter_direction(model), [-1.0, 0.5]),
    lambda model, x, y: loss_surface(
        model, x, y, (filter_direction(model), filter_direction(model)), ([0.1], [0.5])
    ),
]


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("build", [batch_normed, capped, lambda: batch_normed().bfloat16()])
def test_everything_is_as_it_was(build, measure):
    model = build().train()
    model[1].eval()  # a mode of its own
    x, y = torch.rand(7, 1, 8, 8).to(next(model.parameters()).dtype), torch.arange(7)
    cross_entropy(model, x, y).backward()
    gradients = [weight.grad.clone() for weight in model.parameters()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [layer.training for layer in model.modules()]
    random_state = torch.get_rng_state()
    first = measure(model, x, y)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(weight.grad, it) for weight, it in zip(model.parameters(), gradients, strict=True))
    assert [layer.training for layer in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random_state)
    assert torch.equal(torch.as_tensor(measure(model, x, y)), torch.as_tensor(first))


def test_weights_come_back_also_when_a_jolt_breaks_the_loss():
    model = Weights(torch.ones(3))
    root = lambda model, x, y: (model.tensors[0] + 0.5).sqrt().sum()  # noqa: E731 no number below -0.5
    before = model.tensors[0].clone()
    with pytest.raises(ValueError, match="Expected a finite loss, got nan; the weights are as they were"):
        sharpness(model, *NOTHING, 20.0, loss=root)
    assert torch.equal(model.tensors[0], before)
    assert model.training
    with pytest.raises(ValueError, match="Expected a finite loss, got nan"):
        loss_slice(model, *NOTHING, [torch.ones(3)], [-2.0], root)
    assert torch.equal(model.tensors[0], before)


def test_frozen_weights_are_not_jolted():
    model = Weights(torch.ones(2), torch.ones(2))
    model.tensors[1].requires_grad_(False)
    steep = quadratic(torch.diag(torch.tensor([1.0, 1.0, 1e6, 1e6])))
    assert math.isclose(
        sharpness(model, *NOTHING, 1.0, loss=steep, steps=50).worst, 0.5 + math.sqrt(2), rel_tol=0.1
    )


def test_filters_have_the_lengths_of_the_weights_and_biases_stay():
    layers = [nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Conv1d(4, 6, 2, groups=2), nn.Linear(5, 4)]
    model = nn.Sequential(*layers)
    for weight, direction in zip(model.parameters(), filter_direction(model), strict=True):
        assert direction.shape == weight.shape
        if weight.dim() == 1:
            assert direction.abs().max() == 0
            continue
        for of_direction, of_weight in zip(direction, weight, strict=True):
            assert torch.isclose(of_direction.norm(), of_weight.norm(), rtol=1e-5)
        cosine = (direction * weight).sum() / weight.norm() ** 2
        assert cosine.abs() < 0.6  # as a random one


def test_directions_follow_their_generator():
    model = mlp()
    draw = torch.Generator().manual_seed(0)
    first, second = filter_direction(model, draw), filter_direction(model, draw)
    again = filter_direction(model)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], second[0])


def test_a_slice_is_the_loss_of_the_network_with_these_weights():
    model, x, y = lenet8(channels=(2, 3), hidden=5).double(), torch.rand(9, 1, 8, 8).double(), torch.arange(9)
    direction, other = filter_direction(model), filter_direction(model, torch.Generator().manual_seed(1))
    names = [name for name, _ in model.named_parameters()]

    @torch.no_grad()
    def by_hand(s: float, t: float = 0.0) -> float:
        moved = [w + s * d + t * e for w, d, e in zip(model.parameters(), direction, other, strict=True)]
        return nn.functional.cross_entropy(functional_call(model, dict(zip(names, moved, strict=True)), x), y)

    along, across = torch.linspace(-1, 1, 5), [0.0, 0.3]
    expected = torch.tensor([by_hand(s) for s in along.tolist()], dtype=torch.float64)
    torch.testing.assert_close(loss_slice(model, x, y, direction, along), expected, rtol=1e-12, atol=0)
    expected = torch.tensor([[by_hand(s, t) for t in across] for s in along.tolist()], dtype=torch.float64)
    surface = loss_surface(model, x, y, (direction, other), (along, across))
    torch.testing.assert_close(surface, expected, rtol=1e-12, atol=0)


def test_a_change_of_scale_changes_the_sharpness_but_no_slice():
    model, x, y = mlp((64, 12, 10)).double(), torch.rand(20, 1, 8, 8).double(), torch.arange(20) % 10
    scaled = copy.deepcopy(model)
    with torch.no_grad():
        scaled[2].weight *= 8
        scaled[2].bias *= 8
        scaled[4].weight /= 8
    torch.testing.assert_close(scaled(x), model(x))
    slices = [loss_slice(it, x, y, filter_direction(it), [-1.0, 0.0, 1.0]) for it in (model, scaled)]
    torch.testing.assert_close(*slices, rtol=1e-9, atol=0)
    assert sharpness(scaled, x, y, 0.1).worst > 3 * sharpness(model, x, y, 0.1).worst


X, Y = torch.rand(6, 1, 8, 8), torch.arange(6)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epsilon": -0.1}, "Expected epsilon >= 0 and finite, got -0.1"),
        ({"epsilon": math.nan}, "Expected epsilon >= 0 and finite, got nan"),
        ({"epsilon": math.inf}, "Expected epsilon >= 0 and finite, got inf"),
        ({"ball": "layer"}, r"Expected ball to be one of \('parameter', 'model'\), got 'layer'"),
        ({"steps": 0}, "Expected steps >= 1 and directions >= 1, got 0 and 20"),
        ({"directions": 0}, "Expected steps >= 1 and directions >= 1, got 20 and 0"),
        ({"y": Y[:4]}, "as many images as labels and at least one, got 6 and 4"),
        ({"x": X[:0], "y": Y[:0]}, "at least one, got 0 and 0"),
        ({"x": X * math.nan}, "Expected a finite loss, got nan"),
        ({"model": nn.Flatten()}, "Expected a model with weights that require gradients, got none"),
    ],
)
def test_what_makes_no_sense_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        sharpness(**{"model": mlp(), "x": X, "y": Y, "epsilon": 0.1, **given})


def test_slices_refuse_what_makes_no_sense():
    model = mlp((64, 3, 10))
    direction = filter_direction(model)
    with pytest.raises(ValueError, match=r"tensors of shapes \[\(3, 64\), .*, got \[\(3, 64\)\]"):
        loss_slice(model, X, Y, direction[:1], [0.0])
    with pytest.raises(ValueError, match="got 6 and 5"):
        loss_slice(model, X, Y[:5], direction, [0.0])
    with pytest.raises(ValueError, match="weights that require gradients, got none"):
        filter_direction(nn.Flatten())
