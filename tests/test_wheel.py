"""The course from a wheel: built, installed outside the checkout, laid out, opened, and a lesson executed.

What runs here is what the wheel brought. Its folder is read-only, and at the end nothing has come or gone.
"""

import os
import re
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from course import NOTEBOOKS, ROOT
from nbclient import NotebookClient
from printed_address import printed_address

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
LANDING = "/lab/tree/notebooks/00_start_here.ipynb"


def built(what: Path, into: Path) -> Path:
    """The wheel that pip makes of a folder or of an sdist."""
    _pip("wheel", "--no-deps", "--wheel-dir", into, what)
    (wheel,) = into.glob("*.whl")
    return wheel


def _pip(*arguments) -> None:
    ran = subprocess.run([*PIP, *map(str, arguments)], capture_output=True, text=True)
    if ran.returncode and "ConnectionError" in ran.stderr + ran.stdout:
        pytest.skip("building a wheel needs a network, for hatchling")
    assert ran.returncode == 0, ran.stderr


def files_of(folder: Path) -> dict[str, bytes]:
    """Names and contents of all below a folder but what Python, JupyterLab and a study under way leave."""
    passing = re.compile(r"__pycache__|\.ipynb_checkpoints|\.runs\.jsonl$|\.new$")
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and not passing.search(str(file.relative_to(folder)))
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    return built(ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory) -> Iterator[Path]:
    """Where the wheel is installed, and nothing may be written."""
    folder = tmp_path_factory.mktemp("site") / "packages"
    _pip("install", "--no-deps", "--no-index", "--no-compile", "--target", folder, wheel)
    everything = [folder, *folder.rglob("*")]
    before = {path: path.stat().st_mtime_ns for path in everything}
    for path in everything:
        path.chmod(path.stat().st_mode & ~0o222)
    yield folder
    for path in everything:
        path.chmod(path.stat().st_mode | 0o200)
    assert {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]} == before


@pytest.fixture
def environment(site, tmp_path) -> dict[str, str]:
    """A user who has installed the wheel and nothing else of ours, with an empty home.

    The folder on PYTHONPATH comes before an editable install of the checkout.
    """
    ours = {name: it for name, it in os.environ.items() if not name.startswith(("JUPYTER", "XDG", "PYTHON"))}
    home = tmp_path / "home"
    home.mkdir()
    # Python would write its bytecode beside the code, where it is root and may do anything
    return {**ours, "PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(home)}


@pytest.fixture
def empty(tmp_path) -> Path:
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


def command(site: Path, environment: dict, empty: Path, *arguments: str) -> subprocess.CompletedProcess:
    """`gaussreg-lab`, as pip has made it, in an empty folder."""
    program = [str(site / "bin" / "gaussreg-lab"), *arguments]
    return subprocess.run(program, cwd=empty, env=environment, capture_output=True, text=True, timeout=300)


def test_the_wheel_carries_the_course_and_what_it_needs_but_no_tests(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    package = files_of(tmp_path / "gaussreg_lab")
    assert {"py.typed", "lab_settings/overrides.json", "data/digits.npz"} <= set(package)
    assert files_of(tmp_path / "gaussreg_lab" / "course") == files_of(ROOT / "notebooks")
    assert files_of(tmp_path / "gaussreg_lab" / "data" / "results") == files_of(ROOT / "data" / "results")
    assert {name.split("/")[0] for name in files_of(tmp_path)} == {
        "gaussreg_lab",
        f"{wheel_name(wheel)}.dist-info",
    }


def wheel_name(wheel: Path) -> str:
    return "-".join(wheel.name.split("-")[:2])


def test_an_sdist_makes_the_same_wheel(wheel, tmp_path):
    _pip("install", "--target", tmp_path / "hatchling", "hatchling")
    program = f"import hatchling.build; hatchling.build.build_sdist({str(tmp_path)!r})"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "hatchling")}
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, check=True, timeout=120)
    (sdist,) = tmp_path.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(built(sdist, tmp_path)) as other:
        assert {it.filename: it.CRC for it in one.infolist()} == {
            it.filename: it.CRC for it in other.infolist()
        }


def test_what_runs_is_the_wheel_and_it_finds_its_data_and_the_users_own_folders(site, environment, empty):
    program = """if True:
        import gaussreg_lab as lab
        from gaussreg_lab.datasets import mnist
        print(lab.__file__)
        print(len(lab.digits().train.x), lab.recorded("noise_digits")["about"]["sigma"])
        print(lab.cache_folder())
        try:
            mnist()
        except FileNotFoundError as error:
            print(error)
    """
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=empty, env=environment, capture_output=True, text=True
    )
    package, data, cache, message = ran.stdout.splitlines()
    assert package == str(site / "gaussreg_lab" / "__init__.py"), ran.stderr
    assert data == "1442 0.5"
    assert environment["HOME"] in cache
    assert f"Expected MNIST in {environment['HOME']}" in message


