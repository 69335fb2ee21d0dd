"""The store: what was written comes back, a cut costs one line, damage is told, one holder at a time."""

import json
import math
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaussreg_lab import store as store_module
from gaussreg_lab.store import Run, Store, stored_runs

ROOT = Path(__file__).parent.parent
ABOUT = {"run": "by hand", "torch": "2.9"}
RUNS = [
    Run({"sigma": 0.5, "name": "σ"}, 1, {"accuracy": 0.1, "curve": [1, math.inf]}, None, 1.5),
    Run({"sigma": 1.0, "name": "\n"}, 2, None, "ValueError: two\nlines", 0.25),
    Run({"sigma": 1, "caps": {"bound": -math.inf}}, 2**63 - 1, {}, None, 0.0),
]
posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "runs.jsonl"


def fill(path: Path) -> bytes:
    with Store(path) as store:
        store.begin(ABOUT)
        for run in RUNS:
            store.add(run)
    return path.read_bytes()


def test_runs_come_back(path):
    fill(path)
    assert stored_runs(path) == RUNS
    with Store(path) as store:
        assert list(store.runs.values()) == RUNS


def test_a_line_is_on_the_disk_when_add_returns(path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(path.read_bytes()))
    content = fill(path)
    lines = content.splitlines(keepends=True)
    assert synced == [b"".join(lines[:count]) for count in (1, 2, 3, 4)]


def test_every_line_is_json_and_the_first_says_how_the_runs_were_made(path):
    about, *lines = [json.loads(line) for line in fill(path).decode("ascii").splitlines()]
    assert about == {"about": ABOUT}
    assert [Run(**line) for line in lines] == RUNS


@given(st.floats(), st.floats(width=32))
def test_numbers_come_back_bit_for_bit(tmp_path_factory, wide, narrow):
    path = tmp_path_factory.mktemp("bits") / "runs.jsonl"
    with Store(path) as store:
        store.begin(ABOUT)
        store.add(Run({}, 0, {"wide": wide, "narrow": narrow}, None, 0.0))
    (run,) = stored_runs(path)
    for got, wanted in ((run.result["wide"], wide), (run.result["narrow"], narrow)):
        if math.isnan(wanted):
            assert math.isnan(got)
        else:
            assert struct.pack("d", got) == struct.pack("d", wanted)


def test_of_several_runs_with_one_setting_the_last_counts(path):
    fill(path)
    again = RUNS[1]._replace(setting={"name": "\n", "sigma": 1.0}, result={"accuracy": 1.0}, error=None)
    with Store(path) as store:
        store.add(again)
        assert len(store.runs) == 3
    assert stored_runs(path) == [RUNS[0], again, RUNS[2]]


def test_a_file_cut_anywhere_loses_the_cut_line_and_no_other(path):
    content = fill(path)
    ends = [end for end, byte in enumerate(content, start=1) if byte == ord("\n")]
    new = Run({"new": True}, 3, {}, None, 0.0)
    for cut in range(len(content) + 1):
        path.write_bytes(content[:cut])
        whole = [
            run for run, end in zip(RUNS, ends[1:], strict=True) if cut >= end - 1
        ]  # or but for its "\n"
        assert stored_runs(path) == whole
        assert path.read_bytes() == content[:cut]  # reading mends nothing
        with Store(path) as store:
            assert list(store.runs.values()) == whole
            if not cut:
                store.begin(ABOUT)
            store.add(new)
        if cut >= ends[0] - 1 or not cut:
            assert stored_runs(path) == [*whole, new]
            lines = path.read_bytes().splitlines()
            assert [json.loads(line).get("setting") for line in lines[1:]] == [
                run.setting for run in (*whole, new)
            ]


def test_a_tail_of_zeros_as_a_power_failure_leaves_it_is_dropped(path):
    content = fill(path)
    path.write_bytes(content + bytes(40))
    with Store(path) as store:
        assert list(store.runs.values()) == RUNS
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: line[: len(line) // 2],
        lambda line: line[1:],
        lambda line: bytes(len(line)),
        lambda line: line.replace(b'"seed"', b'"sead"'),
        lambda line: b"[1, 2]",
        lambda line: b"\xff" + line,
        lambda line: line + line,
    ],
    ids=["half", "no beginning", "zeros", "another name", "a list", "no text", "doubled"],
)
@pytest.mark.parametrize("number", [2, 3, 4])
def test_a_damaged_line_is_reported_and_nothing_changed(path, damage, number):
    lines = fill(path).splitlines()
    lines[number - 1] = damage(lines[number - 1])
    damaged = b"\n".join(lines) + b'\n{"setting": {"si'  # with a cut line at the end, too
    path.write_bytes(damaged)
    for opening in (Store, stored_runs):
        with pytest.raises(ValueError, match=rf"Expected a run in line {number} of .*runs.jsonl, got b"):
            opening(path)
    assert path.read_bytes() == damaged
    with pytest.raises(ValueError, match="damaged"):  # the first try has let go of the file
        Store(path)


