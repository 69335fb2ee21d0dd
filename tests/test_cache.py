"""Results kept on disk: found again, never out of date, never half a file, rebuilt when damaged."""

import importlib.util
import math
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from gaussreg_lab import cache, losses, places
from gaussreg_lab.cache import cache_folder, cached, code_behind, described, key_of
from gaussreg_lab.models import lenet8, mlp
from gaussreg_lab.perturbation import into_ball

ROOT = Path(__file__).parent.parent


@pytest.fixture
def counted(monkeypatch):
    """A function that passes for one of the course, and counts its calls."""
    calls = []

    def work(value, scale=1.0):
        calls.append(value)
        return {"weights": value * scale, "words": "done", "pair": (1, 2.5)}

    work.__qualname__, work.__module__ = "work", "gaussreg_lab.losses"
    work.calls = calls
    return work


def only_file(folder: Path) -> Path:
    (file,) = folder.iterdir()  # nothing half-written beside it either
    return file


def test_the_second_time_nothing_is_computed(counted, tmp_path):
    value = torch.tensor([1.0, float("nan"), math.inf])
    first = cached(partial(counted, value), tmp_path)
    again = cached(partial(counted, value.clone()), tmp_path)
    assert len(counted.calls) == 1
    torch.testing.assert_close(again["weights"], first["weights"], rtol=0, atol=0, equal_nan=True)
    assert (again["words"], again["pair"]) == ("done", (1, 2.5))
    assert only_file(tmp_path).name.startswith("work-")


@pytest.mark.parametrize(
    "changed",
    [
        {"value": torch.tensor([1.0, 2.0])},  # another number
        {"value": torch.tensor([1.0, 3.0], dtype=torch.float64)},  # another type of the same numbers
        {"value": torch.tensor([[1.0, 3.0]])},  # another shape
        {"scale": 2.0},
        {"scale": 1},  # not 1.0
    ],
)
def test_another_setting_is_another_result(counted, tmp_path, changed):
    settings = {"value": torch.tensor([1.0, 3.0]), "scale": 1.0}
    cached(partial(counted, **settings), tmp_path)
    cached(partial(counted, **(settings | changed)), tmp_path)
    assert len(counted.calls) == 2
    assert len(list(tmp_path.iterdir())) == 2


def test_another_torch_and_other_code_are_another_result(counted, tmp_path, monkeypatch):
    cached(partial(counted, 1.0), tmp_path)
    monkeypatch.setattr(torch, "__version__", "0.0")
    cached(partial(counted, 1.0), tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(cache, "code_behind", lambda module: "another line of code")
    cached(partial(counted, 1.0), tmp_path)
    assert len(counted.calls) == 3


def test_code_behind_follows_imports(monkeypatch):
    """A change two imports away is seen, one in a module that is not imported is not."""
    get_source = importlib.util.find_spec("gaussreg_lab.gaussian").loader.get_source

    def with_a_change_in(changed):
        def changed_source(self, name):
            return get_source.__func__(self, name) + ("# another\n" if name == changed else "")

        code_behind.cache_clear()
        with monkeypatch.context() as patched:
            patched.setattr(importlib.machinery.SourceFileLoader, "get_source", changed_source)
            return code_behind("gaussreg_lab.methods")

    try:
        before = with_a_change_in(None)
        assert with_a_change_in(None) == before
        assert with_a_change_in("gaussreg_lab.linear_map") != before  # spectral -> layer_maps -> linear_map
        assert with_a_change_in("gaussreg_lab.methods") != before
        assert with_a_change_in("gaussreg_lab.panels") == before
    finally:
        code_behind.cache_clear()


def flipped(content: bytes) -> bytes:
    return content[:-5] + bytes([content[-5] ^ 1]) + content[-4:]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: b"",
        flipped,
        lambda content: content + b"more",
        lambda content: b"nothing of ours\n" + content,
    ],
    ids=["cut in half", "one byte short", "empty", "one bit flipped", "too long", "another head"],
)
def test_a_damaged_file_is_noticed_and_made_anew(counted, tmp_path, damage):
    cached(partial(counted, 3.0), tmp_path)
    file = only_file(tmp_path)
    good = file.read_bytes()
    file.write_bytes(damage(good))
    assert cached(partial(counted, 3.0), tmp_path)["weights"] == 3.0
    assert len(counted.calls) == 2
    assert only_file(tmp_path).read_bytes() == good
    cached(partial(counted, 3.0), tmp_path)
    assert len(counted.calls) == 2


class Intruder:
    def __reduce__(self):
        return os.system, ("touch intruder",)


