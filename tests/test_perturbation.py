"""AMP against the published algorithm unrolled by hand, and against what goes wrong elsewhere."""

import copy
import math
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gaussreg_lab.perturbation import AMP, into_ball, statistics_kept
from gaussreg_lab.spectral import cap_network


def smooth_network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def data(count: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(count, 5, generator=generator, dtype=torch.float64)
    return x, torch.randint(3, (count,), generator=generator)


def closure_for(model, optimizer, x, y, scale=1.0):
    def closure():
        optimizer.zero_grad()
        loss = scale * nn.functional.cross_entropy(model(x), y)
        loss.backward()
        return loss

    return closure


def weights_of(model) -> torch.Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


def published(model, x, y, *, steps, groups, rate_at, momentum, nesterov, decay, inner_lr, inner_iter, scale):
    """The authors' algorithm in plain loops: weights as lists, SGD with its momentum written out.

    groups: pairs (indices of weights, epsilon).
    """
    weights = [weight.detach().clone() for weight in model.parameters()]
    names = [name for name, _ in model.named_parameters()]
    epsilon_of = {index: epsilon for indices, epsilon in groups for index in indices}
    velocity = [None] * len(weights)

    def gradient_at(values):
        leaves = [value.detach().clone().requires_grad_() for value in values]
        logits = torch.func.functional_call(model, dict(zip(names, leaves, strict=True)), x)
        return torch.autograd.grad(scale * nn.functional.cross_entropy(logits, y), leaves)

    for step in range(steps):
        gradient = gradient_at(weights)
        jolts = [torch.zeros_like(weight) for weight in weights]
        for _ in range(inner_iter):
            for k in range(len(weights)):
                new = jolts[k] + inner_lr * gradient[k]
                size = math.sqrt(sum(number**2 for number in new.flatten().tolist()))
                if size > epsilon_of[k]:
                    new = new * (epsilon_of[k] / (size + 1e-12))
                jolts[k] = new
            gradient = gradient_at([w + jolt for w, jolt in zip(weights, jolts, strict=True)])
        for k in range(len(weights)):
            g = gradient[k] + decay * weights[k]
            velocity[k] = g if velocity[k] is None else momentum * velocity[k] + g
            weights[k] = weights[k] - rate_at(step) * (
                g + momentum * velocity[k] if nesterov else velocity[k]
            )
    return torch.cat([weight.flatten() for weight in weights])


@pytest.mark.parametrize("inner_iter", [1, 3])
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("epsilons", [(0.05, 0.05), (0.02, 0.3), (10.0, 10.0)])  # the last is never reached
def test_ten_steps_are_those_of_the_published_algorithm(inner_iter, nesterov, epsilons):
    model, (x, y) = smooth_network(), data()
    common = {"momentum": 0.9, "nesterov": nesterov, "inner_iter": inner_iter, "inner_lr": 0.7, "scale": 3.0}
    expected = published(
        model, x, y, steps=10, groups=[(range(2), epsilons[0]), (range(2, 6), epsilons[1])], decay=1e-2,
        rate_at=lambda step: 0.1 * 0.1 ** ((step >= 4) + (step >= 7)), **common,
    )  # fmt: skip
    weights = list(model.parameters())
    base = torch.optim.SGD(
        [{"params": weights[:2], "epsilon": epsilons[0]}, {"params": weights[2:]}],
        lr=0.1, momentum=0.9, nesterov=nesterov, weight_decay=1e-2,
    )  # fmt: skip
    optimizer = AMP(base, epsilon=epsilons[1], inner_lr=0.7, inner_iter=inner_iter)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [4, 7])
    for _ in range(10):
        optimizer.step(closure_for(model, optimizer, x, y, scale=3.0))
        schedule.step()
    torch.testing.assert_close(weights_of(model), expected, rtol=0, atol=1e-12)


