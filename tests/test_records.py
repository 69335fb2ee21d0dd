"""Recorded results: read as they are, summed up as statistics has it, complete, refused when damaged."""

import json
import math
from itertools import product

import pytest
import torch

from gaussreg_lab import places
from gaussreg_lab.records import SEED, averages, recorded, summaries

STUDIES = ["noise_digits", "noise_mnist"]


def run(accuracy: list[float], robustness: float, seconds: float) -> dict:
    return {"epochs": 3, "seconds": seconds, "accuracy": accuracy, "robustness": robustness}


def test_summaries_are_means_with_standard_errors():
    runs = {
        "a | seed 0": run([0.5, 0.2], 0.8, 1.0),
        "b, with | a bar | seed 0": run([0.1, 0.1], 0.5, 1.0),
        "a | seed 1": run([0.7, 0.2], 0.9, 3.0),
        "a | seed 2": run([0.9, 0.2], 1.0, 2.0),
    }
    got = summaries({"runs": runs})
    assert list(got) == ["a", "b, with | a bar"]
    torch.testing.assert_close(got["a"].accuracy, torch.tensor([0.7, 0.2]).double())
    torch.testing.assert_close(got["a"].accuracy_error, torch.tensor([0.2 / 3**0.5, 0.0]).double())
    assert got["a"].robustness == pytest.approx(0.9)
    assert got["a"].robustness_error == pytest.approx(0.1 / 3**0.5)
    assert (got["a"].seconds, got["a"].epochs, got["a"].seeds) == (2.0, 3, 3)
    assert got["b, with | a bar"].accuracy_error.isnan().all()  # one seed has no error


def test_averages_are_means_with_standard_errors():
    runs = {
        "a | seed 0": {"clean": 0.5, "steps": 1},
        "b, with | a bar | seed 0": {"clean": 0.1, "steps": 7},
        "a | seed 1": {"clean": 0.7, "steps": 2},
        "a | seed 2": {"clean": 0.9, "steps": 3},
    }
    got = averages({"runs": runs}, "clean")
    assert list(got) == ["a", "b, with | a bar"]
    assert got["a"] == pytest.approx((0.7, 0.2 / 3**0.5, 3))
    assert averages({"runs": runs}, "steps")["a"] == pytest.approx((2, 1 / 3**0.5, 3))  # of integers as well


def test_an_average_of_one_seed_has_no_error():
    only = averages({"runs": {"a | seed 0": {"clean": 0.5}}}, "clean")["a"]
    assert (only.mean, only.seeds) == (0.5, 1)
    assert math.isnan(only.standard_error)


def test_averages_agree_with_summaries():
    record = recorded("noise_digits")
    table = averages(record, "robustness")
    assert list(table) == list(summaries(record))
    for name, summary in summaries(record).items():
        wanted = (summary.robustness, summary.robustness_error, summary.seeds)
        assert table[name] == pytest.approx(wanted, abs=1e-6, nan_ok=True)


def test_an_average_of_a_missing_field_is_refused():
    runs = {"a | seed 0": {"clean": 0.5, "attacked": 0.1}, "a | seed 1": {"clean": 0.7}}
    assert averages({"runs": runs}, "clean")["a"].seeds == 2
    with pytest.raises(KeyError, match="attacked"):  # one of the runs has it, not all
        averages({"runs": runs}, "attacked")


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_is_complete_and_says_how_it_was_made(name):
    record = recorded(name)
    for word in (
        "data",
        "training images",
        "sigma",
        "noise levels",
        "epochs",
        "torch",
        "date",
        "trace weight",
    ):
        assert word in record["about"]
    table = summaries(record)
    for method in ("plain", "1 fresh fold", "5 fresh folds", "second order", "1 fresh fold, equal time"):
        assert table[method].seeds == 5
        assert len(table[method].accuracy) == len(record["about"]["noise levels"])
    chances = torch.cat([summary.accuracy for summary in table.values()])
    assert ((chances >= 0) & (chances <= 1)).all()


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_the_study_of_penalties_is_complete_and_chose_on_validation_images(name):
    record = recorded(f"gradients_{name}")
    accuracies, weights = averages(record, "accuracy"), averages(record, "weight")
    methods = ["plain", "weight decay", "dropout", "DataGrad", "SpectReg", "dropout and DataGrad"]
    methods += ["FrobReg, 1 projection", "JacReg, 1 projection"]
    for size, method in product(record["about"]["sizes"], methods):
        assert accuracies[f"{method}, {size} images"].seeds == 5
        tried = {
            weights[key].mean: it.mean
            for key, it in accuracies.items()
            if key.startswith(f"validation, {method}, weight") and key.endswith(f", {size} images")
        }
        if tried:
            assert weights[f"{method}, {size} images"].mean == pytest.approx(max(tried, key=tried.get))


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_the_study_of_attacks_is_complete_and_chose_on_validation_images(name):
    record = recorded(f"attacks_{name}")
    tested = averages(record, "test accuracy")
    for way in ("ERM", "FGM", "PGM", "WRM"):
        assert tested[way].seeds == tested[f"{way} with caps"].seeds == 5
        assert record["runs"][f"{way}{SEED}0"]["bound"] is None
        tried = {
            run["bound"]: run["test accuracy"]
            for key, run in record["runs"].items()
            if key.startswith(f"validation, {way}, cap")
        }
        assert record["runs"][f"{way} with caps{SEED}0"]["bound"] == max(tried, key=tried.get)


@pytest.mark.parametrize("name", STUDIES)
def test_the_second_order_loss_beats_one_and_five_folds_at_equal_steps(name):
    """The claim of lesson 03: beyond the standard error, and not at the cost of clean digits."""
    record = recorded(name)
    table, trained_for = summaries(record), record["about"]["noise levels"].index(record["about"]["sigma"])
    ours = table["second order"]
    for other in (table["1 fresh fold"], table["5 fresh folds"]):
        error = (ours.accuracy_error**2 + other.accuracy_error**2).sqrt()
        assert ours.accuracy[trained_for] - other.accuracy[trained_for] > error[trained_for]
        assert ours.accuracy[0] > other.accuracy[0] - error[0]
    assert ours.accuracy[0] > table["plain"].accuracy[0] - 0.005


def test_the_weight_was_chosen_on_validation_images():
    for name in STUDIES:
        record = recorded(name)
        at = record["about"]["noise levels"].index(record["about"]["sigma"])
        scores = {
            float(method.rsplit(" ", 1)[1]): summary.accuracy[at].item()
            for method, summary in summaries(record).items()
            if method.startswith("validation")
        }
        assert max(scores, key=scores.get) == record["about"]["trace weight"]


def test_an_unknown_record_is_refused_with_the_known_ones():
    with pytest.raises(FileNotFoundError, match=r"noise_digits.*got 'nonsense'"):
        recorded("nonsense")


def test_a_damaged_record_is_refused(tmp_path, monkeypatch):
    folder = tmp_path / "data" / "results"
    folder.mkdir(parents=True)
    (folder / "torn.json").write_text(json.dumps({"about": {}})[:-3])
    monkeypatch.setattr(places, "PACKAGE", tmp_path)
    with pytest.raises(ValueError, match=r"torn\.json, got a damaged file"):
        recorded("torn")
