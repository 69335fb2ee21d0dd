"""The losses in closed form: unrolled by hand, against their definitions, unbiased, trainable, refused."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy as ce

from gaussreg_lab.datasets import batches, digits
from gaussreg_lab.gaussian import Gaussian
from gaussreg_lab.linearization import first_relu_mean
from gaussreg_lab.losses import NoisyLoss, cross_entropy, weighted_sum
from gaussreg_lab.models import lenet, lenet8, mlp
from gaussreg_lab.moment_losses import AnalyticalMomentLoss, ExpectedOutputLoss, SecondOrderLoss
from gaussreg_lab.robustness import accuracy_under_noise
from gaussreg_lab.smoothing import listen, smoothed
from gaussreg_lab.training import fit

LOSSES = [ExpectedOutputLoss, AnalyticalMomentLoss, SecondOrderLoss]
every_loss = pytest.mark.parametrize("kind", LOSSES, ids=lambda kind: kind.__name__)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(model_input: tuple[int, ...] = (4,), count: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.rand(count, *model_input, generator=seeded(1), dtype=torch.float64)
    return x, torch.randint(3, (count,), generator=seeded(2))


# the paper's


SIZES = [(mlp((4, 5, 6, 3)), (4,)), (lenet8(3, (2, 3), 4), (1, 8, 8)), (lenet(3, (2, 3), 4), (1, 28, 28))]
every_model = pytest.mark.parametrize(("model", "size"), SIZES, ids=["mlp", "lenet8", "lenet"])


@every_model
def test_expected_output_is_the_papers_mean(model, size):
    model = model.double()
    x, y = batch(size)
    mean = first_relu_mean(model, Gaussian(x, var=torch.tensor(0.3**2).double()))
    torch.testing.assert_close(ExpectedOutputLoss(0.3)(model, x, y), ce(mean, y))


@pytest.mark.parametrize("pool", [nn.AvgPool2d, nn.MaxPool2d])
def test_the_whole_objective_is_the_sum_of_its_two_terms(pool):
    model = lenet8(3, (2, 3), 4, pool=pool).double()
    x, y = batch((1, 8, 8))
    together = AnalyticalMomentLoss(0.4, alpha=2.5)
    apart = weighted_sum((1.0, cross_entropy), (2.5, ExpectedOutputLoss(0.4)))
    values, gradients = [], []
    for loss in (together, apart):
        model.zero_grad()
        value = loss(model, x, y)
        value.backward()
        values.append(value.detach())
        gradients.append([weight.grad.clone() for weight in model.parameters()])
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*gradients)


def test_expected_output_is_a_lower_bound_for_one_hidden_layer():
    """There its mean is exact, so Jensen's inequality holds; to within the samples' error."""
    model = mlp((4, 16, 3)).double()
    x, y = batch()
    loss = NoisyLoss(0.8, generator=seeded())
    draws = torch.stack([loss(model, x, y).detach() for _ in range(2000)])
    assert ExpectedOutputLoss(0.8)(model, x, y) < draws.mean() - 4 * draws.std() / math.sqrt(2000)


def test_pooling_before_the_first_relu_is_refused():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(18, 3))
    with pytest.raises(
        NotImplementedError, match="affine layers before the first ReLU, got MaxPool2d; pool behind"
    ):
        ExpectedOutputLoss(0.5)(model, torch.zeros(1, 1, 8, 8), torch.tensor([0]))


# the second order


def by_definition(model, x, y, sigma: float, weight: float, seed: int) -> torch.Tensor:
    """CE(m, y) + w/2 trace(C H), image by image, with the Jacobian as a matrix."""
    noise = torch.randn(x.shape, generator=seeded(seed), dtype=x.dtype)
    noisy_logits, noisy = listen(model, x + sigma * noise)
    p = noisy_logits.softmax(dim=1)
    hessian = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    x = x.detach().requires_grad_()
    logits = smoothed(model, x, noisy)
    rows = [
        torch.autograd.grad(logit.sum(), x, create_graph=True)[0].flatten(1) for logit in logits.unbind(1)
    ]
    jacobian = torch.stack(rows, dim=1)
    cov = sigma**2 * jacobian @ jacobian.mT
    trace = torch.einsum("bij,bji->b", cov, hessian)
    return ce(logits, y) + weight / 2 * trace.mean()


@pytest.mark.parametrize("weight", [0.0, 1.0, 4.0])
@every_model
def test_the_exact_trace_is_that_of_the_definition(model, size, weight):
    model = model.double()
    x, y = batch(size)
    gradients = []
    for value in (
        SecondOrderLoss(0.5, projections=None, trace_weight=weight, generator=seeded(7))(model, x, y),
        by_definition(model, x, y, 0.5, weight, seed=7),
    ):
        model.zero_grad()
        value.backward()
        gradients.append((value.detach(), [weight.grad.clone() for weight in model.parameters()]))
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("projections", [1, 3])
def test_projections_give_the_trace_on_average(projections):
    p = torch.rand(6, 3, generator=seeded(4), dtype=torch.float64).softmax(dim=1)
    loss = SecondOrderLoss(0.5, projections, generator=seeded(0))
    drawn = [torch.stack(list(loss._directions(p))) for _ in range(3000)]
    directions = torch.cat(drawn)  # (3000 projections, batch, classes)
    assert len(directions) == 3000 * projections
    products = torch.einsum("dbi,dbj->dbij", directions, directions)
    hessian = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    error = products.std(dim=0) / math.sqrt(len(products))
    assert ((products.mean(dim=0) - hessian) / error).abs().max() < 4.5


def test_more_projections_scatter_less_around_the_same_value():
    model, (x, y) = mlp((4, 8, 3)).double(), batch()
    scatter, means = [], []
    for projections in (1, 16):
        loss = SecondOrderLoss(0.5, projections, generator=seeded(3))
        values = torch.stack([loss(model, x, y).detach() for _ in range(300)])
        scatter.append(values.std().item())
        means.append(values.mean().item())
    assert scatter[1] < scatter[0]
    assert means[0] == pytest.approx(means[1], abs=5 * scatter[0] / math.sqrt(300))


def test_it_comes_closer_to_the_mean_loss_than_the_lower_bound():
    """For one hidden layer, where the mean is nearly exact: the spread is what the bound leaves out."""
    model, (x, y) = mlp((4, 32, 3), seed=1).double(), batch(count=64)
    truth = torch.stack([NoisyLoss(0.3, generator=seeded(seed))(model, x, y) for seed in range(1000)]).mean()
    closed = SecondOrderLoss(0.3, projections=None, generator=seeded(0))(model, x, y)
    bound = ExpectedOutputLoss(0.3)(model, x, y)
    assert abs(closed - truth) < 0.35 * abs(bound - truth)


def test_training_with_it_holds_under_noise():
    train, test = digits()
    closed = SecondOrderLoss(0.5, trace_weight=4.0, generator=seeded())
    losses = {"plain": cross_entropy, "closed": weighted_sum((1.0, cross_entropy), (1.0, closed))}
    scores = {}
    for name, loss in losses.items():
        model = lenet8()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
        fit(model, batches(train, 64), loss, optimizer, 8, progress=False)
        scores[name] = accuracy_under_noise(model, *test, sigma=0.5).mean
    assert scores["closed"] > scores["plain"] + 0.05


# what holds for all


@every_loss
def test_the_callers_tensors_and_gradients_are_left_alone(kind):
    model, (x, y) = mlp((4, 5, 3)).double(), batch()
    kind(0.5)(model, x, y)
    assert not x.requires_grad
    assert all(weight.grad is None for weight in model.parameters())
    asked = x.clone().requires_grad_()
    kind(0.5)(model, asked, y).backward()
    assert all(weight.grad is not None for weight in model.parameters())


@every_loss
def test_a_value_can_be_had_without_gradients(kind):
    model, (x, y) = mlp((4, 5, 3)).double(), batch()
    torch.manual_seed(0)
    with_graph = kind(0.5)(model, x, y)
    torch.manual_seed(0)
    with torch.no_grad():
        without = kind(0.5)(model, x, y)
    assert not without.requires_grad
    torch.testing.assert_close(without, with_graph.detach())


@every_loss
def test_little_noise_leads_back_to_cross_entropy(kind):
    model, (x, y) = mlp((4, 5, 3)).double(), batch()
    plain = cross_entropy(model, x, y) * (2 if kind is AnalyticalMomentLoss else 1)
    torch.testing.assert_close(kind(1e-6)(model, x, y), plain, rtol=1e-5, atol=1e-7)


@every_loss
@pytest.mark.parametrize("sigma", [0.0, -0.1, math.nan, math.inf])
def test_a_sigma_that_is_no_noise_is_refused(kind, sigma):
    with pytest.raises(ValueError, match="Expected sigma >"):
        kind(sigma)


def test_other_bad_numbers_are_refused():
    with pytest.raises(ValueError, match=r"projections >= 1 or None.*got 0"):
        SecondOrderLoss(0.5, projections=0)
    with pytest.raises(ValueError, match="a finite trace_weight, got nan"):
        SecondOrderLoss(0.5, trace_weight=math.nan)
    with pytest.raises(ValueError, match="a finite alpha, got inf"):
        AnalyticalMomentLoss(0.5, alpha=math.inf)


def test_one_seed_repeats_the_second_order_loss_and_the_global_generator_stays():
    model, (x, y) = mlp((4, 5, 3)).double(), batch()
    state = torch.get_rng_state()
    first, again, other = (SecondOrderLoss(0.5, generator=seeded(seed))(model, x, y) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)
