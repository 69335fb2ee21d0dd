"""Many runs of one function, each with its own setting: on one core, on all, or on a cluster.

What a run gives must not depend on the order of the runs, nor on who makes them; and none is made twice:

    seed   = hash(setting)
    result = run(setting, seed)      on one thread, and one run at a time in each process
    store  = store + result          on the disk before the next one is awaited

So the results are the same bit for bit in process, on other processes and on a cluster of equal processors,
and a sweep that was killed goes on where it ended. Who makes the runs is the executor's business: anything
that follows `concurrent.futures`. There is no scheduler here.

Lesson: notebooks/08_explore.ipynb
"""

import copy
import inspect
import pickle
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import closing, contextmanager, nullcontext
from datetime import datetime, timezone
from itertools import islice
from os import PathLike
from uuid import uuid4

import torch

from gaussreg_lab.settings import NotJson, as_json, canonical, seed_of, settings_of
from gaussreg_lab.store import Run, Store

IN_FLIGHT = 1000  # runs handed to an executor at a time: enough for a cluster, and a huge grid stays at home

# threads and torch's generator belong to the whole process, so its runs take turns
_turn = threading.RLock()


def sweep(
    run: Callable[..., dict],
    grid: Mapping[str, list] | list[dict],
    executor: Executor | None = None,
    store: str | PathLike | None = None,
    progress: bool = True,
    retry: bool = True,
) -> list[Run]:
    """A `Run` for every setting of a grid: what `run(**setting)` returned, in the order of the grid.

    run: takes the names of a setting as keywords; returns a dict of numbers, or of anything that JSON has.
    grid: a dict of lists, of which all combinations are made, the last name changing fastest; or a list of
    settings. 1 and 1.0 are two settings.
    executor: None makes the runs here, one after the other. Else `ProcessPoolExecutor(2)`, Dask's
    `Client(...).get_executor()` or any other of `concurrent.futures`; it stays yours to close. A run has one
    thread, and its process to itself: count processes, not threads. A cluster needs gaussreg_lab as well.
    store: a file of JSON lines (`gaussreg_lab.store`). A run is written there as soon as it has ended, and is
    not made again if it is there already. A store knows settings, not code: after a change of `run` take
    another file.
    progress: show a bar, one tick a run.

    Seeds: "seed" of the setting if it has one, else `seed_of(setting)`. torch's generator is seeded with it
    for the time of the run; if `run` has a parameter `seed`, it gets it as well. With "seed" in the grid,
    all methods meet the same random numbers. Those of numpy and `random` are left to `run`.

    A run that raises an Exception is kept with its error and stops no other. When its store is used again, so
    is the run made again, unless retry=False. Ctrl-C gives up what is running, even where `run` catches it,
    as `fit` does, and cancels what has not begun.

    Raises TypeError for a run, grid or executor of another kind, where `run` does not take a setting,
    cannot be sent to a process pool, or returns what JSON has no form for; ValueError for an empty grid,
    for one setting twice, for a file that is damaged or no store; FileNotFoundError where the store's
    folder does not exist; RuntimeError where another sweep is using the store, or the executor breaks down.

    >>> def mean(sigma: float) -> dict:
    ...     return {"mean": (sigma * torch.randn(100)).mean().item()}
    >>> runs = sweep(mean, {"sigma": [0.5, 1.0]}, progress=False)
    >>> [run.setting for run in runs]
    [{'sigma': 0.5}, {'sigma': 1.0}]
    >>> table = [{**run.setting, **run.result} for run in runs]  # or pandas.DataFrame(table)
    >>> again = sweep(mean, [{"sigma": 1.0}], progress=False)
    >>> again[0].result == runs[1].result
    True
    """
    settings = settings_of(grid)
    _expect_fits(run, settings)
    _expect_executor(executor, run)
    with nullcontext() if store is None else Store(store) as kept:
        done = {} if kept is None else {key: it for key, it in kept.runs.items() if not (retry and it.error)}
        missing = [setting for key, setting in settings.items() if key not in done]
        if kept is not None and missing:
            kept.begin(_about(run))
        failed = 0
        with closing(_finished(run, missing, executor)) as finished, _bar(settings, missing, progress) as bar:
            for one in finished:
                if kept is not None:
                    kept.add(one)
                done[canonical(one.setting)] = one
                if one.error:
                    failed += 1
                    bar.set_postfix(failed=failed, refresh=False)
                bar.update()
    return [done[key] for key in settings]


# the runs


