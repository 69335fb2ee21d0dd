"""Gradient penalties: against whole Jacobians, finite differences, unbiased, leaving no trace, refused."""

import gc
import math
import weakref
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.func import hessian, jacrev, vmap
from torch.nn.functional import cross_entropy as ce
from torch.nn.functional import one_hot

from gaussreg_lab.datasets import batches, digits
from gaussreg_lab.gradients import (
    DataGrad,
    DifferenceReg,
    FrobReg,
    JacReg,
    Penalized,
    SpectReg,
    pulled_back,
    squared_length,
)
from gaussreg_lab.losses import cross_entropy, weighted_sum
from gaussreg_lab.models import mlp
from gaussreg_lab.robustness import accuracy
from gaussreg_lab.training import fit

CLASSES = 3


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def dense(act: type[nn.Module] = nn.Softplus) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 4), act(), nn.Linear(4, CLASSES))


def convolutional(pool: type[nn.Module], act: type[nn.Module]) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1),
        act(),
        pool(2),
        nn.Flatten(),
        nn.Linear(8, 4),
        act(),
        nn.Linear(4, CLASSES),
    )


def built(build: Callable[..., nn.Sequential], *args: type[nn.Module]) -> nn.Sequential:
    torch.manual_seed(3)
    return build(*args).double()


SMOOTH = {
    "mlp": lambda: built(dense),
    "average": lambda: built(convolutional, nn.AvgPool2d, nn.ELU),
    "maximum": lambda: built(convolutional, nn.MaxPool2d, nn.Tanh),
}
KINKED = {
    "relu-mlp": lambda: built(dense, nn.ReLU),
    "relu-average": lambda: built(convolutional, nn.AvgPool2d, nn.ReLU),
    "relu-maximum": lambda: built(convolutional, nn.MaxPool2d, nn.ReLU),
}
ALL = SMOOTH | KINKED
every_model = pytest.mark.parametrize("build", ALL.values(), ids=ALL)
every_smooth_model = pytest.mark.parametrize("build", SMOOTH.values(), ids=SMOOTH)


def batch(count: int = 5, size: tuple[int, ...] = (1, 4, 4)) -> tuple[Tensor, Tensor]:
    x = torch.rand(count, *size, generator=seeded(1), dtype=torch.float64)
    return x, torch.randint(CLASSES, (count,), generator=seeded(2))


def jacobians(model: nn.Module, x: Tensor) -> Tensor:
    """(batch, classes, pixels), image by image."""
    return vmap(jacrev(lambda image: model(image[None])[0]))(x).flatten(2)


def gram_schmidt(columns: Tensor) -> Tensor:
    """The columns of each matrix made orthogonal, each to those before it, and of length one."""
    done: list[Tensor] = []
    for column in columns.unbind(2):
        for before in done:
            column = column - (column * before).sum(1, keepdim=True) * before
        done.append(column / column.norm(dim=1, keepdim=True))
    return torch.stack(done, dim=2)


# for each penalty, what it is for each image, from whole Jacobians


