"""Sweeps: the same results on every executor, in every order; none made twice, whatever ends the program."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest
import torch
from some_runs import COUNT, fragile, mark, marks, slow, sometimes, tensor, train

import gaussreg_lab
from gaussreg_lab.settings import seed_of
from gaussreg_lab.store import Run, stored_runs
from gaussreg_lab.sweep import sweep as noisy_sweep

TESTS = Path(__file__).parent
GRID = {"width": [64, 128], "rate": [0.01, 0.1, 0.2]}
posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
sweep = partial(noisy_sweep, progress=False)


def without_seconds(runs: list[Run]) -> list[Run]:
    return [run._replace(seconds=0.0) for run in runs]


def new_processes(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))


@pytest.fixture
def folder(tmp_path) -> str:
    """Where runs leave their marks."""
    (tmp_path / "marks").mkdir()
    return str(tmp_path / "marks")


@pytest.fixture
def store(tmp_path) -> Path:
    return tmp_path / "runs.jsonl"


# the same results, wherever and in whatever order


@pytest.fixture(scope="module")
def here() -> list[Run]:
    return sweep(train, GRID)


def test_results_come_in_the_order_of_the_grid(here):
    wanted = [{"width": width, "rate": rate} for width in GRID["width"] for rate in GRID["rate"]]
    assert [run.setting for run in here] == wanted
    assert [run.seed for run in here] == [seed_of(setting) for setting in wanted]
    assert all(run.error is None and run.seconds > 0 for run in here)


def test_a_run_is_a_call_with_torch_seeded_on_one_thread(here):
    for run in here:
        torch.manual_seed(run.seed)
        assert train(**run.setting) == run.result  # the tests have one thread as well
        assert run.result["threads"] == 1
    assert len({run.result["norm"] for run in here}) == len(here)


def test_the_order_of_settings_and_names_does_not_matter(here):
    settings = [dict(reversed(run.setting.items())) for run in here]
    order = random.Random(0).sample(range(len(here)), len(here))
    shuffled = sweep(train, [settings[index] for index in order])
    assert without_seconds(shuffled) == [here[index]._replace(seconds=0.0) for index in order]


def test_processes_give_the_same_bits(here, store):
    with new_processes(2) as executor:
        assert without_seconds(sweep(train, GRID, executor, store)) == without_seconds(here)
    kept = {str(run.setting): run for run in without_seconds(stored_runs(store))}
    assert [kept[str(run.setting)] for run in here] == without_seconds(here)


@pytest.mark.filterwarnings("default")  # what Dask warns about is not ours to mend
def test_dask_gives_the_same_bits(here, folder, store):
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=2, processes=True, host="127.0.0.1", dashboard_address=None
    )
    with cluster, distributed.Client(cluster) as client:
        executor = client.get_executor()
        assert without_seconds(sweep(train, GRID, executor, store)) == without_seconds(here)
        grid = {"index": [0, 1], "folder": [folder]}
        assert [run.error for run in sweep(sometimes, grid, executor)] == [None, "ValueError: no good: 1"]
        assert [run.error for run in sweep(sometimes, grid, executor)] == [None, None]
    assert len(stored_runs(store)) == len(here)


def test_threads_give_the_same_bits_though_they_share_a_generator(here):
    with ThreadPoolExecutor(3) as executor:
        assert without_seconds(sweep(train, GRID, executor)) == without_seconds(here)


def test_the_process_is_left_as_it_was():
    def draws(index: int) -> dict:
        torch.randn(10)
        torch.set_num_threads(3)
        if index == 1:
            raise ValueError("no good")
        return {"threads": torch.get_num_threads()}

    before, threads, handler = torch.get_rng_state(), torch.get_num_threads(), signal.getsignal(signal.SIGINT)
    torch.set_num_threads(2)
    try:
        sweep(draws, {"index": [0, 1]})
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.get_rng_state(), before)
    assert signal.getsignal(signal.SIGINT) is handler


# seeds


def drawing(seed: int, **setting) -> dict:
    return {"seed": seed, "first": torch.rand(()).item(), **setting}


def test_a_run_gets_its_seed_if_it_has_a_place_for_it():
    (run,) = sweep(drawing, [{"sigma": 0.5}])
    assert run.result["seed"] == run.seed == seed_of({"sigma": 0.5})
    (run,) = sweep(lambda **setting: setting, [{"sigma": 0.5}])
    assert run.result == {"sigma": 0.5}


def test_a_seed_in_the_setting_goes_before():
    runs = sweep(drawing, {"sigma": [0.5, 1.0], "seed": [3, 4]})
    assert [run.result["seed"] for run in runs] == [run.seed for run in runs] == [3, 4, 3, 4]
    for run in runs:  # all settings meet the same random numbers
        assert run.result["first"] == torch.rand((), generator=torch.Generator().manual_seed(run.seed)).item()


def test_a_run_may_change_what_it_is_given():
    def careless(sizes: list[int]) -> dict:
        sizes.append(7)
        return {"count": len(sizes)}

    grid = {"sizes": [[1, 2]]}
    (run,) = sweep(careless, grid)
    assert run.setting == {"sizes": [1, 2]}
    assert grid == {"sizes": [[1, 2]]}


# the store


def test_what_is_in_the_store_is_not_made_again(folder, store):
    grid = {"index": [0, 1, 2], "folder": [folder]}
    first = sweep(slow, grid, store=store)
    content = store.read_bytes()
    assert sweep(slow, grid, store=store) == first
    assert store.read_bytes() == content
    more = sweep(slow, {"index": [5, 2, 1, 0], "folder": [folder]}, store=str(store))
    assert more[1:] == first[::-1]
    assert marks(folder) == [0, 1, 2, 5]
    assert sweep(slow, {"index": [1], "folder": [folder]}, store=store) == [first[1]]


def test_a_run_is_in_the_store_before_the_next_begins(store):
    def looks(index: int) -> dict:
        return {"finished": len(stored_runs(store))}

    assert [run.result["finished"] for run in sweep(looks, {"index": [0, 1, 2]}, store=store)] == [0, 1, 2]


def test_the_store_says_how_its_runs_were_made(store):
    sweep(partial(drawing, more=1), [{"sigma": 0.5}], store=store)
    first = store.read_text().splitlines()[0]
    for word in ("test_sweep.drawing", torch.__version__, gaussreg_lab.__version__, "started", "python"):
        assert word in first


def test_cut_anywhere_a_sweep_ends_as_if_it_had_not_been(store):
    calls = []

    def counted(index: int) -> dict:
        calls.append(index)
        return {"draw": torch.randn(()).item()}

    whole = without_seconds(sweep(counted, {"index": [0, 1, 2]}, store=store))
    content = store.read_bytes()
    for cut in range(0, len(content) + 1, 7):
        store.write_bytes(content[:cut])
        left = [run.setting["index"] for run in stored_runs(store)]
        calls.clear()
        assert without_seconds(sweep(counted, {"index": [0, 1, 2]}, store=store)) == whole
        assert sorted(calls + left) == [0, 1, 2]


@posix
@pytest.mark.parametrize("workers", [0, 2], ids=["in process", "on processes"])
def test_killed_half_way_it_goes_on_and_ends_as_if_it_had_not_been(workers, folder, store, tmp_path):
    process = start(store, folder, workers)
    try:
        wait_for(lambda: store.exists() and len(stored_runs(store)) >= 3)
        process.kill()
        process.wait()
        done = [run.setting["index"] for run in stored_runs(store)]
        assert 3 <= len(done) < COUNT
        resumed = sweep(slow, {"index": list(range(COUNT)), "folder": [folder]}, store=store)
    finally:
        end(process)
    called = marks(folder)
    assert all(called.count(index) == 1 for index in done)
    assert all(1 <= called.count(index) <= 2 for index in range(COUNT))  # twice: begun, but not finished
    assert workers or len(called) <= COUNT + 1
    uninterrupted = sweep(slow, {"index": list(range(COUNT)), "folder": [folder]})
    assert without_seconds(resumed) == without_seconds(uninterrupted)
    assert {str(run.setting): run for run in stored_runs(store)} == {str(run.setting): run for run in resumed}


def start(store: Path, folder: str, workers: int) -> subprocess.Popen:
    command = [sys.executable, str(TESTS / "some_runs.py"), str(store), folder, str(workers)]
    return subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)


def end(process: subprocess.Popen) -> None:
    """With all that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stderr.close()