def test_the_ball_of_the_whole_model_is_sams():
    """Far out of the ball one step is SAM's: the gradient at w + epsilon g / |g|, |g| over all weights."""
    model, (x, y) = smooth_network(), data()
    start, names = [w.detach().clone() for w in model.parameters()], [n for n, _ in model.named_parameters()]

    def gradient_at(values):
        leaves = [value.clone().requires_grad_() for value in values]
        logits = torch.func.functional_call(model, dict(zip(names, leaves, strict=True)), x)
        return torch.autograd.grad(nn.functional.cross_entropy(logits, y), leaves)

    uphill = gradient_at(start)
    size = torch.cat([g.flatten() for g in uphill]).norm()
    at_jolted = gradient_at([w + 0.01 * g / size for w, g in zip(start, uphill, strict=True)])
    expected = torch.cat([(w - 0.1 * g).flatten() for w, g in zip(start, at_jolted, strict=True)])
    optimizer = AMP(torch.optim.SGD(model.parameters(), lr=0.1), 0.01, inner_lr=100.0, ball="model")
    optimizer.step(closure_for(model, optimizer, x, y))
    torch.testing.assert_close(weights_of(model), expected, rtol=0, atol=1e-12)


@given(
    w=st.lists(st.floats(-3, 3), min_size=2, max_size=5),
    epsilon=st.floats(0, 2),
    inner_lr=st.floats(0.01, 3),
    lr=st.floats(0.01, 1),
)
def test_the_step_on_half_the_square_is_the_analytic_one(w, epsilon, inner_lr, lr):
    weight = nn.Parameter(torch.tensor(w, dtype=torch.float64))
    start = weight.detach().clone()
    optimizer = AMP(torch.optim.SGD([weight], lr=lr), epsilon, inner_lr)

    def closure():
        loss = weight.square().sum() / 2
        loss.backward()
        return loss

    loss = optimizer.step(closure)
    size = start.norm()
    reach = min(inner_lr * size, torch.tensor(epsilon, dtype=torch.float64))
    jolted = start + reach * start / size if size > 0 else start
    torch.testing.assert_close(weight.detach(), start - lr * jolted, rtol=1e-9, atol=1e-11)
    assert loss.item() == pytest.approx(size.item() ** 2 / 2)


@pytest.mark.parametrize("make", [
    lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.9),
    lambda weights: torch.optim.Adam(weights, lr=0.01),
    lambda weights: torch.optim.AdamW(weights, lr=0.01),
])  # fmt: skip
def test_without_a_ball_each_step_is_the_wrapped_optimizers_bit_for_bit(make):
    alone, wrapped, (x, y) = smooth_network(), smooth_network(), data()
    base, optimizer = make(alone.parameters()), AMP(make(wrapped.parameters()), epsilon=0.0)
    for _ in range(5):
        base.step(closure_for(alone, base, x, y))
        optimizer.step(closure_for(wrapped, optimizer, x, y))
    assert torch.equal(weights_of(alone), weights_of(wrapped))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("ball", ["parameter", "model"])
def test_weights_come_back_to_the_bit(dtype, ball):
    model, (x, y) = smooth_network().to(dtype), data()
    places = [weight.data_ptr() for weight in model.parameters()]
    before = weights_of(model)
    optimizer = AMP(torch.optim.SGD(model.parameters(), lr=0.0), epsilon=0.5, inner_iter=2, ball=ball)
    for _ in range(50):
        optimizer.step(closure_for(model, optimizer, x.to(dtype), y))
    assert torch.equal(weights_of(model), before)
    assert [weight.data_ptr() for weight in model.parameters()] == places


def test_save_load_and_go_on_is_as_if_never_stopped(tmp_path):
    x, y = data()

    def built(seed):
        model = smooth_network(seed)
        base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        optimizer = AMP(base, epsilon=0.1)
        return model, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5)

    def train(model, optimizer, schedule, steps):
        for _ in range(steps):
            optimizer.step(closure_for(model, optimizer, x, y))
            schedule.step()

    whole = built(0)
    train(*whole, 8)
    first = built(0)
    train(*first, 4)
    torch.save([it.state_dict() for it in first], tmp_path / "checkpoint.pt")
    second = built(1)
    for part, state in zip(second, torch.load(tmp_path / "checkpoint.pt"), strict=True):
        part.load_state_dict(state)
    assert any("momentum_buffer" in state for state in second[1].state.values())
    train(*second, 4)
    assert torch.equal(weights_of(second[0]), weights_of(whole[0]))


