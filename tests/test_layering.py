"""The shape of the package: imports point to simpler modules, and each idea has file, test and lesson."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "gaussreg_lab"
LEVELS = {
    "normal": 0,
    "rectified": 1,
    "gaussian": 2,
    "quadrature": 0,
    "models": 0,
    "downloads": 0,
    "smoothing": 0,
    "linear_map": 0,
    "perturbation": 0,
    "layer_maps": 1,
    "places": 0,
    "records": 1,
    "cache": 1,
    "course_folder": 0,
    "settings": 0,
    "store": 1,
    "sweep": 2,
    "verdicts": 0,
    "standing": 1,
    "graders": 0,
    "graders.explore": 3,
    "graders.losses": 2,
    "graders.propagation": 2,
    "graders.gradients": 2,
    "graders.spectral": 2,
    "graders.perturbation": 2,
    "graders.robustness": 10,
    "covariance": 3,
    "datasets": 3,
    "logits": 3,
    "losses": 3,
    "sampling": 3,
    "maxima": 4,
    "gradients": 4,
    "attacks": 4,
    "spectral": 4,
    "sharpness": 4,
    "curvature": 5,
    "lipschitz": 5,
    "layer_moments": 5,
    "propagation": 6,
    "linearization": 7,
    "moment_losses": 8,
    "training": 9,
    "robustness": 9,
    "methods": 9,
    "comparison": 10,
    "png": 0,
    "blitting": 9,
    "controls": 9,
    "figures": 9,
    "panels": 10,
    "exercises": 11,
    "environment": 12,
    "formulas": 0,
    "flipbook": 11,
    "pages": 12,
    "handout": 13,
    "experiments": 0,
    "experiments.bench": 10,
    "experiments.noise": 11,
    "experiments.small_data": 11,
    "experiments.spectral": 11,
    "experiments.flat": 11,
    "experiments.compare": 11,
    "experiments.catalogue": 12,
    "experiments.perform": 13,
    "experiments.__main__": 14,
    "__init__": 13,
    "__main__": 13,
}
HEAVY = {"torchvision", "matplotlib", "ipywidgets", "IPython", "tqdm", "PIL", "jupyterlab", "nbconvert"}
WITH_PICTURES = {"blitting", "controls", "figures", "panels", "exercises", "environment", "flipbook", "pages"}
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
)


def source_of(module: str) -> str:
    file = PACKAGE / f"{module.replace('.', '/')}.py"
    return (file if file.exists() else PACKAGE / module / "__init__.py").read_text()


def tree_of(module: str) -> ast.Module:
    return ast.parse(source_of(module))


def imported(nodes) -> set[str]:
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written in full"
            found.add(node.module)
    return found


def test_every_module_has_a_level():
    assert set(MODULES) == set(LEVELS)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_to_lower_levels(module):
    for name in imported(ast.walk(tree_of(module))):
        if name.startswith("gaussreg_lab."):
            assert LEVELS[name.removeprefix("gaussreg_lab.")] < LEVELS[module], f"{module} imports {name}"


@pytest.mark.parametrize("module", sorted(set(MODULES) - WITH_PICTURES))
def test_maths_does_not_import_pictures(module):
    heavy = {name.split(".")[0] for name in imported(tree_of(module).body)} & HEAVY
    assert heavy == set()


def test_figures_know_no_maths():
    assert not any(name.startswith("gaussreg_lab") for name in imported(ast.walk(tree_of("figures"))))


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"__init__", "graders", "experiments"}))
def test_every_module_has_its_test(module):
    words = [word.strip("_") for word in module.split(".")]
    assert (ROOT / "tests" / f"test_{'_'.join(words)}.py").exists()


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"__init__", "__main__", "graders"}))
def test_every_module_names_its_lesson(module):
    lesson = re.search(r"Lesson: (.+)", ast.get_docstring(tree_of(module)))[1]
    if lesson.startswith("notebooks/"):
        assert (ROOT / lesson).exists()


@pytest.mark.parametrize("module", MODULES)
def test_every_public_definition_says_what_it_does(module):
    for node in tree_of(module).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{module}.{node.name}"


@pytest.mark.parametrize("module", MODULES)
def test_a_file_holds_one_idea(module):
    assert len(source_of(module).splitlines()) <= 300


def test_the_public_face_can_be_had():
    import gaussreg_lab

    assert all(hasattr(gaussreg_lab, name) for name in gaussreg_lab.__all__)
    assert set(gaussreg_lab.__all__) <= set(dir(gaussreg_lab))
    assert gaussreg_lab.methods.METHODS is gaussreg_lab.METHODS  # also a module that waits to be asked for
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        gaussreg_lab.nonsense  # noqa: B018


def test_import_brings_nothing_heavy_that_torch_does_not():
    program = (
        "import sys, torch; before = set(sys.modules); import gaussreg_lab; print(*set(sys.modules) - before)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    added = set(ran.stdout.split())
    assert "gaussreg_lab.gaussian" in added, ran.stderr
    assert added & HEAVY == set()
