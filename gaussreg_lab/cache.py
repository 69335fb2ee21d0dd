"""What took long to compute, kept on disk under a name made of all that it depends on.

    name of the file = SHA-256 of (the function, its arguments, the course's code behind it, torch's version)

So another setting, other data or another line of code is another name, and nothing is ever out of date. A
file is written whole or not at all, and begins with the checksum of the rest: one that was cut short or
changed is noticed and made anew. Two kernels that compute the same both write the same.

Restart the kernel after editing the course's code: Python goes on with the old one, and the name is made of
what the files say when they are first asked.

Lesson: notebooks/07_robustness.ipynb
"""

import ast
import hashlib
import importlib.util
import io
import json
import os
import platform
import tempfile
import time
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor

from gaussreg_lab.places import data_folder, from_a_wheel, own_folder

COURSE = "gaussreg_lab"
KNOWN = ("torch", "math", "builtins")  # by their names alone: torch's version is part of the key
MARK = b"gaussreg_lab cache 1 "
SUFFIX = ".cache"
MOST_FILES = 1000  # the folder keeps the newest ones
A_DAY = 24 * 3600


def cached(make: partial, folder: str | Path | None = None) -> object:
    """`make()`, or what it returned before, with the same arguments and the same code.

    make: functools.partial of a function of the course and all its arguments; it returns numbers, words and
    tensors, alone or in lists, tuples and dicts. Where an argument's code cannot be known, a function of the
    notebook say, nothing is kept and make() is called every time.
    folder: by default `cache_folder()`. One that cannot be written costs time and warns, no more.
    Raises TypeError for something else than a partial or for a result that cannot be kept.

    >>> import math
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [cached(partial(math.sqrt, 2.25), folder), len(list(Path(folder).iterdir()))]
    [1.5, 1]
    """
    if not isinstance(make, partial):
        raise TypeError(f"Expected a functools.partial of a function and its arguments, got {make!r}")
    try:
        key = key_of(make)
    except TypeError:
        return make()
    file = (cache_folder() if folder is None else Path(folder)) / f"{make.func.__name__}-{key[:32]}{SUFFIX}"
    found = _read(file)
    if found is None:
        found = (make(),)
        _write(file, _packed(found))
    return found[0]


def cache_folder() -> Path:
    """Where results are kept: the course's data/cache, or the user's own cache where that is read-only.

    >>> cache_folder().name in ("cache", "gaussreg_lab")
    True
    """
    beside = data_folder()
    may_be_filled = (beside / "digits.npz").exists() and os.access(beside, os.W_OK)
    return beside / "cache" if may_be_filled and not from_a_wheel() else own_folder()


def key_of(thing: object) -> str:
    """SHA-256, in hexadecimal, of all that a result depends on. Raises TypeError as `described`.

    >>> key_of(0.5) == key_of(0.5), key_of(0.5) == key_of(0.25)
    (True, False)
    """
    everything = [described(thing), torch.__version__, platform.machine()]
    return hashlib.sha256(json.dumps(everything).encode()).hexdigest()


def described(thing: object) -> object:
    """A value in terms of JSON, different for different values, and the same in every process.

    Numbers, words, lists, tuples, dicts, dataclasses, tensors by their bytes; functions and classes of the
    course by their name and all the course's code behind them, those of torch by their name; partials.
    Raises TypeError for anything else, and for functions within functions, whose code has no name.

    >>> described({"sigma": 0.5, "sizes": (1, 2)})
    ['dict', [['sigma', 0.5], ['sizes', ['tuple', [1, 2]]]]]
    """
    if thing is None or isinstance(thing, bool | int | str):
        return thing
    if isinstance(thing, float):
        return thing if thing - thing == 0 else ["float", repr(thing)]  # JSON knows neither inf nor nan
    if isinstance(thing, Tensor):
        return _described_tensor(thing)
    kind = type(thing).__qualname__
    if isinstance(thing, partial):
        return [kind, described(thing.func), described(thing.args), described(thing.keywords)]
    if is_dataclass(thing) and not isinstance(thing, type):
        named = {field.name: getattr(thing, field.name) for field in fields(thing)}
        return [described(type(thing)), described(named)]
    if isinstance(thing, Mapping):
        return [kind, [[described(name), described(it)] for name, it in thing.items()]]
    if isinstance(thing, list | tuple):
        return [kind, [described(it) for it in thing]]
    return _described_function(thing)


