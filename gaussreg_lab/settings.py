"""Settings: what the runs of a sweep are called with.

A setting is a dict of plain JSON, say {"sigma": 0.5, "caps": true}. So it can be written to a file and sent
to another process, and it has one text, `canonical(setting)`, whatever the order of its names. From that
text comes its seed, by a hash that is the same in every process (Python's own is not):

    seed = first 4 bytes of SHA-256(canonical(setting))

Lesson: notebooks/08_explore.ipynb
"""

import json
from collections.abc import Mapping
from hashlib import sha256
from itertools import product


class NotJson(TypeError):
    """A value that JSON has no form for."""


def settings_of(grid: Mapping[str, list] | list[dict]) -> dict[str, dict]:
    """The settings of a grid, in its order, by their canonical text.

    grid: a dict of lists, of which all combinations are made, the last name changing fastest; or a list of
    settings. Raises TypeError for anything else, and where a setting is not plain JSON; ValueError for a grid
    without settings, for one setting twice and for a "seed" that is no whole number in [0, 2^63).

    >>> list(settings_of({"sigma": [0, 0.5], "caps": [True]}).values())
    [{'sigma': 0, 'caps': True}, {'sigma': 0.5, 'caps': True}]
    """
    if isinstance(grid, Mapping):
        for name, values in grid.items():
            if not isinstance(values, list | tuple | range):
                raise TypeError(f"Expected grid[{name!r}] to be a list of values, got {values!r}")
        every = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())] if grid else []
    elif isinstance(grid, list | tuple):
        every = list(grid)
    else:
        raise TypeError(f"Expected grid to be a dict of lists or a list of dicts, got {type(grid).__name__}")
    if not every:
        raise ValueError(f"Expected grid to have at least one setting, got {grid!r}")
    settings = {}
    for index, given in enumerate(every):
        if not isinstance(given, dict):
            raise TypeError(f"Expected grid[{index}] to be a dict of keywords, got {given!r}")
        setting = as_json(given, "setting")
        key = canonical(setting)
        if key in settings:
            raise ValueError(
                f"Expected every setting of grid once, got {setting} twice; to repeat, add 'seed': range(5)"
            )
        _expect_seed(setting)
        settings[key] = setting
    return settings


def _expect_seed(setting: dict) -> None:
    seed = setting.get("seed", 0)
    if not (type(seed) is int and 0 <= seed < 2**63):
        raise ValueError(f"Expected 'seed' in a setting to be a whole number in [0, 2^63), got {seed!r}")


def canonical(setting: dict) -> str:
    """A setting as text: the same for the same names and values, in whatever order they were given.

    >>> canonical({"sigma": 0.5, "caps": True}) == canonical({"caps": True, "sigma": 0.5})
    True
    """
    return json.dumps(setting, sort_keys=True, separators=(",", ":"))


def seed_of(setting: dict) -> int:
    """A seed in [0, 2^32) that depends on a setting's names and values, and on nothing else.

    >>> seed_of({"sigma": 0.5, "caps": True}) == seed_of({"caps": True, "sigma": 0.5})
    True
    """
    return int.from_bytes(sha256(canonical(setting).encode()).digest()[:4], "big")


def as_json(value: object, name: str) -> object:
    """A copy of a value as a JSON file would give it back: tuples become lists.

    name: what the error calls it. Raises NotJson, a TypeError, for anything but numbers, strings, booleans,
    None, and lists and dicts of these with strings as keys.

    >>> as_json({"curve": (0.5, 1)}, "result")
    {'curve': [0.5, 1]}
    """
    _expect_json(value, name)
    return json.loads(json.dumps(value))


def _expect_json(value: object, name: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise NotJson(f"Expected {name} to have strings as keys, got {key!r}")
            _expect_json(item, f"{name}[{key!r}]")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _expect_json(item, f"{name}[{index}]")
    elif not (value is None or isinstance(value, bool | int | float | str)):
        raise NotJson(
            f"Expected {name} to be a number, string, boolean, None, or a list or dict of these, got "
            f"{type(value).__name__}" + ("; write .tolist()" if hasattr(value, "tolist") else "")
        )
