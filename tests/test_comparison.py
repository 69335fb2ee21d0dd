"""The table of methods: trainings replayed by hand, the same numbers at every call, nothing half done."""

import json
import math
import statistics
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from gaussreg_lab import comparison
from gaussreg_lab.comparison import Protocol, compare, judged, noise_curves, trained, trained_networks
from gaussreg_lab.datasets import Images, batches, digits
from gaussreg_lab.methods import METHODS, Method, amp, fresh_noise, spectral_caps, together, weight_decay
from gaussreg_lab.models import mlp
from gaussreg_lab.records import averages, recorded

TINY = Protocol(
    network=partial(mlp, (64, 8, 10)), epochs=1, batch=32, few=40, few_epochs=2,
    sigmas=(0.0, 0.3, 0.5), shown=(0.5,), draws=2, radii=(0.3,),
)  # fmt: skip
TIMINGS = ("seconds per step", "cost")


def some(images: Images, count: int) -> Images:
    return Images(images.x[:count], images.y[:count])


@pytest.fixture(scope="module")
def data():
    train, test = digits()
    return some(train, 100), some(test, 60)


def without_timings(record: dict) -> dict:
    return {
        key: {name: it for name, it in run.items() if name not in TIMINGS}
        for key, run in record["runs"].items()
    }


def test_two_calls_give_the_same_numbers_bit_for_bit(data, tmp_path):
    methods = {name: METHODS[name] for name in METHODS if name not in ("FGM", "WRM")}
    first = compare(*data, (0, 1), methods, TINY, tmp_path / "first", progress=False)
    torch.rand(17)  # another state of the global generator
    second = compare(*data, (0, 1), methods, TINY, tmp_path / "second", progress=False)
    assert json.dumps(without_timings(first)) == json.dumps(without_timings(second))
    assert first["about"] == second["about"]
    for seed in (0, 1):
        networks = (
            trained_networks(*data, seed, methods, TINY, tmp_path / place) for place in ("first", "second")
        )
        for one, other in zip(*(it.values() for it in networks), strict=True):
            assert all(
                torch.equal(a, b)
                for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
            )
    runs = without_timings(first)
    assert runs["plain | seed 0"] != runs["plain | seed 1"]
    assert runs["plain | seed 0"] != runs["fresh noise | seed 0"]


def adam_by_hand(network, gradients_at, rates, decay=0.0):
    """Adam as published, with decoupled weight decay, written out; gradients_at(step) -> list."""
    weights = list(network.parameters())
    first, second = ([torch.zeros_like(it) for it in weights] for _ in range(2))
    for number, rate in enumerate(rates, start=1):
        gradients = gradients_at(number)
        for weight, gradient, m, v in zip(weights, gradients, first, second, strict=True):
            m.mul_(0.9).add_(0.1 * gradient)
            v.mul_(0.999).add_(0.001 * gradient**2)
            with torch.no_grad():
                weight.mul_(1 - rate * decay)
                corrected = m / (1 - 0.9**number), v / (1 - 0.999**number)
                weight.sub_(rate * corrected[0] / (corrected[1].sqrt() + 1e-8))


@pytest.mark.parametrize("name", ["plain", "weight decay", "fresh noise", "AMP", "fresh noise + AMP"])
def test_two_steps_agree_with_a_training_by_hand(data, name):
    """One batch, two epochs: two steps, the second one at half the rate of the cosine."""
    methods = {
        "plain": Method("plain"), "weight decay": weight_decay(3.0), "fresh noise": fresh_noise(0.4),
        "AMP": amp(0.05), "fresh noise + AMP": together(fresh_noise(0.4), amp(0.05)),
    }  # fmt: skip
    train = some(data[0], 32)
    network, _ = trained(methods[name], train, TINY, seed=3, epochs=2)

    by_hand = mlp((64, 8, 10), seed=3)
    draws = torch.Generator().manual_seed(3)
    in_order = batches(train, 32, seed=3)  # shuffled anew at each pass
    weights = list(by_hand.parameters())

    def gradients(x, y):
        noisy = x + 0.4 * torch.randn(x.shape, generator=draws) if "noise" in name else x
        return torch.autograd.grad(nn.functional.cross_entropy(by_hand(noisy), y), weights)

    def at_step(_):
        ((x, y),) = in_order
        found = gradients(x, y)
        if "AMP" not in name:
            return found
        jolts = [it * min(1.0, 0.05 / it.norm().item()) for it in found]
        with torch.no_grad():
            before = [weight.clone() for weight in weights]
            for weight, jolt in zip(weights, jolts, strict=True):
                weight.add_(jolt)
        found = gradients(x, y)
        with torch.no_grad():
            for weight, old in zip(weights, before, strict=True):
                weight.copy_(old)
        return found

    half = (1 + math.cos(math.pi / 2)) / 2
    adam_by_hand(by_hand, at_step, (TINY.rate, half * TINY.rate), decay=3.0 if "decay" in name else 0.0)
    for got, wanted in zip(network.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=2e-6)