def wait_for(condition, most: float = 60.0) -> None:
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < most, "waited too long"
        time.sleep(0.01)


@posix
def test_two_sweeps_on_one_store_are_refused(folder, store):
    process = start(store, folder, 0)
    try:
        wait_for(lambda: store.exists() and stored_runs(store))
        with pytest.raises(RuntimeError, match=r"Expected store .*runs.jsonl to be free, but another sweep"):
            sweep(slow, {"index": [100], "folder": [folder]}, store=store)
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "")  # the first was not disturbed
    finally:
        end(process)
    assert marks(folder) == list(range(COUNT))
    assert len(sweep(slow, {"index": [100], "folder": [folder]}, store=store)) == 1


# runs that fail


def test_a_failing_run_is_recorded_and_stops_no_other(folder, store):
    grid = {"index": range(4), "folder": [folder]}
    runs = sweep(sometimes, grid, store=store)
    assert [run.error for run in runs] == [None, "ValueError: no good: 1", None, "ValueError: no good: 3"]
    assert [run.result is None for run in runs] == [False, True, False, True]
    assert stored_runs(store) == runs
    assert sweep(sometimes, grid, store=store, retry=False) == runs
    assert marks(folder) == [0, 1, 2, 3]
    again = sweep(sometimes, grid, store=store)  # now they succeed
    assert [again[0], again[2]] == [runs[0], runs[2]]
    assert marks(folder) == [0, 1, 1, 2, 3, 3]
    assert all(run.error is None for run in again)
    assert stored_runs(store) == again
    elsewhere = sweep(sometimes, grid)
    assert without_seconds(again) == without_seconds(elsewhere)