def test_after_loading_a_schedule_still_steers_the_wrapped_optimizer():
    model, (x, y) = smooth_network(), data()
    optimizer = AMP(torch.optim.SGD(model.parameters(), lr=0.1), epsilon=0.1)
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.param_groups[0]["lr"] = 0.0
    before = weights_of(model)
    optimizer.step(closure_for(model, optimizer, x, y))
    assert torch.equal(weights_of(model), before)


def test_a_checkpoint_of_the_wrapped_optimizer_alone_is_completed():
    model, (x, y) = smooth_network(), data()
    alone = torch.optim.SGD(model.parameters(), lr=0.1).state_dict()
    optimizer = AMP(torch.optim.SGD(model.parameters(), lr=0.1), epsilon=0.25)
    optimizer.optimizer.load_state_dict(alone)  # behind our back
    optimizer.step(closure_for(model, optimizer, x, y))
    assert optimizer.param_groups[0]["epsilon"] == 0.25
    optimizer.load_state_dict(alone)
    assert optimizer.param_groups[0]["epsilon"] == 0.25


def test_a_deep_copy_of_model_and_optimizer_goes_the_same_way_on_its_own():
    model, (x, y) = smooth_network(), data()
    optimizer = AMP(torch.optim.Adam(model.parameters(), lr=0.01), epsilon=0.1, inner_iter=2, ball="model")
    optimizer.step(closure_for(model, optimizer, x, y))
    twin, twins = copy.deepcopy((model, optimizer))
    assert (twins.inner_iter, twins.ball) == (2, "model")
    before = weights_of(model)
    twins.step(closure_for(twin, twins, x, y))
    assert torch.equal(weights_of(model), before)
    optimizer.step(closure_for(model, optimizer, x, y))
    assert torch.equal(weights_of(model), weights_of(twin))


def test_an_added_group_is_jolted_and_trained():
    model, (x, y) = smooth_network(), data()
    whole = smooth_network()
    layers = list(model.children())
    optimizer = AMP(torch.optim.SGD(layers[0].parameters(), lr=0.1), epsilon=0.1)
    for layer in layers[2:]:
        if list(layer.parameters()):
            optimizer.add_param_group({"params": layer.parameters()})
    reference = AMP(torch.optim.SGD(whole.parameters(), lr=0.1), epsilon=0.1)
    optimizer.step(closure_for(model, optimizer, x, y))
    reference.step(closure_for(whole, reference, x, y))
    assert torch.equal(weights_of(model), weights_of(whole))


def test_a_weight_that_a_pass_does_not_reach_stays_where_it_is():
    """Reached in the first pass alone, in the second alone, or never."""
    used = [nn.Parameter(torch.ones(2)) for _ in range(4)]
    optimizer = AMP(torch.optim.SGD(used, lr=0.0), epsilon=0.5)
    passes = []

    def closure():
        optimizer.zero_grad()
        passes.append([weight.detach().clone() for weight in used])
        other = used[1] if len(passes) == 1 else used[2]
        loss = (used[0] + other).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert [bool((weight != 1).any()) for weight in passes[1]] == [True, True, False, False]
    assert all(torch.equal(weight.detach(), torch.ones(2)) for weight in used)


def test_closures_may_leave_gradients_lying_about_and_clip_them():
    model, (x, y) = smooth_network(), data()
    tidy = smooth_network()
    reference = AMP(torch.optim.SGD(tidy.parameters(), lr=0.1), epsilon=0.1)
    optimizer = AMP(torch.optim.SGD(model.parameters(), lr=0.1), epsilon=0.1)

    def clipped(net, zero_first):
        def closure():
            if zero_first:
                net.zero_grad()
            loss = nn.functional.cross_entropy(net(x), y)
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 0.01)
            return loss

        return closure

    for _ in range(3):
        optimizer.step(clipped(model, zero_first=False))
        reference.step(clipped(tidy, zero_first=True))
    assert torch.equal(weights_of(model), weights_of(tidy))
    gradient = torch.cat([weight.grad.flatten() for weight in model.parameters()])
    assert gradient.norm() <= 0.01 * (1 + 1e-6)