def data_grad(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    residue = model(x).softmax(1) - one_hot(y, CLASSES)
    return torch.einsum("bcn,bc->bn", jacobians(model, x), residue).square().sum(1)


def spect_reg(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    r = torch.randn(CLASSES, generator=seeded(), dtype=x.dtype)
    return torch.einsum("bcn,c->bn", jacobians(model, x), r).square().sum(1)


def frob_reg(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return jacobians(model, x).square().sum((1, 2))


def frob_reg_projected(model: nn.Module, x: Tensor, y: Tensor, count: int = 2) -> Tensor:
    columns = torch.randn(len(x), CLASSES, count, generator=seeded(), dtype=x.dtype)
    products = torch.einsum("bcn,bck->bkn", jacobians(model, x), gram_schmidt(columns))
    return CLASSES / count * products.square().sum((1, 2))


def with_softmax(reference: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda model, x, y: reference(nn.Sequential(model, nn.Softmax(1)), x, y)


def difference_reg(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    v = torch.randn(x.shape, generator=seeded(), dtype=x.dtype)
    return (model(x + 0.01 * v) - model(x)).square().sum(1) / 0.01**2


class Case(NamedTuple):
    make: Callable[[], object]  # anew with the same seed
    reference: Callable[[nn.Module, Tensor, Tensor], Tensor]


CASES = {
    "DataGrad": Case(DataGrad, data_grad),
    "SpectReg": Case(lambda: SpectReg(seeded()), spect_reg),
    "FrobReg": Case(FrobReg, frob_reg),
    "FrobReg-2": Case(lambda: FrobReg(2, seeded()), frob_reg_projected),
    "JacReg": Case(JacReg, with_softmax(frob_reg)),
    "JacReg-2": Case(lambda: JacReg(2, seeded()), with_softmax(frob_reg_projected)),
    "DifferenceReg": Case(lambda: DifferenceReg(generator=seeded()), difference_reg),
}
every_penalty = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
without_noise = pytest.mark.parametrize("kind", [DataGrad, FrobReg, JacReg])


# values and gradients


@every_model
@every_penalty
def test_a_penalty_is_the_mean_of_what_the_whole_jacobian_says(case, build):
    model, (x, y) = build(), batch()
    expected = case.reference(model, x, y).mean()
    torch.testing.assert_close(case.make()(model, x, y), expected, rtol=1e-10, atol=0)


@every_smooth_model
@every_penalty
def test_its_gradient_by_the_weights_is_that_of_finite_differences(case, build):
    model, (x, y) = build(), batch(3)
    case.make()(model, x, y).backward()
    h = 1e-5
    with torch.no_grad():
        for weight in model.parameters():
            expected = torch.empty(weight.numel(), dtype=weight.dtype)
            for index in range(weight.numel()):
                entry = weight.view(-1)[index]
                kept, values = entry.clone(), []
                for shift in (h, -h):
                    entry.copy_(kept + shift)
                    values.append(case.make()(model, x, y))
                entry.copy_(kept)
                expected[index] = (values[0] - values[1]) / (2 * h)
            # the last bias shifts every logit of a class: most penalties know nothing of it
            got = torch.zeros_like(weight) if weight.grad is None else weight.grad
            torch.testing.assert_close(got.flatten(), expected, rtol=1e-6, atol=1e-8)


@every_smooth_model
@without_noise
def test_of_a_batch_it_is_the_mean_over_the_single_images(kind, build):
    model, (x, y) = build(), batch()
    alone = [kind()(model, image[None], label[None]) for image, label in zip(x, y, strict=True)]
    torch.testing.assert_close(kind()(model, x, y), torch.stack(alone).mean(), rtol=1e-12, atol=0)


@every_smooth_model
def test_a_difference_becomes_the_derivative_along_its_direction(build):
    model, (x, y) = build(), batch()
    v = torch.randn(x.shape, generator=seeded(), dtype=x.dtype)
    exact = torch.einsum("bcn,bn->bc", jacobians(model, x), v.flatten(1)).square().sum(1).mean()
    errors = [(DifferenceReg(h, seeded())(model, x, y) - exact).item() for h in (1e-3, 1e-4, 1e-6)]
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.1)
    assert abs(errors[2]) < 1e-5 * exact


def test_as_many_projections_as_classes_are_the_whole_norm():
    model, (x, y) = built(dense), batch()
    for seed in range(5):
        projected = FrobReg(CLASSES, seeded(seed))(model, x, y)
        torch.testing.assert_close(projected, FrobReg()(model, x, y), rtol=1e-12, atol=0)


def test_the_jacobian_of_probabilities_is_that_of_logits_behind_a_softmax():
    model, (x, y) = built(dense), batch()
    behind = nn.Sequential(model, nn.Softmax(1))
    for count in (None, 1, 2):
        torch.testing.assert_close(
            JacReg(count, seeded())(model, x, y), FrobReg(count, seeded())(behind, x, y), rtol=1e-12, atol=0
        )


def test_data_grad_of_a_linear_model_has_a_closed_form():
    layer, (x, y) = nn.Linear(6, CLASSES).double(), batch(size=(6,))
    residue = layer(x).softmax(1) - one_hot(y, CLASSES)
    closed = (residue @ layer.weight).square().sum(1).mean()
    torch.testing.assert_close(DataGrad()(layer, x, y), closed, rtol=1e-12, atol=0)


def test_frob_reg_of_a_linear_model_is_the_norm_of_its_matrix():
    layer, (x, y) = nn.Linear(6, CLASSES).double(), batch(size=(6,))
    torch.testing.assert_close(FrobReg()(layer, x, y), layer.weight.square().sum(), rtol=1e-12, atol=0)


def test_jac_reg_dies_out_where_the_network_is_sure():
    layer, (x, y) = nn.Linear(6, CLASSES).double(), batch(size=(6,))
    assert JacReg()(layer, x, y) > 1e-3
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([200.0, 0.0, 0.0]))
    assert JacReg()(layer, x, y) < 1e-50
    assert FrobReg()(layer, x, y) > 0.1


@every_model
def test_the_gradients_that_are_pulled_back_have_the_length_of_single_ones(build):
    model, (x, _) = build(), batch()
    x.requires_grad_()
    rows = torch.stack([squared_length(pulled_back(logit.sum(), x)) for logit in model(x).unbind(1)])
    torch.testing.assert_close(rows.sum(0), frob_reg(model, x, None), rtol=1e-10, atol=0)


# random ones


def tiny() -> tuple[nn.Module, Tensor, Tensor]:
    """Three pixels, four classes, one image."""
    torch.manual_seed(4)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4)).double()
    x = torch.rand(1, 3, generator=seeded(5), dtype=torch.float64)
    return model, x, torch.tensor([2])


def z_score(values: list[Tensor], exact: Tensor) -> float:
    values = torch.stack(values)
    return ((values.mean() - exact) / (values.std() / math.sqrt(len(values)))).item()


@pytest.mark.parametrize(
    ("kind", "count"), [(FrobReg, 1), (FrobReg, 3), (JacReg, 1), (JacReg, 3)], ids=lambda it: str(it)[-15:]
)
def test_projections_give_the_whole_norm_on_average(kind, count):
    model, x, y = tiny()
    penalty = kind(count, seeded())
    values = [penalty(model, x.expand(100, -1), y.expand(100)).detach() for _ in range(100)]
    assert abs(z_score(values, kind()(model, x, y))) < 4.5


def test_each_image_has_projections_of_its_own():
    """So the mean over 100 copies scatters ten times less than one image; SpectReg's does not."""
    model, x, y = tiny()
    copies, labels = x.expand(100, -1), y.expand(100)
    spread = {}
    for penalty in (FrobReg(1, seeded()), SpectReg(seeded())):
        one = torch.stack([penalty(model, x, y).detach() for _ in range(400)]).std()
        many = torch.stack([penalty(model, copies, labels).detach() for _ in range(400)]).std()
        spread[type(penalty)] = (one / many).item()
    assert spread[FrobReg] == pytest.approx(10, rel=0.4)
    assert spread[SpectReg] == pytest.approx(1, rel=0.4)


def test_spect_reg_is_the_squared_frobenius_norm_on_average_not_the_spectral_one():
    model, x, y = tiny()
    penalty = SpectReg(seeded())
    values = [penalty(model, x, y).detach() for _ in range(10_000)]
    assert abs(z_score(values, FrobReg()(model, x, y))) < 4.5
    spectral = torch.linalg.matrix_norm(jacobians(model, x)[0], ord=2).square()
    assert z_score(values, spectral) > 4.5


def test_differences_of_a_linear_model_give_its_norm_on_average():
    layer, x, y = nn.Linear(3, 4).double(), *tiny()[1:]
    penalty = DifferenceReg(0.5, seeded())
    values = [penalty(layer, x.expand(100, -1), y.expand(100)).detach() for _ in range(100)]
    assert abs(z_score(values, layer.weight.square().sum())) < 4.5


@pytest.mark.parametrize(
    "make", [SpectReg, lambda g: FrobReg(2, g), lambda g: JacReg(2, g), lambda g: DifferenceReg(0.01, g)]
)
def test_one_seed_repeats_a_penalty_and_the_global_generator_stays(make):
    model, (x, y) = built(dense), batch()
    state = torch.get_rng_state()
    first, again, other = (make(seeded(seed))(model, x, y) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


@without_noise
def test_exact_penalties_draw_nothing(kind):
    state = torch.get_rng_state()
    kind()(nn.Flatten(), *batch(size=(3,)))
    assert torch.equal(torch.get_rng_state(), state)


# what holds for all


@every_penalty
def test_the_callers_tensors_and_gradients_are_left_alone(case):
    model, (x, y) = built(dense), batch()
    asked = x.clone().requires_grad_()
    values = [case.make()(model, images, y) for images in (x, asked)]
    assert torch.equal(*values)
    assert not x.requires_grad
    assert asked.requires_grad
    assert asked.grad is None
    assert all(weight.grad is None for weight in model.parameters())
    values[1].backward()
    assert asked.grad is None
    assert model[1].weight.grad is not None


@every_penalty
@pytest.mark.parametrize("penalized", [False, True])
def test_a_value_can_be_had_without_gradients(case, penalized):
    model, (x, y) = built(dense), batch()
    losses = [Penalized(case.make(), 0.5) if penalized else case.make() for _ in range(2)]
    with_graph = losses[0](model, x, y)
    with torch.no_grad():
        without = losses[1](model, x, y)
    assert with_graph.requires_grad
    assert not without.requires_grad
    assert without.grad_fn is None
    assert torch.equal(without, with_graph.detach())


@every_penalty
def test_frozen_weights_take_part_in_the_value_but_get_no_gradient(case):
    model, (x, y) = built(dense), batch()
    free = case.make()(model, x, y)
    model[1].requires_grad_(False)
    value = case.make()(model, x, y)
    assert torch.equal(value, free)
    value.backward()
    assert model[1].weight.grad is None
    assert model[3].weight.grad is not None


def live_tensors() -> int:
    return sum(issubclass(type(it), Tensor) for it in gc.get_objects())


def test_nothing_stays_in_memory():
    """Neither tensors nor the graphs behind the logits, and no collector is needed for that."""
    model, (x, y) = built(dense), batch()
    graphs = []

    def mark(module: nn.Module, inputs: tuple[Tensor], logits: Tensor) -> None:
        def hook(gradient: Tensor) -> None:
            pass

        graphs.append(weakref.ref(hook))  # it lives as long as the graph
        logits.register_hook(hook)

    def use() -> int:
        for case in CASES.values():
            for loss in (case.make(), Penalized(case.make(), 0.5)):
                loss(model, x, y).backward()
                loss(model, x, y)  # a graph that is never used
                model.zero_grad()
        return live_tensors()

    model.register_forward_hook(mark)
    gc.collect()
    gc.disable()
    try:
        counts = [use() for _ in range(3)]
    finally:
        gc.enable()
    assert counts[0] == counts[1] == counts[2]
    assert len(graphs) > 80
    assert not any(graph() for graph in graphs)


@every_penalty
@pytest.mark.parametrize("name", SMOOTH)
def test_penalized_is_the_weighted_sum_with_cross_entropy(case, name):
    model, (x, y) = SMOOTH[name](), batch()
    together = Penalized(case.make(), 0.3)
    apart = weighted_sum((1, cross_entropy), (0.3, case.make()))
    results = []
    for loss in (together, apart):
        model.zero_grad()
        value = loss(model, x, y)
        value.backward()
        results.append((value.detach(), [weight.grad.clone() for weight in model.parameters()]))
    torch.testing.assert_close(*results, rtol=1e-11, atol=1e-13)


@every_penalty
@pytest.mark.parametrize("penalized", [False, True])
def test_forward_passes_are_as_few_as_can_be(case, penalized):
    model, (x, y) = built(dense), batch()
    passes = []
    model.register_forward_hook(lambda *_: passes.append(1))
    (Penalized(case.make(), 0.3) if penalized else case.make())(model, x, y)
    assert len(passes) == (2 if isinstance(case.make(), DifferenceReg) else 1)


def test_no_weight_at_all_leaves_the_cross_entropy():
    model, (x, y) = built(dense), batch()
    assert torch.equal(Penalized(DataGrad(), 0.0)(model, x, y), cross_entropy(model, x, y))


# what they do


def test_training_with_a_penalty_makes_the_jacobian_smaller():
    train, test = digits()
    sizes, scores = {}, {}
    for name, loss in (("plain", cross_entropy), ("penalized", Penalized(FrobReg(1, seeded()), 0.01))):
        model = mlp((64, 32, 10))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
        fit(model, batches(train, 64), loss, optimizer, 6, progress=False)
        sizes[name], scores[name] = FrobReg()(model, *test).item(), accuracy(model, *test)
    assert sizes["penalized"] < 0.5 * sizes["plain"]
    assert scores["penalized"] > 0.9


def loss_at(model: nn.Module, image: Tensor, label: Tensor) -> Tensor:
    return ce(model(image[None]), label[None])


def test_little_noise_costs_half_the_trace_of_the_hessian():
    """Bishop (1995). Pairs n and -n, the same at each sigma; less n'Hn / 2, the rest is of order sigma^2."""
    model, image, label = tiny()
    image, label = image[0], label[0]
    curvature = hessian(lambda image: loss_at(model, image, label))(image).detach()
    half_trace = curvature.trace() / 2
    n = torch.randn(10_000, 3, generator=seeded(), dtype=torch.float64)
    labels = label.expand(len(n))

    def cost(sigma: float) -> Tensor:
        both = [ce(model(image + sign * sigma * n), labels, reduction="none") for sign in (1, -1)]
        return ((both[0] + both[1]) / 2 - loss_at(model, image, label)).detach() / sigma**2

    assert abs(z_score(list(cost(0.01)), half_trace)) < 4.5
    quadratic = torch.einsum("di,ij,dj->d", n, curvature, n) / 2
    errors = [(cost(sigma) - quadratic).mean().item() for sigma in (0.2, 0.1, 0.05)]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.2)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.1)
    assert abs(errors[2]) < 0.01 * abs(half_trace)