@pytest.mark.parametrize("executor", [None, ThreadPoolExecutor(1)], ids=["in process", "on threads"])
@pytest.mark.parametrize(
    ("result", "message"),
    [
        (torch.tensor(1.0), r"Expected run's result to be a number.*got Tensor; write .tolist\(\)"),
        ({"a": [torch.tensor(1.0)]}, r"run's result\['a'\]\[0\]"),
        ({1: 2}, "run's result to have strings as keys, got 1"),
        (None, r"Expected run to return a dict, say .*got None"),
        (0.5, "got 0.5"),
    ],
)
def test_a_result_that_json_does_not_know_ends_the_sweep(executor, result, message, store):
    def gives(index: int) -> dict:
        return {"index": 0} if index == 0 else result

    with pytest.raises(TypeError, match=message):
        sweep(gives, {"index": range(5)}, executor, store=store)
    assert [run.result for run in stored_runs(store)] == [{"index": 0}]


# interruptions


def test_ctrl_c_keeps_what_is_finished(folder, store):
    def interrupted(index: int) -> dict:
        mark(index, folder)
        if index == 2 and marks(folder).count(2) == 1:
            raise KeyboardInterrupt
        return {"draw": torch.randn(()).item()}

    with pytest.raises(KeyboardInterrupt):
        sweep(interrupted, {"index": range(4)}, store=store)
    assert len(stored_runs(store)) == 2
    runs = sweep(interrupted, {"index": range(4)}, store=store)
    assert marks(folder) == [0, 1, 2, 2, 3]
    assert without_seconds(runs) == without_seconds(sweep(interrupted, {"index": range(4)}))


@posix
def test_ctrl_c_counts_even_if_the_run_catches_it(store):
    """As `fit` does: it returns a model that is half trained, whose scores must not be kept."""

    def stubborn(index: int) -> dict:
        try:
            if index == 2:
                signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            return {"whole": False}
        return {"whole": True}

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        sweep(stubborn, {"index": range(4)}, store=store)
    assert [run.result for run in stored_runs(store)] == [{"whole": True}] * 2
    assert signal.getsignal(signal.SIGINT) is handler


@posix
def test_ctrl_c_cancels_what_has_not_begun(store):
    called, hold = [], threading.Event()

    def waits(index: int) -> dict:
        called.append(index)
        if index == 2:
            wait_for(lambda: len(stored_runs(store)) == 2)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            hold.wait(10)
        return {}

    with ThreadPoolExecutor(1) as executor:
        try:
            with pytest.raises(KeyboardInterrupt):
                sweep(waits, {"index": range(50)}, executor, store)
        finally:
            hold.set()
    assert called == [0, 1, 2]
    assert sorted(run.setting["index"] for run in stored_runs(store)) == [0, 1]


def test_ctrl_c_keeps_what_has_ended_but_was_not_looked_at(store):
    class Interrupted(ThreadPoolExecutor):
        """Ctrl-C, after two runs have ended, while the third is handed over."""

        def submit(self, function, run, setting, *more):
            if setting["index"] == 2:
                raise KeyboardInterrupt
            future = super().submit(function, run, setting, *more)
            future.result()
            return future

    with Interrupted(1) as executor, pytest.raises(KeyboardInterrupt):
        sweep(drawing, {"index": range(4)}, executor, store)
    assert sorted(run.setting["index"] for run in stored_runs(store)) == [0, 1]


@posix
def test_ctrl_c_in_a_terminal_reaches_all_processes_and_keeps_no_half_run(folder, store):
    process = start(store, folder, 2)
    try:
        wait_for(lambda: store.exists() and len(stored_runs(store)) >= 2)
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode != 0
    finally:
        end(process)
    runs = stored_runs(store)
    assert 2 <= len(runs) < COUNT
    assert all(run.result["whole"] for run in runs)