def test_sparse_gradients_of_an_embedding():
    tables = [nn.Embedding(6, 3, sparse=sparse) for sparse in (True, False)]
    tables[1].load_state_dict(tables[0].state_dict())
    for table in tables:
        optimizer = AMP(torch.optim.SGD(table.parameters(), lr=0.1), epsilon=0.5)

        def closure(table=table, optimizer=optimizer):
            optimizer.zero_grad()
            loss = table(torch.tensor([1, 4])).pow(3).sum()
            loss.backward()
            return loss

        optimizer.step(closure)
    torch.testing.assert_close(tables[0].weight, tables[1].weight)


def test_the_jolt_goes_down_where_the_optimizer_maximizes():
    weight = nn.Parameter(torch.tensor([3.0, 4.0]))
    optimizer = AMP(torch.optim.SGD([weight], lr=0.5, maximize=True), epsilon=1.0)

    def closure():
        loss = -weight.square().sum() / 2
        loss.backward()
        return loss

    optimizer.step(closure)  # as the step on the square, minimized
    torch.testing.assert_close(weight.detach(), torch.tensor([1.2, 1.6]))


def test_batch_norm_counts_each_batch_once_and_forgets_the_jolted_weights():
    torch.manual_seed(0)
    x, y = torch.randn(32, 5), torch.randint(3, (32,))
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3))
    plain = copy.deepcopy(model)
    plain(x)  # one pass in train mode
    optimizer = AMP(torch.optim.SGD(model.parameters(), lr=0.1), epsilon=1.0, inner_iter=3)
    optimizer.step(closure_for(model, optimizer, x, y))
    for name, buffer in plain[1].named_buffers():
        assert torch.equal(model[1].get_buffer(name), buffer), name


def test_a_cap_follows_its_weights_and_not_the_jolted_ones():
    model, (x, y) = smooth_network(), data()
    cap_network(model, x[:1], bound=0.5)
    alone = copy.deepcopy(model)
    alone(x)
    optimizer = AMP(torch.optim.SGD(model.parameters(), lr=0.0), epsilon=0.5)
    optimizer.step(closure_for(model, optimizer, x, y))
    for (name, kept), (_, expected) in zip(model.named_buffers(), alone.named_buffers(), strict=True):
        assert torch.equal(kept, expected), name


def test_statistics_come_back_after_an_error_too():
    norm = nn.BatchNorm1d(2)
    with pytest.raises(ValueError, match="more than 1 value per channel"), statistics_kept():
        norm(norm(torch.ones(3, 2))[:1])  # the second call complains about a batch of one
    assert norm.num_batches_tracked == 0
    norm(torch.ones(3, 2))
    assert norm.num_batches_tracked == 1  # the watch is over


@pytest.mark.parametrize("bad_pass", [1, 2, 3])
@pytest.mark.parametrize("what", ["loss", "gradient", "error"])
def test_a_loss_that_is_not_finite_leaves_weights_and_state_untouched(bad_pass, what):
    model, (x, y) = smooth_network(), data()
    base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    optimizer = AMP(base, epsilon=0.1, inner_iter=2)
    optimizer.step(closure_for(model, optimizer, x, y))
    before, state = weights_of(model), copy.deepcopy(optimizer.state_dict())
    passes = []

    def closure():
        passes.append(1)
        loss = nn.functional.cross_entropy(model(x), y)
        if len(passes) == bad_pass:
            if what == "error":
                raise ZeroDivisionError
            loss = loss * math.inf if what == "loss" else loss + model[0].weight.sub(model[0].weight).norm()
        loss.backward()
        if what == "gradient" and len(passes) == bad_pass:
            model[0].weight.grad[0, 0] = math.nan
        return loss

    with pytest.raises((ValueError, ZeroDivisionError), match="finite" if what != "error" else None):
        optimizer.step(closure)
    assert len(passes) == bad_pass
    assert torch.equal(weights_of(model), before)
    after = optimizer.state_dict()
    assert after["param_groups"] == state["param_groups"]
    for key, kept in state["state"].items():
        assert torch.equal(after["state"][key]["momentum_buffer"], kept["momentum_buffer"])


def test_the_wrapped_optimizers_momentum_survives_the_wrapping():
    model, (x, y) = smooth_network(), data()
    base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    base.step(closure_for(model, base, x, y))
    optimizer = AMP(base, epsilon=0.1)
    assert optimizer.state is base.state
    assert optimizer.param_groups is base.param_groups
    assert len(base.state) == 6


