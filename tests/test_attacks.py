"""Attacks: against loops over single images, inside their ball, uphill, leaving no trace, against foolbox."""

import copy
import math
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import cross_entropy as ce

from gaussreg_lab.attacks import NORMS, AdversarialLoss, fgm, pgm, wrm
from gaussreg_lab.datasets import batches, digits
from gaussreg_lab.losses import cross_entropy
from gaussreg_lab.models import lenet8, mlp
from gaussreg_lab.robustness import accuracy, predictions
from gaussreg_lab.spectral import cap_network
from gaussreg_lab.training import fit

MODELS = {
    "mlp": lambda: mlp((64, 12, 3)),
    "average": lambda: lenet8(3, (3, 4), 16),
    "maximum": lambda: lenet8(3, (3, 4), 16, pool=nn.MaxPool2d),
}
ATTACKS = {
    "fgm": partial(fgm, radius=0.5),
    "pgm": partial(pgm, radius=0.5, steps=4),
    "wrm": partial(wrm, gamma=0.5, steps=4),
}
every_norm = pytest.mark.parametrize("norm", NORMS)
every_model = pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
every_attack = pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(count: int = 6, classes: int = 3) -> tuple[Tensor, Tensor]:
    x = torch.rand(count, 1, 8, 8, generator=seeded(1), dtype=torch.float64)
    return x, torch.randint(classes, (count,), generator=seeded(2))


def lengths(jolt: Tensor, norm: float) -> Tensor:
    return torch.stack([torch.linalg.vector_norm(it, ord=norm) for it in jolt])


