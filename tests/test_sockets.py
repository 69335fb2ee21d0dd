"""The three sockets fit together: every loss with every optimizer, on free and on capped layers."""

from functools import partial

import pytest
import torch
from torch import nn

import gaussreg_lab as lab


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


small_step = partial(lab.pgm, radius=0.3, steps=2)
LOSSES = {
    "cross entropy": lambda: lab.cross_entropy,
    "noisy": lambda: lab.NoisyLoss(0.3, samples=2, generator=seeded()),
    "expected output": lambda: lab.ExpectedOutputLoss(0.3),
    "analytical moments": lambda: lab.AnalyticalMomentLoss(0.3, 1.0),
    "second order": lambda: lab.SecondOrderLoss(0.3, generator=seeded()),
    "second order, exact trace": lambda: lab.SecondOrderLoss(0.3, projections=None),
    "DataGrad": lambda: lab.Penalized(lab.DataGrad(), 0.1),
    "SpectReg": lambda: lab.Penalized(lab.SpectReg(seeded()), 0.1),
    "FrobReg": lambda: lab.Penalized(lab.FrobReg(), 0.1),
    "FrobReg, 1 projection": lambda: lab.Penalized(lab.FrobReg(1, seeded()), 0.1),
    "JacReg": lambda: lab.Penalized(lab.JacReg(), 0.1),
    "DifferenceReg": lambda: lab.Penalized(lab.DifferenceReg(generator=seeded()), 0.1),
    "spectral penalty": lambda: lab.weighted_sum((1.0, lab.cross_entropy), (0.01, lab.SpectralPenalty())),
    "FGM": lambda: lab.AdversarialLoss(partial(lab.fgm, radius=0.3)),
    "PGM": lambda: lab.AdversarialLoss(small_step),
    "WRM": lambda: lab.AdversarialLoss(partial(lab.wrm, gamma=1.0, steps=2)),
    "a sum of three": lambda: lab.weighted_sum(
        (0.5, lab.SecondOrderLoss(0.3, generator=seeded())),
        (0.5, lab.AdversarialLoss(small_step)),
        (0.1, lab.DataGrad()),
    ),
}
OPTIMIZERS = {
    "SGD": lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.9),
    "Adam": lambda weights: torch.optim.Adam(weights, lr=0.01),
    "AMP": lambda weights: lab.AMP(torch.optim.SGD(weights, lr=0.1, momentum=0.9), epsilon=0.1),
}


def test_no_loss_of_the_public_face_is_forgotten():
    named = {name for name in lab.__all__ if name.endswith(("Loss", "Reg", "Grad", "Penalty"))} - {"Loss"}
    made = {type(make()).__name__ for make in LOSSES.values()}
    inside = {type(make().penalty).__name__ for make in LOSSES.values() if hasattr(make(), "penalty")}
    assert named <= made | inside | {"SpectralPenalty"}


@pytest.mark.parametrize("capped", [False, True], ids=["free", "capped"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("loss", LOSSES)
def test_two_steps_are_finite_and_move_every_weight(loss, optimizer, capped):
    model = lab.lenet8(channels=(3, 4), hidden=8)
    train = lab.digits().train
    images = lab.Images(train.x[:32], train.y[:32])
    if capped:
        lab.cap_network(model, images.x[:1], bound=1.0)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    history = lab.fit(
        model, lab.batches(images, size=16), LOSSES[loss](), OPTIMIZERS[optimizer](model.parameters()),
        progress=False,
    )  # fmt: skip
    assert len(history.losses) == 2
    assert torch.tensor(history.losses).isfinite().all()
    for name, weight in model.named_parameters():
        assert weight.isfinite().all(), name
        assert not torch.equal(weight, before[name]), name


def test_the_loop_replayed_by_hand_takes_the_same_two_steps():
    """A loss from socket 1, AMP in socket 2 and caps in socket 3, against a loop without `fit`."""
    train = lab.digits().train
    pairs = [(train.x[:16], train.y[:16]), (train.x[16:32], train.y[16:32])]
    by_fit, by_hand = (
        lab.cap_network(lab.mlp((64, 8, 10)), train.x[:1], bound=1.0).double() for _ in range(2)
    )
    pairs = [(x.double(), y) for x, y in pairs]
    loss = lab.Penalized(lab.DataGrad(), 0.1)
    optimizer = lab.AMP(torch.optim.SGD(by_fit.parameters(), lr=0.1), epsilon=0.1)
    lab.fit(by_fit, pairs, loss, optimizer, progress=False)

    by_hand.train()
    weights = list(by_hand.parameters())
    for x, y in pairs:
        first = torch.autograd.grad(loss(by_hand, x, y), weights)
        buffers = [buffer.clone() for buffer in by_hand.buffers()]
        jolts = [g * min(1.0, 0.1 / g.norm().item()) for g in first]
        with torch.no_grad():
            for weight, jolt in zip(weights, jolts, strict=True):
                weight += jolt
        second = torch.autograd.grad(loss(by_hand, x, y), weights)
        with torch.no_grad():
            for weight, jolt, gradient in zip(weights, jolts, second, strict=True):
                weight -= jolt + 0.1 * gradient
            for buffer, kept in zip(by_hand.buffers(), buffers, strict=True):
                buffer.copy_(kept)
    for one, other in zip(by_fit.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)
    assert isinstance(by_fit, nn.Sequential)
