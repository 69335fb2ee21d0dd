"""Every way of training of the course as a plain record: what it plugs into the three sockets.

    loss         (model, x, y) -> scalar              noise, moments, penalties, adversaries
    optimizer    step(closure)                        weight decay, AMP
    cap          on the operator norm of each layer   spectral caps

A method fills one socket and leaves the others plain, so two methods that fill different sockets go
together without knowing of each other. The numbers in METHODS were chosen, each among a few, on digits cut
from the training set and never on test digits: data/make_comparison_study.py says how, and its record
data/results/compare_digits.json keeps every score.

Source: the papers of lessons 03 to 06; decoupled weight decay: Loshchilov, Hutter, ICLR 2019.
Lesson: notebooks/07_robustness.ipynb
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from gaussreg_lab.attacks import AdversarialLoss, fgm, pgm, wrm
from gaussreg_lab.gradients import DataGrad, FrobReg, Penalized
from gaussreg_lab.losses import Loss, NoisyLoss, cross_entropy, weighted_sum
from gaussreg_lab.moment_losses import AnalyticalMomentLoss, SecondOrderLoss
from gaussreg_lab.perturbation import AMP
from gaussreg_lab.spectral import SpectralPenalty

ATTACK_STEPS = 5  # uphill in each step of training; networks are judged with more


def plain_loss(draws: torch.Generator) -> Loss:
    """The loss socket left plain.

    >>> plain_loss(torch.Generator()) is cross_entropy
    True
    """
    return cross_entropy


def plain_optimizer(weights: Iterable[nn.Parameter], rate: float) -> torch.optim.Optimizer:
    """The optimizer socket left plain: Adam.

    >>> plain_optimizer(nn.Linear(1, 1).parameters(), rate=0.1).defaults["weight_decay"]
    0.0
    """
    return torch.optim.AdamW(weights, lr=rate, weight_decay=0.0)


@dataclass(frozen=True)
class Method:
    """One way of training: what goes into the three sockets.

    words: what it does, with its numbers. loss: given the generator of all random draws of a run, the loss.
    optimizer: given weights and learning rate, the optimizer. cap: on each layer's operator norm, or inf.

    >>> Method("cross entropy and nothing else").cap
    inf
    """

    words: str
    loss: Callable[[torch.Generator], Loss] = plain_loss
    optimizer: Callable[[Iterable[nn.Parameter], float], torch.optim.Optimizer] = plain_optimizer
    cap: float = math.inf


def together(*methods: Method) -> Method:
    """All of them at once. Raises ValueError when two want the same socket: which should have it?

    >>> together(fresh_noise(0.3), amp(0.1)).words
    'fresh noise 0.3 in every step; AMP, epsilon 0.1'
    """
    sockets: dict[str, object] = {}
    for method in methods:
        for socket, value in _filled(method).items():
            if socket in sockets:
                raise ValueError(f"Expected methods that fill different sockets, got two for {socket!r}")
            sockets[socket] = value
    return Method("; ".join(method.words for method in methods), **sockets)


def _filled(method: Method) -> dict[str, object]:
    plain = {"loss": plain_loss, "optimizer": plain_optimizer, "cap": math.inf}
    return {name: getattr(method, name) for name, it in plain.items() if getattr(method, name) != it}


def weight_decay(decay: float) -> Method:
    """Each step shrinks all weights by the share rate * decay.

    >>> weight_decay(0.5).optimizer([nn.Parameter(torch.ones(1))], rate=0.1).defaults["weight_decay"]
    0.5
    """
    return Method(f"weight decay {decay:g}", optimizer=partial(_decaying, decay=decay))


def fresh_noise(sigma: float) -> Method:
    """The mean loss under noise, by one draw for each image and step. sigma: std in pixel units.

    >>> fresh_noise(0.3).loss(torch.Generator()).sigma
    0.3
    """
    return Method(f"fresh noise {sigma:g} in every step", loss=partial(_noisy, sigma=sigma))


def expected_output(sigma: float, alpha: float) -> Method:
    """Cross entropy plus alpha times that of the expected output: Alfadly et al.

    >>> expected_output(0.5, alpha=2.0).loss(torch.Generator()).alpha
    2.0
    """
    words = f"plus {alpha:g} x the loss of the expected output, sigma {sigma:g}"
    return Method(words, loss=partial(_expected, sigma=sigma, alpha=alpha))


def second_order(sigma: float, trace_weight: float) -> Method:
    """Cross entropy plus the mean loss under noise to second order, as in lesson 03.

    >>> second_order(0.5, trace_weight=4.0).words
    'plus the second-order loss, sigma 0.5, trace x 4'
    """
    words = f"plus the second-order loss, sigma {sigma:g}, trace x {trace_weight:g}"
    return Method(words, loss=partial(_second, sigma=sigma, trace_weight=trace_weight))


def gradient_penalty(weight: float) -> Method:
    """Double backpropagation: the squared gradient of the loss by the pixels.

    >>> gradient_penalty(0.3).loss(torch.Generator())
    Penalized(penalty=DataGrad(), weight=0.3)
    """
    return Method(f"plus {weight:g} |dl/dx|^2", loss=partial(_input_gradient, weight=weight))


def jacobian_penalty(weight: float) -> Method:
    """The squared Jacobian of the logits, by one random projection for each image.

    >>> jacobian_penalty(0.01).loss(torch.Generator()).penalty.projections
    1
    """
    return Method(f"plus {weight:g} |J|_F^2, 1 projection", loss=partial(_jacobian, weight=weight))


def spectral_penalty(weight: float) -> Method:
    """The squared operator norms of all layers.

    >>> spectral_penalty(0.01).words
    'plus 0.01 x half the sum of squared layer norms'
    """
    return Method(
        f"plus {weight:g} x half the sum of squared layer norms", loss=partial(_norms, weight=weight)
    )


def spectral_caps(bound: float) -> Method:
    """No layer stretches an input by more than `bound`.

    >>> spectral_caps(2.0).cap
    2.0
    """
    return Method(f"each layer's norm at most {bound:g}", cap=bound)


def fgm_training(radius: float) -> Method:
    """Training on images attacked in one step. radius: Euclidean, in pixel units.

    >>> fgm_training(0.4).loss(torch.Generator()).attack.keywords
    {'radius': 0.4}
    """
    attack = partial(fgm, radius=radius)
    return Method(f"attacked by FGM, radius {radius:g}", loss=partial(_attacked, attack=attack))


def pgm_training(radius: float) -> Method:
    """Training on images attacked in ATTACK_STEPS steps. radius: Euclidean, in pixel units.

    >>> pgm_training(0.4).loss(torch.Generator()).attack.keywords
    {'radius': 0.4, 'steps': 5}
    """
    attack = partial(pgm, radius=radius, steps=ATTACK_STEPS)
    words = f"attacked by PGM, radius {radius:g}, {ATTACK_STEPS} steps"
    return Method(words, loss=partial(_attacked, attack=attack))


def wrm_training(gamma: float) -> Method:
    """Training on images attacked at a price gamma per squared length.

    >>> wrm_training(2.0).loss(torch.Generator()).attack.keywords
    {'gamma': 2.0, 'steps': 5}
    """
    attack = partial(wrm, gamma=gamma, steps=ATTACK_STEPS)
    words = f"attacked by WRM, gamma {gamma:g}, {ATTACK_STEPS} steps"
    return Method(words, loss=partial(_attacked, attack=attack))


def amp(epsilon: float) -> Method:
    """The gradient at weights jolted uphill, each tensor in a ball of radius epsilon.

    >>> amp(0.1).optimizer([nn.Parameter(torch.ones(1))], rate=0.1).defaults["epsilon"]
    0.1
    """
    return Method(f"AMP, epsilon {epsilon:g}", optimizer=partial(_jolted, epsilon=epsilon))


# module-level functions with plain numbers: they can be told apart by name, number and source, see `cache`
def _decaying(weights: Iterable[nn.Parameter], rate: float, decay: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(weights, lr=rate, weight_decay=decay)


def _jolted(weights: Iterable[nn.Parameter], rate: float, epsilon: float) -> torch.optim.Optimizer:
    return AMP(plain_optimizer(weights, rate), epsilon)


def _noisy(draws: torch.Generator, sigma: float) -> Loss:
    return NoisyLoss(sigma, generator=draws)


def _expected(draws: torch.Generator, sigma: float, alpha: float) -> Loss:
    return AnalyticalMomentLoss(sigma, alpha)


def _second(draws: torch.Generator, sigma: float, trace_weight: float) -> Loss:
    closed = SecondOrderLoss(sigma, trace_weight=trace_weight, generator=draws)
    return weighted_sum((1.0, cross_entropy), (1.0, closed))


def _input_gradient(draws: torch.Generator, weight: float) -> Loss:
    return Penalized(DataGrad(), weight)


def _jacobian(draws: torch.Generator, weight: float) -> Loss:
    return Penalized(FrobReg(1, draws), weight)


def _norms(draws: torch.Generator, weight: float) -> Loss:
    return weighted_sum((1.0, cross_entropy), (weight, SpectralPenalty()))


def _attacked(draws: torch.Generator, attack: Callable) -> Loss:
    return AdversarialLoss(attack)


METHODS = {
    "plain": Method("cross entropy and nothing else"),
    "weight decay": weight_decay(0.3),
    "fresh noise": fresh_noise(0.3),
    "expected output": expected_output(0.25, alpha=1.0),
    "second order": second_order(0.3, trace_weight=4.0),
    "gradient penalty": gradient_penalty(0.3),
    "Jacobian penalty": jacobian_penalty(0.003),
    "spectral penalty": spectral_penalty(0.3),
    "spectral caps": spectral_caps(1.4),
    "FGM": fgm_training(0.6),
    "PGM": pgm_training(0.6),
    "WRM": wrm_training(2.0),
    "AMP": amp(0.1),
}
METHODS |= {  # the best three of ten pairs; none of them scored above the best single method
    "second order + AMP": together(METHODS["second order"], amp(0.05)),
    "second order + spectral caps": together(METHODS["second order"], spectral_caps(2.0)),
    "WRM + spectral caps": together(METHODS["WRM"], spectral_caps(2.0)),
}