def losses(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return ce(model(x), y, reduction="none")


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    """A LeNet that reads digits. Tests that do more than attack it take a copy."""
    model = lenet8(channels=(16, 32), hidden=64)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    fit(model, batches(digits().train, 64), cross_entropy, optimizer, 6, progress=False)
    return model


# by hand, one image after the other


def slope(model: nn.Module, image: Tensor, label: Tensor) -> Tensor:
    image = image.clone().requires_grad_()
    loss = -model(image[None]).log_softmax(dim=1)[0, label]
    return torch.autograd.grad(loss, image)[0]


def ascent(model: nn.Module, image: Tensor, label: Tensor, norm: float) -> Tensor:
    gradient = slope(model, image, label)
    if norm == math.inf:
        return gradient.sign()
    return gradient / (gradient.abs().sum() if norm == 1 else gradient.square().sum().sqrt())


def fgm_by_hand(model, x, y, radius, norm) -> Tensor:
    return torch.stack([it + radius * ascent(model, it, label, norm) for it, label in zip(x, y, strict=True)])


def pgm_by_hand(model, x, y, radius, norm, steps, step=None, pixels=None) -> Tensor:
    attacked = []
    for image, label in zip(x, y, strict=True):
        moved = image
        for _ in range(steps):
            moved = moved + (step or 2 * radius / steps) * ascent(model, moved, label, norm)
            if norm == math.inf:
                moved = torch.minimum(torch.maximum(moved, image - radius), image + radius)
            else:
                length = lengths((moved - image)[None], norm)[0]
                if length > radius:
                    moved = image + (moved - image) * radius / length
            if pixels:
                moved = moved.clip(*pixels)
        attacked.append(moved)
    return torch.stack(attacked)


def wrm_by_hand(model, x, y, gamma, steps) -> Tensor:
    attacked = []
    for image, label in zip(x, y, strict=True):
        moved, sizes = image, [1.0, *(1 / math.sqrt(t + 2) for t in range(steps))]
        for size in sizes:
            moved = moved + size * (slope(model, moved, label) / (2 * gamma) - (moved - image))
        attacked.append(moved)
    return torch.stack(attacked)


def close(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


@every_model
@every_norm
def test_fgm_is_one_step_of_each_image(build, norm):
    model, (x, y) = build().double(), batch()
    close(fgm(model, x, y, radius=0.7, norm=norm), fgm_by_hand(model, x, y, 0.7, norm))


@every_model
@every_norm
@pytest.mark.parametrize("step", [None, 0.05, 3.0])
def test_pgm_is_many_steps_of_each_image(build, norm, step):
    model, (x, y) = build().double(), batch()
    got = pgm(model, x, y, radius=0.7, norm=norm, steps=5, step=step)
    close(got, pgm_by_hand(model, x, y, 0.7, norm, 5, step))


@every_model
@every_norm
def test_pgm_clips_pixels_at_each_step(build, norm):
    model, (x, y) = build().double(), batch()
    got = pgm(model, x, y, radius=2.0, norm=norm, steps=5, pixels=(0.1, 0.9))
    close(got, pgm_by_hand(model, x, y, 2.0, norm, 5, pixels=(0.1, 0.9)))


@every_model
@pytest.mark.parametrize("steps", [0, 1, 6])
def test_wrm_is_a_full_step_and_shrinking_ones_of_each_image(build, steps):
    model, (x, y) = build().double(), batch()
    close(wrm(model, x, y, gamma=0.3, steps=steps), wrm_by_hand(model, x, y, 0.3, steps))


@pytest.mark.parametrize("attack", [fgm, wrm])
def test_one_step_is_clipped_at_the_end(attack):
    model, (x, y) = mlp((64, 12, 3)).double(), batch()
    strength = {"radius": 3.0} if attack is fgm else {"gamma": 0.02}
    free = attack(model, x, y, **strength)
    assert free.min() < 0.2
    assert torch.equal(attack(model, x, y, **strength, pixels=(0.2, 0.8)), free.clip(0.2, 0.8))


# the authors' defaults


@every_attack
def test_by_default_the_models_own_prediction_is_attacked(attack):
    model, (x, y) = MODELS["mlp"]().double(), batch()
    own = predictions(model, x)
    assert not torch.equal(own, y)
    assert torch.equal(attack(model, x), attack(model, x, own))
    assert not torch.equal(attack(model, x), attack(model, x, y))


@every_attack
def test_by_default_pixels_are_not_clipped(attack):
    model, (_, y) = MODELS["mlp"]().double(), batch()
    for pixel in (0.0, 1.0):
        attacked = attack(model, torch.full((6, 1, 8, 8), pixel, dtype=torch.float64), y)
        assert attacked.min() < pixel < attacked.max()


def test_by_default_pgm_makes_15_steps_of_2_radius_over_15_from_the_image_itself():
    model, (x, y) = MODELS["mlp"]().double(), batch()
    default = pgm(model, x, y, radius=0.6)
    assert torch.equal(default, pgm(model, x, y, radius=0.6, steps=15, norm=2, step=2 * 0.6 / 15))
    assert torch.equal(default, pgm(model, x, y, radius=0.6))
    assert torch.equal(wrm(model, x, y, gamma=0.6), wrm(model, x, y, gamma=0.6, steps=15))
    one = pgm(model, x, y, radius=0.6, steps=1)  # 2 radius up, and back to the ball's edge
    close(one, fgm(model, x, y, radius=0.6))


# inside the ball


@given(
    radius=st.floats(0, 5),
    norm=st.sampled_from(NORMS),
    pixels=st.sampled_from([None, (0.0, 1.0)]),
    steps=st.integers(1, 4),
    seed=st.none() | st.integers(0, 9),
)
def test_an_attack_never_leaves_the_ball(radius, norm, pixels, steps, seed):
    model, (x, y) = mlp((64, 8, 3)).double(), batch(3)
    generator = None if seed is None else seeded(seed)
    ball = {"radius": radius, "norm": norm, "pixels": pixels}
    for attacked in (fgm(model, x, y, **ball), pgm(model, x, y, steps=steps, generator=generator, **ball)):
        assert (lengths(attacked - x, norm) <= radius * (1 + 1e-12) + 1e-14).all()
        if pixels:
            assert attacked.min() >= 0
            assert attacked.max() <= 1


@every_norm
def test_fgm_goes_to_the_edge_of_the_ball(norm):
    model, (x, y) = MODELS["mlp"]().double(), batch()
    close(lengths(fgm(model, x, y, radius=0.7, norm=norm) - x, norm), torch.full((6,), 0.7, dtype=x.dtype))


class Sure(nn.Module):
    """Two logits `gap` apart, and as steep as before: float32 can hardly tell the loss from 0."""

    def __init__(self, gap: float) -> None:
        super().__init__()
        self.gap = gap

    def forward(self, x: Tensor) -> Tensor:
        z = x.flatten(1).sum(dim=1, keepdim=True)
        return torch.cat([z + self.gap, -z], dim=1)


@every_norm
@pytest.mark.parametrize("gap", [0, 40, 60, 85, 200])
def test_a_very_sure_network_is_attacked_with_full_length_or_not_at_all(gap, norm):
    """Its gradients are so small that their squares are 0; at last they are 0 themselves."""
    for attack in (fgm, pgm):
        jolt = attack(Sure(gap), torch.zeros(1, 1, 8, 8), torch.tensor([0]), radius=0.7, norm=norm)
        length = lengths(jolt, norm).item()
        assert length == pytest.approx(0.0 if gap > 150 else 0.7, rel=1e-5)


@every_attack
def test_no_radius_or_an_endless_price_changes_nothing(attack):
    model, (x, y) = MODELS["average"]().double(), batch()
    if attack.func is wrm:
        close(wrm(model, x, y, gamma=1e30), x)
        return
    for norm in NORMS:
        assert torch.equal(attack.func(model, x, y, radius=0.0, norm=norm), x)
    assert torch.equal(pgm(model, x, y, radius=0.0, generator=seeded()), x)


class Constant(nn.Module):
    """The same logits for every image."""

    def forward(self, x: Tensor) -> Tensor:
        return 0 * x.flatten(1)[:, :3] + torch.tensor([0.0, 1.0, 2.0])


@every_attack
def test_where_the_loss_is_flat_nothing_changes(attack):
    x, y = batch()
    norms = [{}] if attack.func is wrm else [{"norm": norm} for norm in NORMS]
    for norm in norms:
        assert torch.equal(attack(Constant(), x, y, **norm), x)


@every_norm
def test_a_random_start_lies_in_the_ball_and_can_be_repeated(norm):
    x, y = batch(2000)
    first, again, other = (
        pgm(Constant(), x, y, radius=0.7, norm=norm, generator=seeded(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    reached = lengths(first - x, norm)
    assert 0.69 < reached.max() < 0.7  # and was not brought back to its edge
    # its mean is x itself: each pixel within the error of 2000 draws
    jolt = first - x
    assert (jolt.mean(0) / (jolt.std(0) / math.sqrt(2000))).abs().max() < 4.5


@every_norm
def test_from_a_random_start_the_steps_lead_elsewhere(norm):
    model, (x, y) = MODELS["mlp"]().double(), batch()
    plain = pgm(model, x, y, radius=0.7, norm=norm)
    assert not torch.equal(pgm(model, x, y, radius=0.7, norm=norm, generator=seeded()), plain)


# uphill


def linear() -> tuple[nn.Module, Tensor]:
    """A linear model with two classes, and the direction from the first to the second."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).double()
    return model, (model[1].weight[1] - model[1].weight[0]).detach()


@pytest.mark.parametrize("norm", [2, math.inf])
@pytest.mark.parametrize("attack", [fgm, pgm])
def test_on_a_linear_model_the_optimum_is_found(attack, norm):
    (model, towards), (x, y) = linear(), batch(classes=2)
    best = towards.sign() if norm == math.inf else towards / towards.norm()
    expected = (1 - 2 * y)[:, None] * (0.7 * best)
    close((attack(model, x, y, radius=0.7, norm=norm) - x).flatten(1), expected)
    anywhere = torch.randn(500, 1, 1, 8, 8, generator=seeded(), dtype=torch.float64)
    anywhere = (
        0.7 * anywhere / torch.linalg.vector_norm(anywhere.flatten(1), norm, dim=1).view(-1, 1, 1, 1, 1)
    )
    reached = losses(model, attack(model, x, y, radius=0.7, norm=norm), y)
    assert all((losses(model, x + jolt, y) < reached).all() for jolt in anywhere)


def test_in_the_norm_1_the_step_is_the_authors_and_not_the_steepest():
    (model, towards), (x, _) = linear(), batch()
    y = torch.zeros(len(x)).long()
    attacked = fgm(model, x, y, radius=0.7, norm=1)
    close((attacked - x).flatten(1), (0.7 * towards / towards.abs().sum()).expand(len(x), -1))
    steepest = x.flatten(1).clone()
    top = towards.abs().argmax()
    steepest[:, top] += 0.7 * towards[top].sign()
    assert (losses(model, steepest.reshape(x.shape), y) > losses(model, attacked, y)).all()


def test_on_a_linear_model_wrm_comes_to_rest_where_slope_and_price_are_equal():
    """x' - x = t d with 2 gamma t = sigmoid(lead + t |d|^2); found by halving."""
    (model, towards), (x, _) = linear(), batch()
    y, gamma = torch.zeros(len(x)).long(), 0.6
    lead = model(x).detach() @ torch.tensor([-1.0, 1.0], dtype=torch.float64)
    low, high = torch.zeros_like(lead), torch.full_like(lead, 1 / (2 * gamma))
    for _ in range(60):
        middle = (low + high) / 2
        more = (lead + middle * towards.square().sum()).sigmoid() > 2 * gamma * middle
        low, high = torch.where(more, middle, low), torch.where(more, high, middle)
    close((wrm(model, x, y, gamma=gamma, steps=200) - x).flatten(1), low[:, None] * towards)


@every_norm
def test_attacks_raise_the_loss_of_a_trained_network_and_pgm_more_than_fgm(trained, norm):
    x, y = digits().test
    radius = {1: 4.0, 2: 0.8, math.inf: 0.1}[norm]
    clean = losses(trained, x, y)
    fast, slow = (
        losses(trained, attack(trained, x, y, radius=radius, norm=norm), y) for attack in (fgm, pgm)
    )
    assert (slow >= clean - 1e-6).float().mean() > 0.99
    assert slow.mean() > fast.mean() > 2 * clean.mean()


def test_wrm_raises_the_loss_the_more_the_lower_the_price(trained):
    x, y = digits().test
    means = [losses(trained, wrm(trained, x, y, gamma=gamma), y).mean() for gamma in (10, 2, 0.5)]
    assert losses(trained, x, y).mean() < means[0] < means[1] < means[2]


@every_norm
@pytest.mark.parametrize("attack", [fgm, pgm])
def test_the_larger_the_ball_the_lower_the_accuracy(trained, attack, norm):
    x, y = digits().test
    unit = {1: 4.0, 2: 0.8, math.inf: 0.1}[norm]
    shares = [
        accuracy(trained, attack(trained, x, y, radius=share * unit, norm=norm), y)
        for share in (0, 0.5, 1, 2)
    ]
    assert shares[0] == accuracy(trained, x, y) > shares[1] > shares[2] > shares[3]


def test_an_attack_does_more_than_noise_of_the_same_length(trained):
    x, y = digits().test
    noise = torch.randn(x.shape, generator=seeded())
    noise = noise / lengths(noise, 2).reshape(-1, 1, 1, 1)
    assert accuracy(trained, x + noise, y) > accuracy(trained, fgm(trained, x, y, radius=1.0), y) + 0.3


# no trace


@every_attack
@pytest.mark.parametrize("own", [False, True])
def test_an_attack_leaves_no_trace(attack, own):
    """Modes, statistics of batch norm, gradients, generators, the images."""
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(72, 3)
    ).double()
    model.train()
    model[3].eval()
    (x, y), modes = batch(), [layer.training for layer in model.modules()]
    x.requires_grad_()
    kept, before, state = x.detach().clone(), copy.deepcopy(model.state_dict()), torch.get_rng_state()
    attacked = attack(model, x, None if own else y)
    assert [layer.training for layer in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(x, kept)
    assert x.grad is None
    assert not attacked.requires_grad
    with torch.no_grad():  # and it climbs where no gradients are kept
        assert torch.equal(attack(model, x, None if own else y), attacked)


def test_a_random_start_leaves_the_global_generator():
    state = torch.get_rng_state()
    pgm(Constant(), *batch(), radius=0.7, generator=seeded())
    assert torch.equal(torch.get_rng_state(), state)


@every_attack
def test_gradients_that_wait_for_the_optimizer_are_kept(attack):
    model, (x, y) = MODELS["average"]().double(), batch()
    cross_entropy(model, x, y).backward()
    waiting = [weight.grad.clone() for weight in model.parameters()]
    attack(model, x, y)
    torch.testing.assert_close([weight.grad for weight in model.parameters()], waiting, rtol=0, atol=0)


@every_attack
def test_the_power_iteration_of_a_capped_network_stands_still(attack):
    x, y = batch()
    model = cap_network(MODELS["average"]().double(), x[:1], bound=0.8).train()
    before = copy.deepcopy(model.state_dict())
    attack(model, x, y)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    cross_entropy(model, x, y)  # while a step of training moves it
    assert not all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@every_attack
def test_the_mode_is_put_back_after_an_error(attack):
    model = MODELS["average"]().train()
    with pytest.raises(RuntimeError):
        attack(model, torch.zeros(2, 3, 8, 8), torch.zeros(2).long())
    assert all(layer.training for layer in model.modules())


# training against them


@every_attack
@pytest.mark.parametrize("on_labels", [False, True])
def test_the_adversarial_loss_is_that_of_attacked_images(attack, on_labels):
    model, (x, y) = MODELS["average"]().double(), batch()
    fixed = attack(model, x, y if on_labels else None)
    results = []
    for loss in (AdversarialLoss(attack, on_labels=on_labels), lambda model, x, y: ce(model(fixed), y)):
        model.zero_grad()
        value = loss(model, x, y)
        value.backward()
        results.append((value.detach(), [weight.grad.clone() for weight in model.parameters()]))
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-14)  # nothing flows through the attack


def test_the_adversarial_loss_takes_any_loss_and_runs_it_in_the_models_own_mode():
    modes = []

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        modes.append(model.training)
        return (x - images).square().sum()

    model, (images, y) = MODELS["mlp"]().double().train(), batch()
    value = AdversarialLoss(partial(fgm, radius=0.5), loss)(model, images, y)
    assert value.item() == pytest.approx(6 * 0.5**2)
    assert modes == [True]


def test_training_against_an_attack_holds_under_it():
    train, test = digits()
    attack, scores = partial(pgm, radius=0.8, steps=4), {}
    for name, loss in (("plain", cross_entropy), ("adversarial", AdversarialLoss(attack, on_labels=True))):
        model = mlp((64, 32, 10))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
        fit(model, batches(train, 64), loss, optimizer, 8, progress=False)
        scores[name] = accuracy(model, attack(model, *test), test.y)
    assert scores["adversarial"] > scores["plain"] + 0.1


# refused


@pytest.mark.parametrize("attack", [fgm, pgm])
def test_what_is_no_ball_is_refused(attack):
    model, (x, y) = MODELS["mlp"]().double(), batch()
    for radius in (-0.1, math.nan, math.inf):
        with pytest.raises(
            ValueError, match=f"Expected radius >= 0 and finite, in pixel units, got {radius}"
        ):
            attack(model, x, y, radius=radius)
    for norm in (0, 3, -math.inf, math.nan, "inf"):
        with pytest.raises(ValueError, match=rf"Expected norm 1, 2 or math\.inf, got {norm}"):
            attack(model, x, y, radius=1.0, norm=norm)


@pytest.mark.parametrize(
    "bad",
    [{"steps": 0}, {"steps": -1}, *({"step": step} for step in (0.0, -0.1, math.nan, math.inf))],
    ids=str,
)
def test_steps_that_lead_nowhere_are_refused(bad):
    with pytest.raises(ValueError, match="Expected steps >= 1 and step > 0 and finite, got"):
        pgm(MODELS["mlp"]().double(), *batch(), radius=1.0, **bad)


@pytest.mark.parametrize("bad", [{"gamma": gamma} for gamma in (0.0, -1.0, math.nan, math.inf)], ids=str)
def test_what_is_no_price_is_refused(bad):
    with pytest.raises(ValueError, match=rf"gamma > 0 and finite, and steps >= 0, got {bad['gamma']} and 15"):
        wrm(MODELS["mlp"]().double(), *batch(), **bad)
    with pytest.raises(ValueError, match=r"steps >= 0, got 1\.0 and -1"):
        wrm(MODELS["mlp"]().double(), *batch(), gamma=1.0, steps=-1)


@every_attack
@pytest.mark.parametrize("pixels", [(1.0, 0.0), (0.5, 0.5), (0.0, math.nan), (0.0,)], ids=str)
def test_what_is_no_range_of_pixels_is_refused(attack, pixels):
    with pytest.raises(ValueError, match=r"Expected pixels \(low, high\) with low < high, or None, got"):
        attack(MODELS["mlp"]().double(), *batch(), pixels=pixels)


@every_attack
@pytest.mark.parametrize(
    "y",
    [torch.zeros(5), torch.zeros(7), torch.zeros(6, 1), torch.tensor(0)],
    ids=lambda y: str(tuple(y.shape)),
)
def test_labels_that_are_not_one_for_each_image_are_refused(attack, y):
    with pytest.raises(ValueError, match=r"Expected y of shape \(6,\), one label for each image, got"):
        attack(MODELS["mlp"]().double(), batch()[0], y.long())


@every_attack
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize(
    ("model", "shape"), [(nn.Identity(), r"6, 1, 8, 8"), (nn.Flatten(0), "384,")], ids=repr
)
def test_outputs_that_are_no_logits_are_refused(attack, own, model, shape):
    x, y = batch()
    with pytest.raises(ValueError, match=rf"logits of shape \(batch, classes\), got \({shape}\)"):
        attack(model, x, None if own else y)


# the library


@pytest.fixture
def foolbox():
    return pytest.importorskip("foolbox", reason="compares with foolbox where it is installed")


# its own import of scipy
@pytest.mark.filterwarnings("ignore:Please import `gaussian_filter`:DeprecationWarning")
@pytest.mark.parametrize(
    ("norm", "radius", "name"), [(1, 4.0, "L1"), (2, 0.8, "L2"), (math.inf, 0.1, "Linf")]
)
def test_foolbox_finds_no_higher_loss(trained, foolbox, norm, radius, name):
    x, y = digits().test
    theirs = foolbox.PyTorchModel(trained, bounds=(-10, 10), device="cpu")
    many = getattr(foolbox.attacks, f"{name}ProjectedGradientDescentAttack")
    _, found, _ = many(abs_stepsize=2 * radius / 15, steps=15, random_start=False)(
        theirs, x, y, epsilons=radius
    )
    ours = pgm(trained, x, y, radius=radius, norm=norm)
    assert losses(trained, ours, y).mean() >= losses(trained, found, y).mean() - 1e-3
    once = getattr(foolbox.attacks, f"{name}FastGradientAttack")
    _, found, _ = once(random_start=False)(theirs, x, y, epsilons=radius)
    torch.testing.assert_close(fgm(trained, x, y, radius=radius, norm=norm), found)
