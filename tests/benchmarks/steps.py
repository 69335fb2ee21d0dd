"""What a training step costs with each method of the course, in plain steps of the same network.

Beside ours stand the ways that a user would otherwise take, written plainly, and other packages where they
are installed. A floor is what the method cannot do without, measured in the same run.
"""

import copy
from functools import partial
from importlib.util import find_spec

import torch
from ratios import Ratios, compare
from torch import nn

import gaussreg_lab as lab
from gaussreg_lab.linearization import split_at_first_relu
from gaussreg_lab.training import step

BATCH = 128
SIGMA = 0.25
NETWORKS = {  # the papers pool by the maximum, the lab by the average
    "LeNet": partial(lab.lenet, channels=(6, 16), hidden=84, pool=nn.MaxPool2d),
    "wide LeNet": partial(lab.lenet, channels=(32, 64), hidden=1024, pool=nn.MaxPool2d),
    "the lab's LeNet": lab.lenet,
}


def images(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random ones: the work is the same as on real ones."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(BATCH, *shape, generator=generator), torch.randint(10, (BATCH,), generator=generator)


def step_of(model: nn.Module, loss: lab.Loss, optimizer=None, shape: tuple[int, ...] = (1, 28, 28)):
    """One training step, as `fit` makes it."""
    x, y = images(*shape)
    model.train()
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=1e-6)
    return lambda: step(model, x, y, loss, optimizer)


def in_steps(model: nn.Module, losses: dict[str, lab.Loss], turns: int = 15, **shape) -> Ratios:
    plain = step_of(model, lab.cross_entropy, **shape)
    return compare(plain, {name: step_of(model, it, **shape) for name, it in losses.items()}, turns)


def expected_output(make) -> Ratios:
    """Cross entropy and the paper's term; its floor: both halves go through the rest, without any moments."""
    both = {
        "in one pass": lab.AnalyticalMomentLoss(SIGMA),
        "as a sum of two losses": lab.weighted_sum(
            (1.0, lab.cross_entropy), (1.0, lab.ExpectedOutputLoss(SIGMA))
        ),
        "the authors' way: two passes, textbook formula": two_passes,
        "floor: two halves, no moments": two_halves,
    }
    return in_steps(make(), both)


