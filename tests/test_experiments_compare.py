"""The study of lesson 07's table: the lesson's methods, its training, choices by validation images."""

from dataclasses import replace

import pytest
from rerun import expect_equal, from_record

from gaussreg_lab import methods as ways
from gaussreg_lab.comparison import Protocol, judged, trained
from gaussreg_lab.experiments import compare as module
from gaussreg_lab.experiments.bench import Bench, images_of
from gaussreg_lab.experiments.compare import FACTORIES, GRID, SIZES, _setting, run
from gaussreg_lab.models import lenet8
from gaussreg_lab.records import recorded

TINY = replace(SIZES["digits"], epochs=1, few=100, few_epochs=1, test_size=100)


def test_every_single_method_of_the_lesson_is_there():
    assert list(GRID) == list(FACTORIES) == [name for name in ways.METHODS if " + " not in name]
    for method, several in GRID.items():
        words = {FACTORIES[method](*numbers).words for numbers in several}
        assert len(words) == len(several)


def test_a_run_is_the_lesson_s_own_training():
    got = run(**_setting(TINY, "spectral caps", (2.0,)), seed=1)
    train, _, test = images_of("digits", None, 400, 100, None)
    protocol = Protocol(lenet8, batch=64, rate=0.003, sigmas=module.SIGMAS, shown=(0.5,), radii=(0.3, 0.6))
    network, _ = trained(ways.spectral_caps(2.0), train, protocol, seed=1, epochs=1)
    wanted = judged(network, train, test, protocol)
    for field in ("accuracy", "noise 0.5", "PGM 0.3", "PGM 0.6", "Lipschitz bound"):
        assert got[field] == pytest.approx(wanted[field], abs=1e-6), field
    assert 0 <= got["accuracy, few images"] <= 1


def test_numbers_are_chosen_by_validation_images(monkeypatch):
    peaks = {name: several[-1] for name, several in GRID.items()}
    calls = []

    def known(method, numbers, part, seed, **others):
        calls.append((part, method, tuple(numbers), seed))
        good = tuple(numbers) == peaks[method]
        return {"accuracy": 0.9 if good else 1.0, "noise 0.5": float(good), "PGM 0.6": 0.5}

    monkeypatch.setattr(module, "run", known)
    about = module.compare(Bench("digits", range(2), progress=False))
    assert [call[1:] for call in calls if call[0] == "test"] == [
        (method, numbers, seed) for seed in range(2) for method, numbers in peaks.items()
    ]
    assert about["methods"]["second order"] == FACTORIES["second order"](*peaks["second order"]).words
    assert sum(part == "validation" for part, *_ in calls) == sum(map(len, GRID.values())) - 1


def test_the_study_on_mnist_is_the_recorded_one(mnist_root):
    about, results = from_record(module.compare, "mnist", "compare", mnist_root)
    assert results == recorded("compare")["runs"]
    assert about["methods"] == recorded("compare")["about"]["methods"]


def test_a_run_on_mnist_gives_the_recorded_numbers(mnist_root):
    # equal to the last digit on the processor that made the record; another one rounds otherwise
    words = recorded("compare")["about"]["methods"]["fresh noise"]
    (numbers,) = (it for it in GRID["fresh noise"] if FACTORIES["fresh noise"](*it).words == words)
    setting = _setting(SIZES["mnist"], "fresh noise", numbers)
    expect_equal(run, setting, "compare", "fresh noise | seed 0", tolerance=0.05, root=mnist_root)
