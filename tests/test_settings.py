"""Settings: every combination once, one text and one seed in any order, errors that name the argument."""

import hashlib
import json
import os
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gaussreg_lab.settings import NotJson, as_json, canonical, seed_of, settings_of

ROOT = Path(__file__).parent.parent
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
SETTINGS = st.dictionaries(st.text(), PLAIN, max_size=4)


def test_a_dict_of_lists_gives_all_combinations_the_last_name_changing_fastest():
    grid = {"sigma": [0.0, 0.5], "caps": (True, False), "seed": range(3)}
    wanted = [
        {"sigma": sigma, "caps": caps, "seed": seed}
        for sigma in (0.0, 0.5)
        for caps in (True, False)
        for seed in (0, 1, 2)
    ]
    assert list(settings_of(grid).values()) == wanted


def test_a_list_of_settings_is_taken_as_it_is_but_for_tuples():
    given_list = [{"sizes": (2, 16, 2)}, {}, OrderedDict(sizes=[2, 2])]
    assert list(settings_of(given_list).values()) == [{"sizes": [2, 16, 2]}, {}, {"sizes": [2, 2]}]


def test_a_setting_is_a_copy():
    grid = [{"sizes": [2, 16, 2]}]
    (setting,) = settings_of(grid).values()
    setting["sizes"].append(7)
    assert grid == [{"sizes": [2, 16, 2]}]


@given(SETTINGS, st.randoms(use_true_random=False))
def test_text_and_seed_do_not_depend_on_the_order_of_names(setting, chance):
    names = list(setting)
    chance.shuffle(names)
    shuffled = {name: setting[name] for name in names}
    assert canonical(shuffled) == canonical(setting)
    assert seed_of(shuffled) == seed_of(setting)


@given(SETTINGS, SETTINGS)
def test_different_settings_have_different_texts(one, other):
    def kinds(value):  # as Python sees it, 1 == 1.0 == True and 0.0 == -0.0
        if isinstance(value, dict):
            return {name: kinds(item) for name, item in value.items()}
        if isinstance(value, list):
            return [kinds(item) for item in value]
        return type(value).__name__, repr(value)

    assert (canonical(one) == canonical(other)) == (kinds(one) == kinds(other))


def test_a_seed_is_the_beginning_of_a_hash_of_the_text():
    digits = hashlib.sha256(b'{"caps":true,"name":"\\u03c3","sigma":0.5}').hexdigest()
    assert seed_of({"sigma": 0.5, "name": "σ", "caps": True}) == int(digits[:8], 16)


def test_seeds_do_not_depend_on_the_hash_seed_of_the_process():
    program = "from gaussreg_lab import seed_of; print(seed_of({'sigma': 0.5, 'name': 'σ', 'caps': [True]}))"
    printed = set()
    for hash_seed in ("0", "1", "12345"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", program]
        ran = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
        printed.add(ran.stdout.strip())
    assert printed == {str(seed_of({"caps": [True], "sigma": 0.5, "name": "σ"}))}


def test_seeds_of_neighbours_differ_and_fill_the_range():
    seeds = [seed_of({"index": index}) for index in range(2000)]
    assert len(set(seeds)) == 2000
    assert all(0 <= seed < 2**32 for seed in seeds)
    mean = sum(seeds) / len(seeds) / 2**32
    assert abs(mean - 0.5) < 4.5 / (12 * 2000) ** 0.5  # of a uniform distribution


@pytest.mark.parametrize(
    ("grid", "kind", "message"),
    [
        ({}, ValueError, "Expected grid to have at least one setting, got {}"),
        ([], ValueError, r"Expected grid to have at least one setting, got \[\]"),
        ({"sigma": [], "caps": [1]}, ValueError, "at least one setting, got .*'sigma': "),
        ({"sigma": 0.5}, TypeError, r"Expected grid\['sigma'\] to be a list of values, got 0.5"),
        ({"name": "abc"}, TypeError, r"Expected grid\['name'\] to be a list of values, got 'abc'"),
        ("abc", TypeError, "Expected grid to be a dict of lists or a list of dicts, got str"),
        (None, TypeError, "Expected grid to be a dict of lists or a list of dicts, got NoneType"),
        ([{}, 3], TypeError, r"Expected grid\[1\] to be a dict of keywords, got 3"),
        ([{"a": 1}, {"a": 1}], ValueError, "every setting of grid once, got {'a': 1} twice.*'seed': range"),
        ({"a": [1, 2, 1]}, ValueError, "got {'a': 1} twice"),
        ([{"a": {1}}], TypeError, r"Expected setting\['a'\] to be a number, .*got set"),
        ([{"a": [0, torch.ones(2)]}], TypeError, r"setting\['a'\]\[1\] .*got Tensor; write .tolist\(\)"),
        ([{"a": {2: 3}}], TypeError, r"Expected setting\['a'\] to have strings as keys, got 2"),
        ([{"seed": -1}], ValueError, r"Expected 'seed' in a setting to be a whole number .*got -1"),
        ([{"seed": 2**63}], ValueError, "Expected 'seed'"),
        ([{"seed": 1.0}], ValueError, "Expected 'seed' .*got 1.0"),
        ([{"seed": True}], ValueError, "Expected 'seed' .*got True"),
    ],
)
def test_a_wrong_grid_is_refused(grid, kind, message):
    with pytest.raises(kind, match=message):
        settings_of(grid)


def test_settings_that_python_calls_equal_may_differ():
    grid = [{"a": 1}, {"a": 1.0}, {"a": True}]
    assert [type(setting["a"]) for setting in settings_of(grid).values()] == [int, float, bool]


@given(PLAIN)
def test_plain_values_come_back_as_from_a_file(value):
    assert as_json(value, "value") == json.loads(json.dumps(value))


def test_numbers_of_numpy_that_are_floats_become_floats_and_others_are_refused():
    assert type(as_json(np.float64(0.1), "value")) is float
    with pytest.raises(NotJson, match=r"got int64; write .tolist\(\)"):
        as_json(np.int64(1), "value")