def test_caps_are_applied_and_hold(data, tmp_path):
    methods = {"plain": METHODS["plain"], "caps": spectral_caps(0.5)}
    record = compare(*data, (0,), methods, replace(TINY, epochs=4), tmp_path, progress=False)
    networks = trained_networks(*data, 0, methods, replace(TINY, epochs=4), tmp_path)
    norms = {
        name: [torch.linalg.matrix_norm(layer.weight.detach(), ord=2).item() for layer in (it[2], it[4])]
        for name, it in networks.items()
    }
    assert max(norms["caps"]) < 0.505
    assert min(norms["plain"]) > 0.6
    for name, several in norms.items():  # Normalize divides by 0.5
        bound = record["runs"][f"{name} | seed 0"]["Lipschitz bound"]
        assert bound == pytest.approx(2 * math.prod(several), rel=1e-4)


def test_the_fields_of_a_run_by_another_route(data):
    train, test = data
    network = mlp((64, 8, 10), seed=5)
    run = judged(network, train, test, TINY)

    def share(x, y):
        with torch.no_grad():
            return (network(x).argmax(dim=1) == y).double().mean().item()

    assert run["accuracy"] == share(*test)
    assert run["training accuracy"] == share(*train)
    assert run["gap"] == share(*train) - share(*test)
    draws = torch.Generator().manual_seed(0)
    noises = [torch.randn(test.x.shape, generator=draws) for _ in range(2)]  # the same at every level
    for sigma, read in zip(TINY.sigmas, run["under noise"], strict=True):
        expected = statistics.mean(share(test.x + sigma * noise, test.y) for noise in noises)
        assert read == pytest.approx(expected, abs=1e-6)
    assert run["noise 0.5"] == run["under noise"][2]
    jolt = torch.zeros_like(test.x)
    for _ in range(15):  # PGM with known labels, written out
        x = (test.x + jolt).requires_grad_()
        (uphill,) = torch.autograd.grad(nn.functional.cross_entropy(network(x), test.y, reduction="sum"), x)
        jolt = jolt + 2 * 0.3 / 15 * uphill / uphill.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        jolt = jolt.renorm(2, 0, 0.3)
    assert run["PGM 0.3"] == pytest.approx(share(test.x + jolt, test.y), abs=1.5 / len(test.y))


def test_a_network_without_a_known_bound_has_none(data):
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Hardtanh())
    assert math.isnan(judged(network, *data, TINY)["Lipschitz bound"])


def test_the_few_images_are_those_of_the_seed(data, tmp_path):
    train, test = data
    record = compare(train, test, (4,), {"plain": METHODS["plain"]}, TINY, tmp_path, progress=False)
    picked = torch.randperm(100, generator=torch.Generator().manual_seed(4))[:40]
    few, _ = trained(METHODS["plain"], Images(train.x[picked], train.y[picked]), TINY, 4, epochs=2)
    with torch.no_grad():
        read = (few(test.x).argmax(dim=1) == test.y).double().mean().item()
    assert record["runs"]["plain | seed 4"]["accuracy, few images"] == read


def test_names_do_not_matter_and_sockets_do(data, tmp_path):
    """Common random numbers: one method under two names is judged alike, to the last bit."""
    twice = {"one": METHODS["plain"], "other": Method("called otherwise")}
    runs = without_timings(compare(*data, (0,), twice, TINY, tmp_path, progress=False))
    assert runs["one | seed 0"] == runs["other | seed 0"]


def test_averages_and_curves_have_the_standard_errors_of_a_hand_computation(data, tmp_path):
    record = compare(*data, (0, 1, 2), {"plain": METHODS["plain"]}, TINY, tmp_path, progress=False)
    runs = [record["runs"][f"plain | seed {seed}"] for seed in range(3)]
    for field in ("accuracy", "noise 0.5", "PGM 0.3", "gap", "accuracy, few images"):
        values = [run[field] for run in runs]
        average = averages(record, field)["plain"]
        assert average.mean == pytest.approx(statistics.mean(values))
        assert average.standard_error == pytest.approx(statistics.stdev(values) / math.sqrt(3))
    curve = noise_curves(record)["plain"]
    at_last = [run["under noise"][2] for run in runs]
    assert curve.sigmas.tolist() == pytest.approx([0.0, 0.3, 0.5])
    assert curve.mean[2].item() == pytest.approx(statistics.mean(at_last))
    assert curve.standard_error[2].item() == pytest.approx(statistics.stdev(at_last) / math.sqrt(3))
    one = {"about": record["about"], "runs": {"plain | seed 0": runs[0]}}
    assert noise_curves(one)["plain"].standard_error.isnan().all()


def test_the_record_says_what_was_done(data, tmp_path):
    record = compare(*data, (0,), {"plain": METHODS["plain"]}, TINY, tmp_path, progress=False)
    about = record["about"]
    assert (about["training images"], about["test images"]) == (100, 60)
    assert (about["steps"], about["few steps"]) == (4, 4)  # 4 batches of 32, 32, 32, 4; and 2 of 32, 8, twice
    assert about["methods"] == {"plain": "cross entropy and nothing else"}
    json.loads(json.dumps(record))
    run = record["runs"]["plain | seed 0"]
    assert all(run[name] > 0 for name in TIMINGS)


