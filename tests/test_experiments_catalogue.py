"""The catalogue: every study can be performed, by other processes too, and its records are there."""

import pickle
import sys
from functools import partial

import pytest

from gaussreg_lab.experiments.catalogue import STUDIES
from gaussreg_lab.records import recorded


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_says_what_it_asks_and_how_long_it_takes(name):
    study = STUDIES[name]
    assert study.make.__name__ == name
    assert study.question.endswith("?")
    assert study.seeds >= 3
    assert {"digits", "mnist", "full"} <= set(study.minutes)
    assert study.minutes["mnist"] <= 2 * 120  # two hours of two cores


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_has_its_sizes(name):
    module = sys.modules[STUDIES[name].make.__module__]
    assert set(module.SIZES) == set(STUDIES[name].minutes)


@pytest.mark.parametrize("name", STUDIES)
def test_its_runs_can_be_sent_to_other_processes(name):
    run = sys.modules[STUDIES[name].make.__module__].run
    assert pickle.loads(pickle.dumps(partial(run, root=None))).func is run


@pytest.mark.parametrize("name", STUDIES)
def test_its_records_are_there_and_its_own_tells_how_it_was_made(name):
    for earlier in STUDIES[name].records.values():
        assert recorded(earlier)["runs"]
    about = recorded(name)["about"]
    assert (about["study"], about["size"]) == (name, "mnist")
    for word in ("seeds", "gaussreg_lab", "torch", "python", "machine", "device", "date", "wall seconds"):
        assert about[word]
    assert about["data SHA-256"]


@pytest.mark.parametrize("name", STUDIES)
def test_imported_runs_are_those_of_the_earlier_record(name):
    mine, earlier = recorded(name), STUDIES[name].records.get("mnist")
    told = {source["record"]: source["runs"] for source in mine["about"]["imported"]}
    assert set(told) == ({earlier} if earlier else set())
    if earlier:
        theirs = recorded(earlier)["runs"]
        same = [key for key in theirs if mine["runs"].get(key) == theirs[key]]
        assert len(same) == len(theirs) == told[earlier]
