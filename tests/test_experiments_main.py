"""The command line of the studies."""

import subprocess
import sys

import pytest
import torch

from gaussreg_lab.experiments.__main__ import device_of, estimate, executor_of, main
from gaussreg_lab.experiments.catalogue import STUDIES


def exits(arguments: list[str]) -> str | int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code


def test_list_names_every_study_with_its_time():
    command = [sys.executable, "-m", "gaussreg_lab.experiments", "list"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    for name, study in STUDIES.items():
        assert f"\n{name} " in f"\n{ran.stdout}"
        assert study.question in ran.stdout
    minutes = "digits 25 min, mnist 80 min, grid 130 min, full not timed"
    assert f"{minutes}; with 5 seeds, on one core" in ran.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], r"invalid choice: 'nonsense' (choose from"),
        (["flat", "--seeds", "0"], "Expected a whole number >= 1, got '0'"),
        (["flat", "--seeds", "many"], "Expected a whole number >= 1, got 'many'"),
        (["flat", "--workers", "-1"], "Expected a whole number >= 1, got '-1'"),
        (["flat", "--workers", "2", "--dask", "tcp://there:8786"], "not allowed with argument --workers"),
        (["flat", "--size", "huge"], "invalid choice: 'huge'"),
        (["flat", "--full", "--size", "digits"], "not allowed with argument"),
        ([], "required: name"),
    ],
)
def test_a_mistake_is_told(arguments, message, capsys):
    assert exits(arguments) == 2
    assert message in capsys.readouterr().err


def test_missing_data_is_told_without_a_traceback(tmp_path):
    told = exits(["flat", "--data", str(tmp_path / "nowhere"), "--results", str(tmp_path), "--device", "cpu"])
    assert "Expected MNIST in" in told
    assert "nowhere" in told
    assert not list(tmp_path.iterdir())


def test_a_size_that_only_another_study_has_is_told(tmp_path):
    told = exits(["flat", "--size", "convnet", "--results", str(tmp_path)])
    assert "Expected the size of flat to be one of" in told


def test_a_device_that_is_not_there_is_told(tmp_path):
    assert "Expected a device" in exits(["flat", "--device", "cuda:99", "--results", str(tmp_path)])
    assert device_of("auto") == ("cuda" if torch.cuda.is_available() else "cpu")


def test_a_study_that_is_recorded_needs_no_run(tmp_path, capsys):
    main(["small_data", "--size", "digits", "--results", str(tmp_path)])
    out = capsys.readouterr()
    assert out.out.strip() == str(tmp_path / "small_data_digits.json")
    assert "small_data, digits, 5 seeds: up to" in out.err


def test_the_estimate_counts_seeds_and_workers():
    study = STUDIES["flat"]

    def minutes(*arguments) -> float:
        return float(estimate("flat", study, "mnist", *arguments).split("up to ")[1].split()[0])

    assert minutes(None, 1) == study.minutes["mnist"]
    assert minutes(2 * study.seeds, 1) > minutes(None, 1) > minutes(None, 2)
    assert "nobody has timed it" in estimate("flat", study, "full", None, 1)


def test_one_worker_is_this_process():
    with executor_of(1, None) as executor:
        assert executor is None