def _finished(run: Callable, settings: list[dict], executor: Executor | None) -> Iterator[Run]:
    """The runs as they end. Whatever stops this early cancels those that have not begun."""
    if executor is None:
        yield from (_perform(run, setting) for setting in settings)
        return
    waiting, flying = iter(settings), set()
    try:
        while True:
            for setting in islice(waiting, IN_FLIGHT - len(flying)):
                flying.add(_submit(executor, run, setting))
            if not flying:
                return
            ended, flying = wait(flying, return_when=FIRST_COMPLETED)
            for future in sorted(ended, key=_went_wrong):  # first what can be kept
                yield _outcome(future)
    except KeyboardInterrupt:
        yield from (future.result() for future in flying if future.done() and not _went_wrong(future))
        raise
    finally:
        for future in flying:
            future.cancel()


def _submit(executor: Executor, run: Callable, setting: dict) -> Future:
    """The run's future; it has an error where the executor refuses, so that what has ended is kept first."""
    try:
        return executor.submit(_perform, run, setting, uuid4().hex)
    except Exception as error:
        refused = Future()
        refused.set_exception(error)
        return refused


def _went_wrong(future: Future) -> bool:
    return future.cancelled() or future.exception() is not None


def _outcome(future: Future) -> Run:
    try:
        return future.result()
    except NotJson:
        raise
    except Exception as error:  # not the run's, which are caught where it runs
        raise RuntimeError(
            f"Expected the executor to make the runs, but it broke down ({type(error).__name__}: {error}). A "
            "worker was killed, has run out of memory, or cannot import run: new processes do not know what "
            "a notebook defines (Windows, macOS, Python 3.14), so put it in a .py file. Runs that had ended "
            "are in the store, if there is one; to go on, call sweep again with a new executor"
        ) from error


def _perform(run: Callable, setting: dict, call: str = "") -> Run:
    """One run, in whatever process; leaves the process as it was.

    call: a name of its own. Dask takes equal calls for one, and would answer a second try with the first.
    """
    seed = setting.get("seed", seed_of(setting))
    # on a CPU alone, CUDA is not woken for the sake of its generators
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    result, error = None, None
    with _turn, _interrupt_is_final(), _one_thread(), torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        begin = time.perf_counter()
        try:
            result = run(**_keywords(run, setting, seed))
        except Exception as raised:
            error = f"{type(raised).__name__}: {raised}"
        seconds = time.perf_counter() - begin
    if error is None:
        result = as_json(result, "run's result")
        if not isinstance(result, dict):
            raise NotJson(f"Expected run to return a dict, say {{'accuracy': 0.9}}, got {result!r}")
    return Run(setting, seed, result, error, seconds)


def _keywords(run: Callable, setting: dict, seed: int) -> dict:
    """What `run` is called with: a copy, which it may change, and its seed if it has a place for one."""
    wanted = {"seed": seed} if "seed" in inspect.signature(run).parameters else {}
    return wanted | copy.deepcopy(setting)


@contextmanager
def _one_thread() -> Iterator[None]:
    """As many workers as cores then keep every core busy, and none twice; and sums have one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _interrupt_is_final() -> Iterator[None]:
    """Ctrl-C stops the sweep even where the run catches it: half a training is not a result."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield  # no signal gets here
        return
    seen = []

    def note(number: int, frame: object) -> None:
        seen.append(number)
        before(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if seen:
        raise KeyboardInterrupt


# what goes with them


def _bar(settings: Mapping, missing: list, progress: bool):
    from tqdm.auto import tqdm  # here, because in a notebook it brings ipywidgets along

    total, before = len(settings), len(settings) - len(missing)
    return tqdm(desc="sweep", unit="run", total=total, initial=before, disable=not progress)


def _about(run: Callable) -> dict:
    """What is needed to make the runs again."""
    from gaussreg_lab import __version__

    function = getattr(run, "func", run)  # of a functools.partial
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return {
        "run": f"{function.__module__}.{name}",
        "gaussreg_lab": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


# what was asked for


def _expect_fits(run: Callable, settings: Mapping[str, dict]) -> None:
    if not callable(run):
        raise TypeError(f"Expected run to be a function of keywords, got {run!r}")
    signature = inspect.signature(run)
    for setting in settings.values():
        try:
            signature.bind(**_keywords(run, setting, seed=0))
        except TypeError as error:
            raise TypeError(f"Expected run to take the setting {setting} as keywords, got: {error}") from None


def _expect_executor(executor: Executor | None, run: Callable) -> None:
    if executor is None:
        return
    if not isinstance(executor, Executor):
        raise TypeError(
            "Expected executor to be one of concurrent.futures, say ProcessPoolExecutor(2), or "
            f"client.get_executor() of Dask, got {executor!r}"
        )
    from concurrent.futures import ProcessPoolExecutor  # loads multiprocessing

    if isinstance(executor, ProcessPoolExecutor):
        try:
            pickle.dumps(run)
        except Exception as error:  # PicklingError, AttributeError, TypeError: it depends
            raise TypeError(
                "Expected run to be a function that other processes can import, got one that cannot be "
                f"pickled ({error}); write it with def at the top of a .py file, not inside a function"
            ) from error
