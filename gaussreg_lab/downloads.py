"""A data set of torchvision: read from disk, or fetched whole or not at all.

torchvision knows the addresses, the checksums and the file formats. What is added here: a download
arrives in a folder of its own (`.incoming`) and is moved over when it is complete and readable, so
a failure leaves what was there untouched; what did arrive is kept for the next try; and every way
to fail says what to do.

Lesson: notebooks/00_start_here.ipynb
"""

import shutil
from http.client import HTTPException
from pathlib import Path

from torch.utils.data import Dataset

# how torchvision's readers complain about files that are not what they should be
SIGNS_OF_DAMAGE = (
    AssertionError,
    EOFError,
    IndexError,
    KeyError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


def read(kind: type, root: Path, download: bool) -> tuple[Dataset, Dataset]:
    """The training and the test part of a data set class of torchvision, found in `root`.

    download: fetch what is missing or damaged, with a progress bar.
    Raises FileNotFoundError where the data is missing and not to be downloaded, ConnectionError
    where it cannot be downloaded, ValueError where it is damaged.
    """
    if not download:
        return _parts(kind, root)
    try:
        return _parts(kind, root)
    except (FileNotFoundError, ValueError):
        _download(kind, root)
        return _parts(kind, root)


def _parts(kind: type, root: Path) -> tuple[Dataset, Dataset]:
    return _part(kind, root, train=True), _part(kind, root, train=False)


def _part(kind: type, root: Path, train: bool) -> Dataset:
    name = kind.__name__
    try:
        dataset = kind(root, train=train)
        if len(dataset.data) != len(dataset.targets):
            raise ValueError(f"{len(dataset.data)} images, {len(dataset.targets)} labels")
    except SIGNS_OF_DAMAGE as error:
        if _is_missing(kind, root, error):
            raise FileNotFoundError(
                f"Expected {name} in {root}, found it missing or incomplete; pass root= the folder that "
                "holds it, or download=True to fetch it once (digits() needs neither)"
            ) from error
        raise ValueError(
            f"Expected {name} in {root}, got damaged files ({error}); delete them and pass download=True"
        ) from error
    return dataset


def _is_missing(kind: type, root: Path, error: Exception) -> bool:
    if "not found or corrupted" in str(error):  # CIFAR-10 says both at once
        return not (root / kind.base_folder).exists()
    return "not found" in str(error).lower()


def _download(kind: type, root: Path) -> None:
    incoming = root / ".incoming" / kind.__name__
    try:
        _fetch(kind, root, incoming)
    except ValueError:  # what an earlier try has left there cannot be read: begin anew
        shutil.rmtree(incoming)
        _fetch(kind, root, incoming)
    shutil.copytree(incoming, root, dirs_exist_ok=True)
    shutil.rmtree(incoming)
    if not any(incoming.parent.iterdir()):
        incoming.parent.rmdir()


def _fetch(kind: type, root: Path, incoming: Path) -> None:
    """Let torchvision fetch what `incoming` lacks, and see that it can be read."""
    incoming.mkdir(parents=True, exist_ok=True)
    try:
        kind(incoming, download=True)
    except (OSError, HTTPException, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _says_download(error):
            raise ValueError(str(error)) from error  # it arrived, but cannot be read
        raise ConnectionError(
            f"Could not download {kind.__name__} into {root}: {error}\n"
            "Without a network use digits(), or copy the data set's folder there from another machine; "
            "what arrived so far is kept, so calling again goes on from there"
        ) from error
    except SIGNS_OF_DAMAGE as error:
        raise ValueError(str(error)) from error
    _parts(kind, incoming)


def _says_download(error: RuntimeError) -> bool:
    return "downloading" in str(error).lower() or "not found or corrupted" in str(error).lower()