def test_the_command_lays_the_course_out_in_an_empty_folder(site, environment, empty):
    ran = command(site, environment, empty, "--show-config")
    assert ran.returncode == 0, ran.stderr
    mine = empty / "gaussreg_lab_course"
    assert f"root_dir = '{mine}'" in ran.stdout
    assert f"The course is in {mine} (files copied: " in ran.stderr
    assert [it.name for it in empty.iterdir()] == [mine.name]
    assert files_of(mine / "notebooks") == files_of(ROOT / "notebooks")
    assert os.access(mine / "notebooks" / "00_start_here.ipynb", os.W_OK)
    for page in mine.joinpath("notebooks").rglob("*"):
        for target in links(page):
            assert (page.parent / target).exists(), f"{page} leads to {target}"


def links(page: Path) -> list[str]:
    """Where the links and pictures of a page lead to, within the course."""
    if page.suffix == ".ipynb":
        cells = nbformat.read(page, as_version=4).cells
        prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    else:
        prose = page.read_text() if page.suffix == ".md" else ""
    return re.findall(r"\]\((?!https?:)([^)#]+)", prose)


def test_pages_have_links_to_check():
    assert "../gaussreg_lab/experiments/noise.py" in links(ROOT / "notebooks" / "03_losses.ipynb")


def test_what_a_student_changed_survives_the_next_start(site, environment, empty):
    command(site, environment, empty, "--show-config")
    notebooks = empty / "gaussreg_lab_course" / "notebooks"
    (notebooks / "01_gaussian.ipynb").write_text("my own lesson")
    (notebooks / "02_propagation.ipynb").unlink()
    ran = command(site, environment, empty, "--show-config")
    assert ran.returncode == 0, ran.stderr
    assert "(files copied: 1)" in ran.stderr
    assert "notebooks/01_gaussian.ipynb. To have the course as it came" in ran.stderr
    shipped = files_of(ROOT / "notebooks")
    assert files_of(notebooks) == shipped | {"01_gaussian.ipynb": b"my own lesson"}


def test_where_there_is_no_place_it_says_so_in_a_sentence(site, environment, empty):
    (empty / "gaussreg_lab_course").write_text("a letter")
    ran = command(site, environment, empty, "--show-config")
    assert ran.returncode == 1
    assert ran.stderr.startswith(f"Could not put the course into {empty / 'gaussreg_lab_course'}: ")
    assert "Traceback" not in ran.stderr
    assert (empty / "gaussreg_lab_course").read_text() == "a letter"


def test_the_address_that_it_prints_leads_to_the_first_lesson(site, environment, empty):
    log = empty.parent / "server.log"
    with log.open("w") as output:
        server = subprocess.Popen(
            [site / "bin" / "gaussreg-lab", "--no-browser", "--ip=127.0.0.1", "--port=0", "--course", "mine"],
            cwd=empty, env=environment, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        address = printed_address(server, log)
        host, token = re.fullmatch(rf"(http://127\.0\.0\.1:\d+){LANDING}\?token=(\w+)", address).groups()
        page = _fetched(address)
        assert b"<title>JupyterLab</title>" in page
        for notebook in NOTEBOOKS:
            place = notebook.relative_to(ROOT).as_posix()
            assert _fetched(f"{host}/files/{place}?token={token}") == notebook.read_bytes()
    finally:
        server.terminate()
        server.wait(timeout=20)
    assert (empty / "mine" / "notebooks").is_dir()


def _fetched(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=60) as answer:
        return answer.read()


def test_a_lesson_runs_there_and_prints_what_it_prints_in_the_checkout(site, environment, empty):
    command(site, environment, empty, "--show-config")
    lesson = empty / "gaussreg_lab_course" / "notebooks" / "01_gaussian.ipynb"
    notebook = nbformat.read(lesson, as_version=4)
    expected = printed(notebook)
    assert any(expected)
    notebook.cells.append(nbformat.v4.new_code_cell("lab.__file__"))
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(lesson.parent)}}).execute(
        env=environment
    )
    (last,) = notebook.cells.pop().outputs
    assert last["data"]["text/plain"] == repr(str(site / "gaussreg_lab" / "__init__.py"))
    assert printed(notebook) == expected


def printed(notebook: nbformat.NotebookNode) -> list[str]:
    """What each cell has printed; on a busy machine it arrives in several pieces."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return ["".join(it.get("text", "") for it in cell.outputs) for cell in cells]