def test_a_cycle_of_rate_and_momentum_finds_the_wrapped_defaults():
    model = smooth_network()
    optimizer = AMP(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), epsilon=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.2, total_steps=10)
    assert optimizer.optimizer.param_groups[0]["lr"] == schedule.get_last_lr()[0]


@given(
    st.lists(st.floats(-5, 5), min_size=3, max_size=3),
    st.floats(0, 4),
    st.sampled_from(["parameter", "model"]),
)
def test_a_jolt_ends_in_the_ball_and_keeps_its_direction(numbers, radius, ball):
    jolts = [torch.tensor(numbers[:1], dtype=torch.float64), torch.tensor(numbers[1:], dtype=torch.float64)]
    before = [jolt.clone() for jolt in jolts]
    into_ball(jolts, [radius, radius], ball)
    if ball == "model":
        jolts, before = [torch.cat(jolts)], [torch.cat(before)]
    for jolt, old in zip(jolts, before, strict=True):
        assert jolt.norm() <= radius * (1 + 1e-9)
        if old.norm() <= radius:
            assert torch.equal(jolt, old)
        else:
            torch.testing.assert_close(jolt, old * (radius / old.norm()), rtol=1e-6, atol=1e-11)


def test_clear_errors_for_bad_settings():
    model = smooth_network()
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    for arguments, message in [
        ({"epsilon": -0.1}, "epsilon >= 0 and finite, got -0.1"),
        ({"epsilon": math.nan}, "epsilon >= 0 and finite, got nan"),
        ({"epsilon": 0.1, "inner_lr": 0.0}, "inner_lr > 0 and finite, got 0.0"),
        ({"epsilon": 0.1, "inner_iter": 0}, "inner_iter to be a whole number >= 1, got 0"),
        ({"epsilon": 0.1, "inner_iter": 1.5}, "inner_iter to be a whole number >= 1, got 1.5"),
        ({"epsilon": 0.1, "ball": "layer"}, "ball to be one of ('parameter', 'model'), got 'layer'"),
    ]:
        with pytest.raises(ValueError, match=re.escape(message)):
            AMP(torch.optim.SGD(model.parameters(), lr=0.1), **arguments)
    with pytest.raises(TypeError, match="Expected a built optimizer"):
        AMP(model.parameters(), 0.1)
    with pytest.raises(ValueError, match="weights that require gradients"):
        AMP(torch.optim.SGD([{"params": []}], lr=0.1), 0.1)
    with pytest.raises(ValueError, match="weights that require gradients"):
        AMP(torch.optim.SGD([torch.zeros(2)], lr=0.1), 0.1)
    optimizer = AMP(base, 0.1, ball="model")
    with pytest.raises(ValueError, match="one epsilon for all groups"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))], "epsilon": 0.5})
    with pytest.raises(ValueError, match="epsilon >= 0"):
        AMP(torch.optim.SGD([{"params": model.parameters(), "epsilon": -1}], lr=0.1), 0.1)


def test_clear_errors_for_bad_closures():
    model, (x, y) = smooth_network(), data()
    optimizer = AMP(torch.optim.SGD(model.parameters(), lr=0.1), epsilon=0.1)
    before = weights_of(model)

    def with_outputs():
        z = model(x)
        loss = nn.functional.cross_entropy(z, y)
        loss.backward()
        return z, loss

    with pytest.raises(TypeError, match="return the loss alone"):
        optimizer.step(with_outputs)
    with pytest.raises(TypeError, match=r"Expected step\(closure\)"):
        optimizer.step(None)
    with pytest.raises(TypeError, match="closure"):
        optimizer.step()
    with pytest.raises(TypeError, match="a tensor with one number, got NoneType"):
        optimizer.step(lambda: None)
    optimizer.step(closure_for(model, optimizer, x, y))  # leaves gradients behind
    before = weights_of(model)
    with pytest.raises(ValueError, match=r"call backward\(\)"):
        optimizer.step(lambda: nn.functional.cross_entropy(model(x), y))
    assert torch.equal(weights_of(model), before)