def test_cost_is_seconds_per_step_over_those_of_plain_training(data, monkeypatch):
    seconds = iter([9.0, 2.0, 5.0, 7.0])  # warm-up, plain, the run, the run on few
    network = mlp((64, 8, 10))
    monkeypatch.setattr(comparison, "trained", lambda *_, **__: (network, next(seconds)))
    run = comparison.train_and_judge(METHODS["AMP"], *data, TINY, seed=0)["run"]
    assert (run["seconds per step"], run["cost"]) == (5.0, 2.5)


def test_runs_that_are_kept_are_not_made_again(data, tmp_path, monkeypatch):
    methods = {"plain": METHODS["plain"], "caps": spectral_caps(0.5)}
    first = compare(*data, (0,), methods, TINY, tmp_path, progress=False)
    assert len(list(tmp_path.iterdir())) == 2

    def refuse(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr(comparison, "trained", refuse)
    assert compare(*data, (0,), methods, TINY, tmp_path, progress=False) == first  # timings included
    networks = trained_networks(*data, 0, methods, TINY, tmp_path)
    monkeypatch.undo()
    for name, network in networks.items():
        assert not network.training
        again = judged(network, *data, TINY)
        run = first["runs"][f"{name} | seed 0"]
        assert {it: run[it] for it in ("accuracy", "under noise", "PGM 0.3")} == {
            it: again[it] for it in ("accuracy", "under noise", "PGM 0.3")
        }


@pytest.mark.parametrize(
    "changed",
    [{"epochs": 2}, {"rate": 0.02}, {"network": partial(mlp, (64, 9, 10))}, {"draws": 3}],
    ids=lambda changed: next(iter(changed)),
)
def test_another_protocol_is_another_run(data, tmp_path, changed):
    plain = {"plain": METHODS["plain"]}
    compare(*data, (0,), plain, TINY, tmp_path, progress=False)
    compare(*data, (0,), plain, replace(TINY, **changed), tmp_path, progress=False)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_training_stopped_by_hand_is_not_kept(data, tmp_path, monkeypatch):
    def stopped(model, x, y):
        raise KeyboardInterrupt

    monkeypatch.setattr(comparison, "cached", lambda make, folder: make())
    with pytest.raises(KeyboardInterrupt):
        compare(*data, (0,), {"it": Method("stopped", loss=lambda draws: stopped)}, TINY, progress=False)
    monkeypatch.undo()
    calls = iter(range(1000))
    plain_step = comparison.fit.__globals__["step"]

    def stops_at_the_third(*given):
        if next(calls) == 2:
            raise KeyboardInterrupt
        return plain_step(*given)

    monkeypatch.setitem(comparison.fit.__globals__, "step", stops_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        compare(*data, (0,), {"plain": METHODS["plain"]}, TINY, tmp_path, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_method_of_ones_own_is_compared_and_trained_anew_each_time(data, tmp_path):
    calls = []

    def own(draws):
        calls.append(draws)
        return lambda model, x, y: nn.functional.cross_entropy(model(x), y)

    mine = {"mine": Method("my own", loss=own), "plain": METHODS["plain"]}
    runs = [without_timings(compare(*data, (0,), mine, TINY, tmp_path, progress=False)) for _ in range(2)]
    assert runs[0] == runs[1]
    assert runs[0]["mine | seed 0"] == runs[0]["plain | seed 0"]
    assert len(calls) == 4  # twice all images, twice the few
    assert len(list(tmp_path.iterdir())) == 1


def test_a_bar_goes_on_by_one_for_each_run(data, tmp_path, capsys):
    compare(*data, (0, 1), {"plain": METHODS["plain"]}, TINY, tmp_path)
    assert "2/2" in capsys.readouterr().err


def test_bad_input_is_told_what_was_expected(data, tmp_path):
    with pytest.raises(ValueError, match="at least one seed and one method"):
        compare(*data, (), METHODS, TINY, tmp_path)
    with pytest.raises(ValueError, match="at least one seed and one method"):
        compare(*data, (0,), {}, TINY, tmp_path)
    with pytest.raises(ValueError, match="at least 40 training images, got 30"):
        compare(some(data[0], 30), data[1], (0,), METHODS, TINY, tmp_path)
    with pytest.raises(ValueError, match="shown to be some of sigmas"):
        replace(TINY, shown=(0.4,))


def test_one_run_of_the_record_is_made_again(tmp_path):
    """The numbers of another machine may differ by a few digits read."""
    kept = recorded("compare_digits")
    again = compare(*digits(), (0,), {"PGM": METHODS["PGM"]}, folder=tmp_path, progress=False)
    old, new = (it["runs"]["PGM | seed 0"] for it in (kept, again))
    assert set(old) == set(new)
    for field in ("accuracy", "noise 0.5", "PGM 0.3", "PGM 0.6", "accuracy, few images"):
        assert new[field] == pytest.approx(old[field], abs=0.04)
    settings = ("epochs", "batch", "rate", "few", "few_epochs", "steps", "draws")
    assert {it: kept["about"][it] for it in settings} == {it: again["about"][it] for it in settings}
