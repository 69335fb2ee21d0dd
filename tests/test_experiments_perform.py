"""A study from its name to its record: whole, resumed, extended, refused."""

import functools
import json
from dataclasses import replace

import pytest

from gaussreg_lab.experiments import flat as module
from gaussreg_lab.experiments.bench import data_of, digest
from gaussreg_lab.experiments.catalogue import STUDIES
from gaussreg_lab.experiments.perform import perform, record_name
from gaussreg_lab.store import stored_runs

FLAT = STUDIES["flat"]
TINY = replace(
    module.DIGITS,
    images=50,
    epochs=2,
    choosing_seeds=1,
    weights={"weight decay": (0.0, 0.01), "AMP": (0.1, 0.2)},
)


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    monkeypatch.setitem(module.SIZES, "digits", [TINY])


def made(folder, seeds=2, **arguments) -> dict:
    file = perform("flat", FLAT, "digits", seeds, folder=folder, progress=False, **arguments)
    assert file == folder / "flat_digits.json"
    assert [each.name for each in folder.iterdir()] == [file.name]  # no store is left
    return json.loads(file.read_text())


def without_seconds(runs: dict) -> dict:
    return {key: {name: it for name, it in run.items() if name != "seconds"} for key, run in runs.items()}


def interrupted_after(count: int, run):
    left = iter(range(count))

    @functools.wraps(run)
    def once(**setting):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return run(**setting)

    return once


def test_a_study_from_end_to_end(tmp_path):
    record = made(tmp_path)
    assert len(record["runs"]) == 4 + 4 * 2
    about = record["about"]
    assert (about["study"], about["size"], about["seeds"], about["imported"]) == ("flat", "digits", 2, [])
    assert about["data SHA-256"] == {"digits": digest(data_of("digits"))}
    assert about["wall seconds"] > 0
    for word in ("gaussreg_lab", "torch", "python", "machine", "device", "date", "question", "chosen"):
        assert about[word], word


def test_a_study_that_was_stopped_goes_on_where_it_was(tmp_path, monkeypatch):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    whole.mkdir()
    stopped.mkdir()
    wanted = made(whole)["runs"]
    with monkeypatch.context() as patch:
        patch.setattr(module, "run", interrupted_after(7, module.run))
        with pytest.raises(KeyboardInterrupt):
            perform("flat", FLAT, "digits", 2, folder=stopped, progress=False)
    assert [each.name for each in stopped.iterdir()] == ["flat_digits.runs.jsonl"]
    assert len(stored_runs(stopped / "flat_digits.runs.jsonl")) == 7
    with monkeypatch.context() as patch:
        patch.setattr(module, "run", interrupted_after(len(wanted) - 7, module.run))  # and not one more
        got = made(stopped)["runs"]
    assert list(got) == list(wanted)
    assert without_seconds(got) == without_seconds(wanted)


def test_more_seeds_cost_only_the_new_ones(tmp_path, monkeypatch):
    first = made(tmp_path)
    monkeypatch.setattr(module, "run", interrupted_after(4, module.run))  # four methods, one more seed
    second = made(tmp_path, seeds=3)
    assert {key: second["runs"][key] for key in first["runs"]} == first["runs"]
    assert second["about"]["imported"][0]["runs"] == len(first["runs"])
    assert len(second["runs"]) == len(first["runs"]) + 4


def test_what_was_imported_still_tells_its_origin_after_more_seeds(tmp_path, monkeypatch):
    first = made(tmp_path)
    (tmp_path / "flat_digits.json").unlink()
    monkeypatch.setattr("gaussreg_lab.experiments.perform.recorded", {"elsewhere": first}.get)
    from_elsewhere = replace(FLAT, records={"digits": "elsewhere"})
    for seeds, new in ((3, 4), (4, 8)):
        file = perform("flat", from_elsewhere, "digits", seeds, folder=tmp_path, progress=False)
        record = json.loads(file.read_text())
        assert len(record["runs"]) == len(first["runs"]) + new
        told = {source["record"]: source["runs"] for source in record["about"]["imported"]}
        assert told == {"elsewhere": len(first["runs"])} | ({"flat_digits": 4} if seeds == 4 else {})


def test_a_study_that_is_recorded_already_leaves_its_record_alone(tmp_path):
    made(tmp_path)
    before = (tmp_path / "flat_digits.json").read_bytes()
    made(tmp_path)
    assert (tmp_path / "flat_digits.json").read_bytes() == before


def test_afresh_makes_all_runs(tmp_path, monkeypatch):
    first = made(tmp_path)
    monkeypatch.setattr(module, "run", functools.wraps(module.run)(lambda **setting: {"accuracy": 0.5}))
    assert without_seconds(made(tmp_path, afresh=True)["runs"]) != without_seconds(first["runs"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": "huge"}, r"size of flat to be one of \['digits', 'full', 'mnist'\], got 'huge'"),
        ({"seeds": 0}, "seeds >= 1, got 0"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        perform("flat", FLAT, folder=tmp_path, **arguments)


def test_missing_folders_are_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="folder for the results"):
        perform("flat", FLAT, folder=tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"Expected MNIST in .*nowhere"):
        perform("flat", FLAT, folder=tmp_path, root=str(tmp_path / "nowhere"))
    assert not list(tmp_path.iterdir())


def test_the_usual_size_bears_the_name_alone():
    assert [record_name("noise", size) for size in ("mnist", "full")] == ["noise", "noise_full"]
