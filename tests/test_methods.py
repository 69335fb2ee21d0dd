"""Methods fill sockets: alone, together, with the numbers that were chosen, and each trains."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from gaussreg_lab import methods
from gaussreg_lab.datasets import Images, digits
from gaussreg_lab.losses import cross_entropy
from gaussreg_lab.methods import METHODS, Method, amp, fresh_noise, pgm_training, spectral_caps, together
from gaussreg_lab.models import mlp
from gaussreg_lab.perturbation import AMP
from gaussreg_lab.records import recorded
from gaussreg_lab.spectral import cap_network
from gaussreg_lab.training import fit


def test_methods_for_different_sockets_go_together():
    noise, jolt, caps = fresh_noise(0.3), amp(0.1), spectral_caps(2.0)
    both = together(noise, jolt, caps)
    assert (both.loss, both.optimizer, both.cap) == (noise.loss, jolt.optimizer, caps.cap)
    assert together(caps, noise, jolt) == Method(
        f"{caps.words}; {noise.words}; {jolt.words}", *(both.loss, both.optimizer, both.cap)
    )
    plain = METHODS["plain"]
    assert (together(plain, noise).loss, together(plain).cap) == (noise.loss, math.inf)


@pytest.mark.parametrize(
    ("pair", "socket"),
    [
        ((fresh_noise(0.3), pgm_training(0.5)), "loss"),
        ((amp(0.1), methods.weight_decay(0.1)), "optimizer"),
        ((spectral_caps(1.0), spectral_caps(1.0)), "cap"),
    ],
)
def test_two_methods_for_one_socket_are_refused(pair, socket):
    with pytest.raises(ValueError, match=f"different sockets, got two for '{socket}'"):
        together(*pair)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_two_steps(name):
    method, network = METHODS[name], mlp((64, 16, 10))
    if method.cap < math.inf:
        cap_network(network, digits().train.x[:1], method.cap)
    before = [weight.detach().clone() for weight in network.parameters()]
    train = digits().train
    data = [(train.x[:32], train.y[:32]), (train.x[32:64], train.y[32:64])]
    loss = method.loss(torch.Generator().manual_seed(0))
    history = fit(network, data, loss, method.optimizer(network.parameters(), 0.01), progress=False)
    assert all(math.isfinite(value) for value in history.losses)
    for old, new in zip(before, network.parameters(), strict=True):
        assert new.isfinite().all()
        assert not torch.equal(old, new)


@pytest.mark.parametrize("name", METHODS)
def test_a_methods_draws_come_from_its_generator_alone(name):
    images = Images(*(it[:16] for it in digits().train))
    network = mlp((64, 16, 10))

    def value(seed: int, drawn_before: int) -> float:
        torch.rand(drawn_before)  # what the global generator has given does not matter
        return METHODS[name].loss(torch.Generator().manual_seed(seed))(network, *images).item()

    assert value(0, 0) == value(0, 7)
    draws = any(word in name for word in ("noise", "second order", "Jacobian"))
    assert (value(0, 0) != value(1, 0)) == draws


def test_every_socket_left_alone_is_plain():
    weights = [nn.Parameter(torch.ones(2))]
    for method in METHODS.values():
        optimizer = method.optimizer(weights, 0.02)
        assert optimizer.param_groups[0]["lr"] == 0.02
        base = optimizer.optimizer if isinstance(optimizer, AMP) else optimizer
        assert isinstance(base, torch.optim.AdamW)
    for name in ("plain", "weight decay", "spectral caps", "AMP"):
        assert METHODS[name].loss(torch.Generator()) is cross_entropy
    assert [name for name, it in METHODS.items() if it.cap < math.inf] == [
        name for name in METHODS if "caps" in name
    ]


def test_the_numbers_are_those_that_did_best_on_held_out_digits():
    about = recorded("compare_digits")["about"]
    assert about["methods"] == {name: method.words for name, method in METHODS.items()}
    tried = about["validation"]
    for name, method in METHODS.items():
        assert tried[name][method.words] == max(tried[name].values())
        assert len(tried[name]) >= 4 or name == "plain"
    best_of_pairs = {name: max(scores.values()) for name, scores in tried.items() if " + " in name}
    ranked = sorted(best_of_pairs, key=best_of_pairs.get, reverse=True)
    assert ranked[:3] == [name for name in METHODS if " + " in name]


def test_the_scores_come_from_digits_that_were_not_tested_on():
    about = recorded("compare_digits")["about"]
    assert about["validation images"] == 400
    assert about["test images"] == len(digits().test.y)


def test_words_say_the_numbers():
    """Two methods with different numbers are never called the same: records tell them apart by words."""
    several = [
        partial(methods.second_order, trace_weight=2.0), partial(methods.expected_output, alpha=2.0),
        methods.weight_decay, methods.fresh_noise, methods.gradient_penalty, methods.jacobian_penalty,
        methods.spectral_penalty, methods.spectral_caps, methods.fgm_training, methods.pgm_training,
        methods.wrm_training, methods.amp,
    ]  # fmt: skip
    words = [make(value).words for make in several for value in (0.25, 0.5)]
    words += [methods.second_order(0.5, 4.0).words, methods.expected_output(0.5, 4.0).words]
    assert len(set(words)) == len(words)