@posix
def test_a_killed_worker_is_explained_and_costs_nothing_that_was_finished(folder, store):
    grid = {"index": range(5), "folder": [folder]}
    with (
        new_processes(1) as executor,
        pytest.raises(
            RuntimeError, match=r"broke down \(BrokenProcessPool(.|\n)*was killed(.|\n)*in the store"
        ),
    ):
        sweep(fragile, grid, executor, store)
    assert sorted(run.setting["index"] for run in stored_runs(store)) == [0, 1, 2]
    runs = sweep(fragile, grid, store=store)
    assert marks(folder) == [0, 1, 2, 3, 3, 4]
    assert without_seconds(runs) == without_seconds(sweep(fragile, grid))


def test_a_closed_executor_is_explained(store):
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(RuntimeError, match=r"broke down.*after shutdown"):
        sweep(drawing, [{}], executor, store)


def test_when_the_executor_breaks_what_has_ended_is_kept_first(store):
    class Short(ThreadPoolExecutor):
        """Refuses the fourth."""

        def submit(self, *arguments):
            if arguments[2]["index"] == 3:
                raise RuntimeError("enough")
            future = super().submit(*arguments)
            future.result()  # ended, but not yet looked at
            return future

    with Short(1) as executor, pytest.raises(RuntimeError, match=r"broke down.*enough"):
        sweep(drawing, {"index": range(4)}, executor, store)
    assert sorted(run.setting["index"] for run in stored_runs(store)) == [0, 1, 2]


# executors and errors


def test_a_huge_grid_is_handed_over_bit_by_bit(monkeypatch):
    monkeypatch.setattr(import_module("gaussreg_lab.sweep"), "IN_FLIGHT", 5)
    waiting, most = set(), []

    class Counting(ThreadPoolExecutor):
        def submit(self, *arguments):
            future = super().submit(*arguments)
            waiting.add(future)
            most.append(sum(not it.done() for it in waiting))
            return future

    with Counting(2) as executor:
        runs = sweep(drawing, {"index": range(100)}, executor)
    assert [run.setting["index"] for run in runs] == list(range(100))
    assert 2 <= max(most) <= 5


def test_what_cannot_be_sent_to_processes_is_refused_at_once(store):
    def inner(index: int) -> dict:
        return {}

    with new_processes(1) as executor:
        for run in (inner, lambda index: {}, partial(inner)):
            with pytest.raises(
                TypeError, match=r"other processes can import, got one that cannot be pickled"
            ):
                sweep(run, {"index": [0]}, executor, store)
        assert not store.exists()
        with pytest.raises(TypeError, match=r"run's result\['index'\] .*got Tensor"):
            sweep(tensor, {"index": [0]}, executor)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ((3, [{}]), TypeError, "Expected run to be a function of keywords, got 3"),
        ((train, []), ValueError, "Expected grid to have at least one setting"),
        ((train, {"width": [1]}), TypeError, r"Expected run to take the setting {'width': 1} .*'rate'"),
        (
            (train, {**GRID, "depth": [1]}),
            TypeError,
            "to take the setting .*unexpected keyword argument 'depth'",
        ),
        ((train, GRID, 2), TypeError, r"Expected executor .*ProcessPoolExecutor\(2\), .*got 2"),
        ((train, GRID, ThreadPoolExecutor), TypeError, "Expected executor .*got <class"),
        (
            (train, GRID, None, "nowhere/runs.jsonl"),
            FileNotFoundError,
            "Expected store in a folder that exists",
        ),
    ],
)
def test_wrong_arguments_are_refused(arguments, kind, message):
    with pytest.raises(kind, match=message):
        sweep(*arguments)


def test_the_base_class_of_executors_is_all_that_is_asked_for():
    """An executor that knows nothing but submit."""

    class Plain(Executor):
        def submit(self, function, *arguments):
            with ThreadPoolExecutor(1) as executor:
                return executor.submit(function, *arguments)

    assert without_seconds(sweep(drawing, [{}], Plain())) == without_seconds(sweep(drawing, [{}]))


def test_a_bar_counts_runs_and_failures(capsys, folder, store):
    grid = {"index": range(4), "folder": [folder]}
    noisy_sweep(sometimes, grid, store=store)
    bar = capsys.readouterr().err
    assert "sweep: 100%" in bar
    assert "4/4" in bar
    assert "failed=2" in bar
    noisy_sweep(sometimes, grid, store=store)
    assert "4/4" in capsys.readouterr().err
    sweep(sometimes, grid)
    assert capsys.readouterr() == ("", "")