def _described_tensor(tensor: Tensor) -> list:
    raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return ["tensor", str(tensor.dtype), list(tensor.shape), hashlib.sha256(raw).hexdigest()]


def _described_function(function: object) -> list:
    name, module = getattr(function, "__qualname__", ""), getattr(function, "__module__", None) or ""
    if not name.isidentifier():  # <lambda>, or inside another function
        raise TypeError(f"Expected a value whose code can be known, got {function!r}")
    if module == COURSE or module.startswith(f"{COURSE}."):
        return ["function", module, name, code_behind(module)]
    if module.split(".")[0] in KNOWN:
        return ["function", module, name]
    raise TypeError(f"Expected a function of the course or of torch, got {function!r} of {module!r}")


@cache
def code_behind(module: str) -> str:
    """SHA-256 of the source of a module of the course and of all that it imports from the course.

    >>> code_behind("gaussreg_lab.losses") == code_behind("gaussreg_lab.quadrature")
    False
    """
    sources: dict[str, str] = {}
    todo = [module]
    while todo:
        name = todo.pop()
        if name not in sources:
            sources[name] = importlib.util.find_spec(name).loader.get_source(name)
            todo.extend(_imported(sources[name]))
    return hashlib.sha256(json.dumps(sorted(sources.items())).encode()).hexdigest()


def _imported(source: str) -> Iterable[str]:
    for node in ast.walk(ast.parse(source)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) else []
        yield from (name for name in names if name.startswith(f"{COURSE}."))


def _packed(result: tuple) -> bytes:
    stream = io.BytesIO()
    try:
        torch.save(result, stream)
        torch.load(io.BytesIO(stream.getvalue()), weights_only=True)  # or it could be kept, but never used
    except Exception as error:  # pickle has its own exception for each way to fail
        raise TypeError(f"Expected numbers, words and tensors, to be kept, got {result[0]!r}") from error
    return stream.getvalue()


def _read(file: Path) -> tuple | None:
    """What is in the file, or None where there is none, or none that is whole."""
    try:
        content = file.read_bytes()
        head, _, body = content.partition(b"\n")
        if head != MARK + hashlib.sha256(body).hexdigest().encode():
            return None
        found = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
        os.utime(file)  # used just now: among the last to go
    except Exception:  # not there, not readable, not ours: in each case it is made anew
        return None
    return found if isinstance(found, tuple) and len(found) == 1 else None


def _write(file: Path, body: bytes) -> None:
    """The whole file or nothing: whoever reads meanwhile sees the old one, or none."""
    part = None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".part", delete=False) as stream:
            part = Path(stream.name)
            stream.write(MARK + hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
        os.replace(part, file)
        _drop_oldest(file.parent)
    except OSError as error:
        warnings.warn(
            f"Could not keep a result in {file.parent} ({error}), so it will be computed again; pass folder= "
            "one that can be written",
            stacklevel=3,
        )
    finally:
        if part is not None:
            part.unlink(missing_ok=True)  # still there only where something went wrong


def _drop_oldest(folder: Path) -> None:
    by_age = sorted(folder.glob(f"*{SUFFIX}"), key=_last_used, reverse=True)
    left_over = [it for it in folder.glob("*.part") if 0 < _last_used(it) < time.time() - A_DAY]  # of a crash
    for file in [*by_age[MOST_FILES:], *left_over]:
        file.unlink(missing_ok=True)


def _last_used(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:  # another kernel has dropped it meanwhile
        return 0.0