def test_blank_lines_are_passed_over(path):
    content = fill(path)
    path.write_bytes(content.replace(b"\n", b"\r\n\n"))
    assert stored_runs(path) == RUNS


@pytest.mark.parametrize(
    "content",
    [
        b"x",
        b"my thesis\n",
        b"my thesis",
        b'{"a": 1}',
        b'{"a": 1}\n{"b"',
        b"[]\n",
        b"\n",
        b"\0\0",
        b'{"about": 1',
    ],
)
def test_a_file_of_another_kind_is_refused_and_left_alone(path, content):
    path.write_bytes(content)
    for opening in (Store, stored_runs):
        with pytest.raises(
            ValueError, match=r"Expected store to be a file that a sweep has made, .*got .*jsonl"
        ):
            opening(path)
    assert path.read_bytes() == content


def test_an_empty_file_is_a_store_without_runs(path):
    path.touch()
    assert stored_runs(path) == []
    fill(path)
    assert stored_runs(path) == RUNS


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"Expected store in a folder that exists, got .*nowhere/runs"
    ):
        Store(tmp_path / "nowhere" / "runs.jsonl")
    with pytest.raises(FileNotFoundError, match="nothing"):
        stored_runs(tmp_path / "nothing.jsonl")


def test_a_full_disk_is_reported(path, monkeypatch):
    with Store(path) as store:
        store._file.close()
        store._file = SimpleNamespace(write=lambda line: len(line) - 1, close=lambda: None)
        with pytest.raises(OSError, match="disk full"):
            store.begin(ABOUT)


def test_two_stores_on_one_file_are_refused_in_one_process(path):
    with Store(path) as store:
        store.begin(ABOUT)
        with pytest.raises(RuntimeError, match=r"Expected store .*runs.jsonl to be free, but another sweep"):
            Store(path)
        store.add(RUNS[0])  # the refusal has not loosened the hold
        with pytest.raises(RuntimeError, match="another sweep"):
            Store(path)
        assert stored_runs(path) == RUNS[:1]
    Store(path).close()


def holder(path: Path, then: str) -> subprocess.Popen:
    """A process that holds the store."""
    program = f"""
import os, sys, time
from gaussreg_lab.store import Store
store = Store(sys.argv[1])
{then}
print("held", os.getpid(), flush=True)
time.sleep(60)
"""
    command = [sys.executable, "-c", program, str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True)
    assert process.stdout.readline().startswith("held")
    return process


@posix
def test_a_store_is_free_again_when_its_process_was_killed(path):
    with holder(path, "") as process:
        with pytest.raises(RuntimeError, match="another sweep"):
            Store(path)
        process.kill()
        process.wait()
        Store(path).close()


@posix
def test_a_store_is_free_again_even_while_a_forked_child_lives_on(path):
    """As the workers of a process pool do, when their parent is killed."""
    with holder(path, "if not os.fork(): time.sleep(60)") as process:
        try:
            with pytest.raises(RuntimeError, match="another sweep"):
                Store(path)
            process.kill()
            process.wait()
            os.killpg(process.pid, 0)  # the child is alive
            Store(path).close()
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def test_on_windows_a_byte_is_locked(path, monkeypatch):
    asked = []

    def locking(file, mode, count):
        asked.append((os.lseek(file, 0, os.SEEK_CUR), mode, count))
        if len(asked) == 2:
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(store_module, "fcntl", None)
    monkeypatch.setattr(store_module, "msvcrt", SimpleNamespace(locking=locking, LK_NBLCK=2), raising=False)
    content = fill(path)
    with pytest.raises(RuntimeError, match="another sweep"):
        Store(path)
    assert asked == [(store_module.FAR, 2, 1)] * 2
    assert len(content) < store_module.FAR
    assert stored_runs(path) == RUNS