def test_a_file_with_a_right_checksum_cannot_run_code(counted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "kept"
    cached(partial(counted, 3.0), folder)
    body = pickle.dumps((Intruder(),))
    cache._write(only_file(folder), body)  # with the checksum that belongs to it
    assert cached(partial(counted, 3.0), folder)["weights"] == 3.0
    assert not Path("intruder").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupted_computation_leaves_nothing(tmp_path, error, monkeypatch):
    def work():
        raise error

    work.__qualname__, work.__module__ = "work", "gaussreg_lab.losses"
    with pytest.raises(error):
        cached(partial(work), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_writing_leaves_what_was_there(counted, tmp_path, monkeypatch):
    cached(partial(counted, 3.0), tmp_path)
    file = only_file(tmp_path)
    file.write_bytes(b"damaged")

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(cache.os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            cached(partial(counted, 3.0), tmp_path)
    assert only_file(tmp_path).read_bytes() == b"damaged"  # and no part beside it
    assert cached(partial(counted, 3.0), tmp_path)["weights"] == 3.0


def test_a_kernel_killed_while_it_writes_leaves_no_whole_file(tmp_path):
    program = f"""
import math, os, signal
from functools import partial
from gaussreg_lab import cache
cache.os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
cache.cached(partial(math.sqrt, 2.25), {str(tmp_path)!r})
"""
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True)
    assert ran.returncode == -9
    assert list(tmp_path.glob("*.cache")) == []
    (part,) = tmp_path.glob("*.part")
    assert cached(partial(math.sqrt, 2.25), tmp_path) == 1.5
    assert part.exists()  # it might be another kernel's, at work now
    two_days_ago = time.time() - 2 * 24 * 3600
    os.utime(part, (two_days_ago, two_days_ago))
    cached(partial(math.sqrt, 6.25), tmp_path)
    assert not part.exists()


def hammer(folder: str, worker: int) -> None:
    for number in range(40):
        value = (number + worker) % 8
        assert cached(partial(math.pow, value, 2.0), folder) == value**2


def test_several_kernels_at_once_do_no_harm(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=hammer, args=(str(tmp_path), number)) for number in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=120)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert len(list(tmp_path.glob("*.cache"))) == 8
    assert list(tmp_path.glob("*.part")) == []


def test_a_reader_never_sees_half_a_file(counted, tmp_path):
    """One thread damages nothing but writes again and again, another reads: each reading is whole."""
    value = torch.arange(50_000.0)
    cached(partial(counted, value), tmp_path)
    file = only_file(tmp_path)
    body = cache._packed(({"weights": value},))
    done = threading.Event()

    def write() -> None:
        while not done.is_set():
            cache._write(file, body)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert all(cache._read(file) is not None for _ in range(100))
    finally:
        done.set()
        writer.join()


def notebook_function(value):
    return value + 1


@pytest.mark.parametrize(
    "unknown", [lambda value: value + 1, notebook_function, partial(lambda value: value + 1)]
)
def test_code_that_cannot_be_known_is_run_every_time(unknown, tmp_path):
    assert cached(partial(unknown, 1.0), tmp_path) == 2.0
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_costs_time_and_warns(counted, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(UserWarning, match="Could not keep a result in .*pass folder="):
        assert cached(partial(counted, 2.0), tmp_path / "file")["weights"] == 2.0


def test_what_cannot_be_kept_is_refused_at_once(tmp_path):
    with pytest.raises(TypeError, match="numbers, words and tensors"):
        cached(partial(mlp, (4, 2)), tmp_path)  # a network: its weights can be kept, its class cannot
    with pytest.raises(TypeError, match=r"Expected a functools\.partial"):
        cached(notebook_function, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_folder_keeps_the_newest_files(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "MOST_FILES", 3)
    for age, value in enumerate((1.0, 4.0, 9.0)):
        cached(partial(math.sqrt, value), tmp_path)
        for file in tmp_path.iterdir():
            os.utime(file, (file.stat().st_mtime - 100, file.stat().st_mtime - 100))
        assert age < 3
    cached(partial(math.sqrt, 1.0), tmp_path)  # used: now the newest
    cached(partial(math.sqrt, 16.0), tmp_path)
    kept = {cache._read(file)[0] for file in tmp_path.iterdir()}
    assert kept == {1.0, 3.0, 4.0}


def test_descriptions_tell_values_apart():
    values = [
        None, True, 1, 1.0, "1", [1], (1,), {"a": 1}, {"a": 1.0}, math.inf, -math.inf, [1, [2]], [[1], 2],
        torch.tensor(1), torch.tensor(1.0), torch.tensor([1.0]), torch.tensor([1, 0]).bool(),
        mlp, lenet8, partial(mlp, (4, 2)), partial(mlp, [4, 2]), partial(mlp, sizes=(4, 2)),
        losses.NoisyLoss(0.5), losses.NoisyLoss(0.25), losses.NoisyLoss, torch.optim.Adam, into_ball,
    ]  # fmt: skip
    keys = {key_of(value) for value in values}
    assert len(keys) == len(values)


def test_a_description_is_the_same_in_every_process():
    program = "from gaussreg_lab import cache, losses; print(cache.key_of(losses.NoisyLoss(0.5)))"
    keys = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", program]
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
        keys.add(ran.stdout.strip())
    assert keys == {key_of(losses.NoisyLoss(0.5))}


@pytest.mark.parametrize("thing", [object(), torch.Generator(), torch.nn.Linear(1, 1), {1, 2}])
def test_what_has_no_description_is_refused(thing):
    with pytest.raises(TypeError, match="Expected a"):
        described(thing)


def test_the_folder_is_the_courses_own_or_else_the_users(monkeypatch, tmp_path):
    assert cache_folder() == ROOT / "data" / "cache"
    monkeypatch.setattr(cache.os, "access", lambda *_: False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache_folder() == tmp_path / "gaussreg_lab"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "gaussreg_lab"
    monkeypatch.undo()
    monkeypatch.setattr(places, "PACKAGE", tmp_path / "site-packages" / "gaussreg_lab")
    assert cache_folder() == places.own_folder()


def test_git_ignores_the_folder():
    assert "/data/cache/" in (ROOT / ".gitignore").read_text().splitlines()