def two_passes(model: nn.Sequential, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Moments of the first layer's output for each image, and the formula with Phi and phi."""
    before, after = split_at_first_relu(model)
    *affine, layer = before
    scale = affine[0].std.item()
    z = before(x)
    var = torch.full_like(x, (SIGMA / scale) ** 2)
    std = nn.functional.conv2d(var, layer.weight.square(), None, layer.stride, layer.padding).sqrt()
    normal = torch.distributions.Normal(0.0, 1.0)
    rectified = z * normal.cdf(z / std) + std * normal.log_prob(z / std).exp()
    return lab.cross_entropy(model, x, y) + nn.functional.cross_entropy(after(rectified), y)


def two_halves(model: nn.Sequential, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    before, after = split_at_first_relu(model)
    z = before(x).relu()
    return nn.functional.cross_entropy(after(torch.cat([z, z])), y.repeat(2))


def second_order(make) -> Ratios:
    """Its floor: a noisy pass without gradients, and the length of one projected gradient, twice derived."""
    rough = lab.Penalized(lab.FrobReg(1), 1e-3)

    def floor(model, x, y):
        with torch.no_grad():
            model(x)
        return rough(model, x, y)

    return in_steps(make(), {
        "second order": lab.SecondOrderLoss(SIGMA),
        "clean + 3 fresh folds": lab.weighted_sum((1.0, lab.cross_entropy), (3.0, lab.NoisyLoss(SIGMA, 3))),
        "floor: a pass, and a gradient derived twice": floor,
    })  # fmt: skip


def penalties(make) -> Ratios:
    ways = {
        "DataGrad": lab.Penalized(lab.DataGrad(), 1e-3),
        "SpectReg": lab.Penalized(lab.SpectReg(), 1e-3),
        "FrobReg, 1 projection": lab.Penalized(lab.FrobReg(1), 1e-3),
        "DifferenceReg, 1 direction": lab.Penalized(lab.DifferenceReg(), 1e-3),
        "1 projection, textbook": partial(textbook_projection, count=1),
    }
    return in_steps(make(), ways)


def exact_penalty(make) -> Ratios:
    ways = {
        "FrobReg, all 10 classes": lab.Penalized(lab.FrobReg(), 1e-3),
        "all 10 classes, textbook": textbook_frobenius,
    }
    if find_spec("jacobian"):
        from jacobian import JacobianReg

        ways["jacobian_regularizer, n=-1"] = partial(with_jacobian_reg, JacobianReg(n=-1))
    return in_steps(make(), ways, turns=7)


def textbook_projection(model: nn.Module, x: torch.Tensor, y: torch.Tensor, count: int) -> torch.Tensor:
    """Cross entropy, and projections with a forward pass of their own."""
    at = x.clone().requires_grad_()
    z, total = model(at), 0.0
    for _ in range(count):
        (pulled,) = torch.autograd.grad((z * torch.randn_like(z)).sum(), at, create_graph=True)
        total = total + pulled.square().sum()
    return lab.cross_entropy(model, x, y) + 1e-3 * total / len(x)


def textbook_frobenius(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Cross entropy, and the penalty with a forward pass of its own, class by class."""
    at = x.clone().requires_grad_()
    z = model(at)
    rows = [torch.autograd.grad(z[:, c].sum(), at, create_graph=True)[0] for c in range(z.shape[1])]
    return lab.cross_entropy(model, x, y) + 1e-3 * sum(row.square().sum() for row in rows) / len(x)


def with_jacobian_reg(penalty, model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    at = x.clone().requires_grad_()
    z = model(at)
    return nn.functional.cross_entropy(z, y) + 1e-3 * penalty(at, z)


def caps(make) -> Ratios:
    ways = {
        "caps on all layers": lab.cap_network(make(), torch.zeros(1, 1, 28, 28), bound=1.0),
        "caps that do nothing": lab.cap_network(make(), torch.zeros(1, 1, 28, 28), bound=1e6),
        "torch's spectral norm, flattened": flattened(make()),
    }
    return compare(
        step_of(make(), lab.cross_entropy),
        {name: step_of(model, lab.cross_entropy) for name, model in ways.items()},
        turns=31,
    )


def flattened(model: nn.Module) -> nn.Module:
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.utils.parametrizations.spectral_norm(layer)
    return model


def jolted_weights(make) -> Ratios:
    """AMP's floor is two forward and backward passes in a step that is otherwise plain."""
    model = make()
    sgd = torch.optim.SGD(model.parameters(), lr=1e-6)
    x, y = images(1, 28, 28)
    ways = {
        "AMP": step_of(model, lab.cross_entropy, lab.AMP(sgd, epsilon=1e-3)),
        "AMP, ball of the whole model": step_of(model, lab.cross_entropy, lab.AMP(sgd, 1e-3, ball="model")),
        "AMP, 3 steps uphill": step_of(model, lab.cross_entropy, lab.AMP(sgd, 1e-3, inner_iter=3)),
        "SAM, textbook": lambda: textbook_sam(model, x, y, sgd),
        "floor: two passes": two_passes_and_a_step(model, x, y, sgd),
        "control: plain again": step_of(model, lab.cross_entropy, sgd),
    }
    if find_spec("pytorch_optimizer"):
        ways["pytorch_optimizer's SAM"] = peer_sam(copy.deepcopy(model), x, y)
    return compare(step_of(model, lab.cross_entropy), ways, turns=31)


def two_passes_and_a_step(model: nn.Module, x: torch.Tensor, y: torch.Tensor, sgd: torch.optim.Optimizer):
    def one_pass() -> torch.Tensor:
        sgd.zero_grad()
        loss = lab.cross_entropy(model, x, y)
        loss.backward()
        return loss

    return lambda: (one_pass(), sgd.step(one_pass))


def textbook_sam(model: nn.Module, x: torch.Tensor, y: torch.Tensor, sgd: torch.optim.Optimizer) -> None:
    """Weight by weight, as the first packages had it."""
    sgd.zero_grad()
    lab.cross_entropy(model, x, y).backward()
    size = torch.stack([weight.grad.norm() for weight in model.parameters()]).norm()
    kept = [weight.detach().clone() for weight in model.parameters()]
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(weight.grad * (1e-3 / size))
    sgd.zero_grad()
    lab.cross_entropy(model, x, y).backward()
    with torch.no_grad():
        for weight, before in zip(model.parameters(), kept, strict=True):
            weight.copy_(before)
    sgd.step()


def peer_sam(model: nn.Module, x: torch.Tensor, y: torch.Tensor):
    from pytorch_optimizer import SAM

    sam = SAM(model.parameters(), torch.optim.SGD, rho=1e-3, lr=1e-6)

    def one_step() -> None:
        for half in (sam.first_step, sam.second_step):
            lab.cross_entropy(model, x, y).backward()
            half(zero_grad=True)

    return one_step


def attacks(make) -> Ratios:
    model = make()
    ways = {
        "FGM": lab.AdversarialLoss(partial(lab.fgm, radius=0.5)),
        "PGM, 15 steps": lab.AdversarialLoss(partial(lab.pgm, radius=0.5)),
        "WRM, 15 steps": lab.AdversarialLoss(partial(lab.wrm, gamma=0.4)),
    }
    if find_spec("foolbox"):
        ways["foolbox's PGM, 15 steps"] = lab.AdversarialLoss(peer_pgm, on_labels=True)
    return in_steps(model, ways, turns=7)


def peer_pgm(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    import foolbox

    wrapped = foolbox.PyTorchModel(model.eval(), bounds=(-10, 10))
    attack = foolbox.attacks.L2ProjectedGradientDescentAttack(steps=15, random_start=False)
    attacked = attack.run(wrapped, x, y, epsilon=0.5)
    model.train()
    return attacked


def sections() -> dict[str, Ratios]:
    kinds = (expected_output, second_order, penalties, exact_penalty, caps, jolted_weights, attacks)
    return {
        f"{kind.__name__.replace('_', ' ')}, {name}": partial(kind, make)
        for kind in kinds
        for name, make in NETWORKS.items()
    }
