"""What stands in two places says the same: requirements, commands, the repository's address, data."""

import hashlib
import json
import re
import sys

import pytest
import yaml
from course import LESSONS, NOTEBOOKS, ROOT
from packaging.requirements import Requirement

from gaussreg_lab import environment
from gaussreg_lab.datasets import DIGITS_SHA256

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
README = (ROOT / "README.md").read_text()
REPOSITORY = PYPROJECT["project"]["urls"]["Repository"]
# where conda-forge's name is not PyPI's
CONDA_NAMES = {"torch": "pytorch-cpu", "matplotlib": "matplotlib-base"}
# names that conda-forge lacks, or has for something else than the reader means
CONDA_TRAPS = {
    "torch": "pytorch-cpu",
    "pytorch": "pytorch-cpu; the plain name may bring a CUDA build",
    "matplotlib": "matplotlib-base; the plain name brings Qt",
    "graphviz": "python-graphviz; the plain name is the program alone",
    "tables": "pytables",
    "build": "python-build",
}


def requirements(lines) -> dict[str, Requirement]:
    return {requirement.name: requirement for requirement in map(Requirement, lines)}


def conda_lines() -> list[str]:
    return yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]


def test_environment_yml_and_pyproject_ask_for_the_same():
    conda = requirements(line for line in conda_lines() if not line.startswith("python="))
    wanted = requirements(PYPROJECT["project"]["dependencies"])
    extra = requirements(PYPROJECT["project"]["optional-dependencies"]["test"])
    for name, requirement in wanted.items():
        assert conda.pop(CONDA_NAMES.get(name, name)).specifier == requirement.specifier
    assert set(conda) == {"nbval", "pytest"}  # what a reader needs to check the notebooks
    for name, requirement in conda.items():
        assert requirement.specifier == extra[name].specifier


def test_environment_yml_names_packages_as_conda_forge_does():
    for line in conda_lines():
        assert isinstance(line, str), "a nested list is pip's, and its packages are not conda-forge's"
        name = re.match(r"[^<>=!\s]*", line)[0]
        assert name not in CONDA_TRAPS, f"{name}: write {CONDA_TRAPS.get(name)}"
        assert re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", name), name  # no capitals, channels or extras


def test_environment_yml_is_what_binder_reads():
    assert [line for line in conda_lines() if line.startswith("python")] == ["python=3.12"]
    document = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert document["channels"] == ["conda-forge"]
    text = (ROOT / "environment.yml").read_text()
    assert "-e ." not in text
    assert "pip:" not in text
    assert not (ROOT / "binder").exists()  # would hide environment.yml from Binder
    assert not (ROOT / ".binder").exists()


def test_every_requirement_has_its_reason():
    for line in (ROOT / "environment.yml").read_text().splitlines():
        if line.startswith("  - ") and "conda-forge" not in line:
            assert re.search(r"#\s*\w+", line), line
    block = re.search(r"^dependencies = \[(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.M | re.S)[1]
    for line in block.strip().splitlines():
        assert re.search(r",\s*#\s*\w+", line), line


def test_check_environment_knows_the_same_ranges():
    assert sorted(environment.REQUIREMENTS) == sorted(PYPROJECT["project"]["dependencies"])
    oldest = ".".join(map(str, environment.OLDEST_PYTHON))
    assert PYPROJECT["project"]["requires-python"] == f">={oldest}"


def test_the_address_comes_from_one_place():
    owner_and_name = REPOSITORY.removeprefix("https://github.com/")
    assert owner_and_name != REPOSITORY
    for path in [ROOT / "README.md", *NOTEBOOKS]:
        text = path.read_text()
        for found in re.findall(r"https://github\.com/([\w.-]+/[\w-]+)", text):
            assert found == owner_and_name, path
        for found in re.findall(r"colab\.research\.google\.com/github/([\w.-]+/[\w-]+)/blob/main/", text):
            assert found == owner_and_name, path
        for found in re.findall(r"mybinder\.org/v2/gh/([\w.-]+/[\w-]+)/main", text):
            assert found == owner_and_name, path


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda p: p.stem)
def test_a_lesson_can_be_opened_on_colab_and_binder(lesson):
    text = lesson.read_text()
    owner_and_name = REPOSITORY.removeprefix("https://github.com/")
    assert f"colab.research.google.com/github/{owner_and_name}/blob/main/notebooks/{lesson.name}" in text
    assert f"mybinder.org/v2/gh/{owner_and_name}/main?urlpath=lab/tree/notebooks/{lesson.name}" in text


def test_the_readme_opens_the_first_lesson_everywhere():
    assert README.count("notebooks/00_start_here.ipynb") >= 3  # Colab, Binder, the course map
    owner_and_name = REPOSITORY.removeprefix("https://github.com/")
    assert (
        f"colab.research.google.com/github/{owner_and_name}/blob/main/notebooks/00_start_here.ipynb" in README
    )
    assert (
        f"mybinder.org/v2/gh/{owner_and_name}/main?urlpath=lab/tree/notebooks/00_start_here.ipynb" in README
    )


def test_links_of_the_readme_lead_somewhere():
    for target in re.findall(r"\]\(((?!https?:)[^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_readme_commands_are_one_line_each_and_make_their_environment():
    blocks = re.findall(r"```sh\n(.*?)```", README, re.S)
    opens, tests = blocks[:2]
    for block in (opens, tests):
        assert len(block.splitlines()) == 1
        assert block.startswith("python3 -m venv .venv && ")
    assert opens.strip().endswith(".venv/bin/gaussreg-lab")
    assert tests.strip().endswith(".venv/bin/pytest")


def test_ci_runs_the_command_of_the_readme_and_no_copy_of_it():
    script = (ROOT / ".ci" / "run").read_text()
    assert "README.md" in script
    assert "-m venv .venv &&" not in script


def test_the_command_is_the_module():
    assert PYPROJECT["project"]["scripts"] == {"gaussreg-lab": "gaussreg_lab.__main__:main"}


def test_the_digits_are_those_that_data_readme_describes():
    text = (ROOT / "data" / "README.md").read_text()
    assert hashlib.sha256((ROOT / "data" / "digits.npz").read_bytes()).hexdigest() in text
    assert DIGITS_SHA256 in text


def test_versions_agree():
    import gaussreg_lab

    assert gaussreg_lab.__version__ == PYPROJECT["project"]["version"]


def test_jupyterlab_is_told_to_ask_nothing():
    settings = json.loads((ROOT / "gaussreg_lab" / "lab_settings" / "overrides.json").read_text())
    assert settings["@jupyterlab/apputils-extension:notification"]["fetchNews"] == "false"