# refused


@every_penalty
@pytest.mark.parametrize(
    ("norm", "size"), [(nn.BatchNorm1d(16), (16,)), (nn.BatchNorm2d(1), (1, 4, 4))], ids=["1d", "2d"]
)
@pytest.mark.parametrize("penalized", [False, True])
def test_batch_norm_in_train_mode_is_refused(case, norm, size, penalized):
    model, (x, y) = nn.Sequential(norm, built(dense)).double(), batch(size=size)
    loss = Penalized(case.make(), 0.5) if penalized else case.make()
    name = type(norm).__name__
    with pytest.raises(
        ValueError,
        match=f"Expected {name} in eval mode with running statistics, got one that looks at the whole batch",
    ):
        loss(model.train(), x, y)
    norm.eval()
    assert loss(model, x, y).isfinite()


@pytest.mark.parametrize(
    "layer", [nn.Dropout(), nn.Dropout2d(), nn.AlphaDropout(), nn.FeatureAlphaDropout()], ids=repr
)
@pytest.mark.parametrize("penalized", [False, True])
def test_dropout_between_two_passes_is_refused(layer, penalized):
    model, (x, y) = nn.Sequential(layer, *built(dense)), batch()
    loss = Penalized(DifferenceReg(), 0.5) if penalized else DifferenceReg()
    with pytest.raises(ValueError, match=r"Expected no dropout between.*got .*Dropout.* in train mode"):
        loss(model.train(), x, y)
    assert loss(model.eval(), x, y).isfinite()


