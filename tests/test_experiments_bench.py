"""What the studies share: runs by name and seed, made once; data; training as a loop by hand would do it."""

import numpy as np
import pytest
import torch
from torch import nn

from gaussreg_lab.datasets import Images, Split, digits
from gaussreg_lab.experiments.bench import Bench, best, data_of, digest, shuffled, train_with
from gaussreg_lab.losses import cross_entropy
from gaussreg_lab.models import mlp
from gaussreg_lab.store import stored_runs

CALLS = []


def double(number: float, seed: int, root: str | None, device: str) -> dict:
    CALLS.append((number, seed))
    if number < 0:
        raise ValueError("no negative ones")
    return {"number": number, "twice": 2 * number + seed}


@pytest.fixture(autouse=True)
def _forget_calls():
    CALLS.clear()


def bench(**arguments) -> Bench:
    return Bench("digits", range(2), progress=False, **arguments)


def test_runs_are_made_by_name_and_seed():
    it = bench()
    made = it.make(double, {"one": {"number": 1}, "five": {"number": 5}}, seeds=[0, 3])
    assert made == {
        "one | seed 0": {"number": 1, "twice": 2},
        "five | seed 0": {"number": 5, "twice": 10},
        "one | seed 3": {"number": 1, "twice": 5},
        "five | seed 3": {"number": 5, "twice": 13},
    }
    it.make(double, {"two": {"number": 2}}, seeds=[0])
    assert list(it.results) == [*made, "two | seed 0"]
    assert not it.imported


def test_earlier_runs_are_not_made_again_unless_they_are_others():
    earlier = {"one | seed 0": {"number": 1, "twice": 99}, "five | seed 0": {"number": 4, "twice": 99}}
    it = bench(earlier=earlier)
    made = it.make(double, {"one": {"number": 1}, "five": {"number": 5}}, seeds=[0])
    assert made["one | seed 0"]["twice"] == 99
    assert made["five | seed 0"]["twice"] == 10
    assert CALLS == [(5, 0)]
    assert it.imported == {"one | seed 0"}


def test_several_calls_share_a_store_which_the_next_bench_reads(tmp_path):
    for _ in range(2):
        it = bench(store=tmp_path / "runs.jsonl")
        it.make(double, {"one": {"number": 1}}, seeds=[0])
        it.make(double, {"two": {"number": 2}}, seeds=[0])
        assert it.results["two | seed 0"]["twice"] == 4
    assert CALLS == [(1, 0), (2, 0)]
    assert it.seconds == pytest.approx(sum(one.seconds for one in stored_runs(tmp_path / "runs.jsonl")))


def test_a_failed_run_is_told_when_the_others_are_stored(tmp_path):
    named = {"bad": {"number": -1}, "good": {"number": 1}}
    with pytest.raises(RuntimeError, match=r"1 of 2 failed, 'bad \| seed 0' with ValueError: no negative"):
        bench(store=tmp_path / "runs.jsonl").make(double, named, seeds=[0])
    assert [one.error is None for one in stored_runs(tmp_path / "runs.jsonl")] == [False, True]


def test_the_best_has_the_highest_mean_over_its_seeds():
    tried = {"a | seed 0": {"it": 0.9}, "b | seed 0": {"it": 0.7}, "a | seed 1": {"it": 0.1}}
    tried["b | seed 1"] = {"it": 0.6}
    assert best(tried, lambda result: result["it"]) == "b"


def test_cifar10_is_read_from_its_subset(tmp_path):
    draw = np.random.default_rng(0)
    arrays = {f"x_{part}": draw.integers(0, 256, (20, 32, 32, 3), np.uint8) for part in ("train", "test")}
    arrays |= {f"y_{part}": np.arange(20) % 10 for part in ("train", "test")}
    np.savez(tmp_path / "cifar10-12k.npz", **arrays)
    (x, y), _ = data_of("cifar10", str(tmp_path))
    assert (x.shape, y.dtype) == ((20, 3, 32, 32), torch.int64)
    assert x[7, 2, 30, 5].item() * 255 == pytest.approx(arrays["x_train"][7, 30, 5, 2])


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_missing_data_is_told_with_its_folder(name, tmp_path):
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        data_of(name, str(tmp_path))


def test_unknown_data_is_refused():
    with pytest.raises(ValueError, match="whole cifar10, got 'svhn'"):
        data_of("svhn")


def test_the_digest_sees_one_label_and_one_pixel():
    train, test = digits()
    assert digest(digits()) == digest(Split(train, test))
    y, x = train.y.clone(), test.x.clone()
    y[3] += 1
    x[5, 0, 2, 2] += 1 / 16
    others = [Split(Images(train.x, y), test), Split(train, Images(x, test.y)), Split(test, train)]
    assert len({digest(other) for other in [*others, digits()]}) == 4


def test_shuffling_keeps_pairs_together_and_is_always_the_same():
    numbered = Images(torch.arange(10.0)[:, None], torch.arange(10))
    x, y = shuffled(numbered)
    assert (x.flatten() == y).all()
    assert sorted(y.tolist()) == list(range(10))
    assert torch.equal(shuffled(numbered).y, y)


def test_training_is_that_of_a_loop_by_hand():
    train = Images(*(it[:60] for it in digits().train))
    ours, by_hand = mlp((64, 10), seed=1), mlp((64, 10), seed=1)
    train_with(torch.optim.SGD(ours.parameters(), lr=0.5), ours, train, cross_entropy, 3, epochs=4, batch=60)
    for epoch in range(4):  # one batch is all images, so their order does not matter
        rate = 0.5 * (1 + np.cos(np.pi * epoch / 4)) / 2
        weights = list(by_hand.parameters())
        gradients = torch.autograd.grad(nn.functional.cross_entropy(by_hand(train.x), train.y), weights)
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients, strict=True):
                weight -= rate * gradient
    for mine, theirs in zip(ours.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)