def test_dropout_that_drops_nothing_is_no_dropout():
    model, (x, y) = built(dense), batch()
    undropped = nn.Sequential(nn.Dropout(0.0), *model).train()
    assert torch.equal(
        DifferenceReg(0.1, seeded())(undropped, x, y), DifferenceReg(0.1, seeded())(model, x, y)
    )


@every_penalty
@pytest.mark.parametrize(
    ("model", "shape"), [(nn.Identity(), (5, 1, 4, 4)), (nn.Flatten(0), (80,))], ids=repr
)
@pytest.mark.parametrize("penalized", [False, True])
def test_outputs_that_are_no_logits_are_refused(case, model, shape, penalized):
    x, y = batch()
    loss = Penalized(case.make(), 0.5) if penalized else case.make()
    message = rf"logits of shape \(batch, classes\), got \({', '.join(map(str, shape))},?\)"
    with pytest.raises(ValueError, match=message):
        loss(model, x, y)


@pytest.mark.parametrize("kind", [FrobReg, JacReg])
def test_projections_that_cannot_be_drawn_are_refused(kind):
    for count in (0, -1):
        with pytest.raises(
            ValueError, match=f"projections >= 1, or None for all of the Jacobian, got {count}"
        ):
            kind(count)
    with pytest.raises(ValueError, match="Expected projections <= 3, the number of classes, got 4"):
        kind(4)(built(dense), *batch())


@pytest.mark.parametrize("step", [0.0, -0.1, math.nan, math.inf])
def test_a_step_that_leads_nowhere_is_refused(step):
    with pytest.raises(ValueError, match=f"Expected step > 0 and finite, in pixel units, got {step}"):
        DifferenceReg(step)


@pytest.mark.parametrize("weight", [math.nan, math.inf, -math.inf])
def test_a_weight_that_is_not_finite_is_refused(weight):
    with pytest.raises(ValueError, match=f"Expected a finite weight, got {weight}"):
        Penalized(DataGrad(), weight)


@pytest.mark.parametrize("penalty", [cross_entropy, None])
def test_a_penalty_that_cannot_be_told_the_logits_is_refused(penalty):
    with pytest.raises(TypeError, match=r"Expected a penalty with of_logits, such as DataGrad\(\), got"):
        Penalized(penalty, 0.1)
