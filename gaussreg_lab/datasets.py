"""The data of the course: images in [0, 1] with a fixed train/test split, and 2-D toys.

    digits()                             1,797 handwritten digits, 8x8, shipped with the course
    mnist(), fashion_mnist(), cifar10()  by torchvision, from a local folder or downloaded on request
    two_moons(), two_rings()             points in the unit square, two classes

Everything comes as a `Split` of two `Images`, so that one line unpacks it:

    (x_train, y_train), (x_test, y_test) = digits()

Pixels run from 0 to 1, and a noise level sigma is a standard deviation on that scale. Nothing is
normalized here: that is the first layer of each model, so that no other code sees another unit.

Source of the digits: data/README.md
Lesson: notebooks/00_start_here.ipynb
"""

import hashlib
import io
import math
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from gaussreg_lab.downloads import read
from gaussreg_lab.places import data_folder, from_a_wheel, own_folder

DIGITS_SHA256 = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"  # images, then labels


class Images(NamedTuple):
    """Pictures x, float32 in [0, 1] and of shape (count, channels, height, width), with labels y."""

    x: Tensor
    y: Tensor


class Split(NamedTuple):
    """The pictures to learn from and those to be judged by."""

    train: Images
    test: Images


def digits() -> Split:
    """The 8x8 handwritten digits that travel with the course; needs no network.

    1,442 training and 355 test images of shape (1, 8, 8); within each class every fifth image
    is a test image, so the split is stratified and the same everywhere.
    Raises FileNotFoundError where the file is missing, ValueError where it is damaged.

    >>> (x, y), test = digits()
    >>> x.shape, y[:5]
    (torch.Size([1442, 1, 8, 8]), tensor([0, 1, 2, 3, 4]))
    """
    images, labels = _read_digits(_digits_file())
    x, y = torch.from_numpy(images)[:, None] / 16.0, torch.from_numpy(labels).long()
    held_out = _rank_within_class(y) % 5 == 4
    return Split(Images(x[~held_out], y[~held_out]), Images(x[held_out], y[held_out]))


def mnist(root: str | Path | None = None, download: bool = False, train_size: int | None = None) -> Split:
    """MNIST: 60,000 training and 10,000 test images of shape (1, 28, 28).

    root: folder that holds, or shall hold, torchvision's `MNIST` folder; by default the course's
    own data folder in a clone, and ~/.cache/gaussreg_lab/data after installation from a wheel.
    download: fetch what is missing, with a progress bar and a checksum. A download that fails
    leaves what was there untouched, and the next one goes on where it ended.
    train_size: keep that many training images, equally many of each class, first come first.

    Raises FileNotFoundError where the data is missing and not to be downloaded, ConnectionError
    where it cannot be downloaded, ValueError where it is damaged or train_size does not fit.
    """
    from torchvision.datasets import MNIST

    return _torchvision_split(MNIST, root, download, train_size)


def fashion_mnist(
    root: str | Path | None = None, download: bool = False, train_size: int | None = None
) -> Split:
    """Fashion-MNIST: 60,000 and 10,000 images of clothes, shape (1, 28, 28). Otherwise as `mnist`."""
    from torchvision.datasets import FashionMNIST

    return _torchvision_split(FashionMNIST, root, download, train_size)


def cifar10(root: str | Path | None = None, download: bool = False, train_size: int | None = None) -> Split:
    """CIFAR-10: 50,000 and 10,000 colour images of shape (3, 32, 32). Otherwise as `mnist`.

    All of it is 740 MB as float32; train_size keeps a lesson within a small machine's memory.
    """
    from torchvision.datasets import CIFAR10

    return _torchvision_split(CIFAR10, root, download, train_size)


def two_moons(count: int = 400, noise: float = 0.03, seed: int = 0) -> Split:
    """Two interleaved half circles in the unit square, one class each; half train, half test.

    count: points in all, a multiple of 4. noise: standard deviation of their scatter, in the same
    units as sigma. x has shape (count / 2, 2).

    >>> two_moons(count=8).train.x.shape
    torch.Size([4, 2])
    """
    angle = math.pi * torch.linspace(0, 1, _points_per_class(count))
    upper = torch.stack([0.35 + 0.25 * angle.cos(), 0.42 + 0.25 * angle.sin()], dim=1)
    lower = torch.stack([0.65 - 0.25 * angle.cos(), 0.58 - 0.25 * angle.sin()], dim=1)
    return _toy(upper, lower, noise, seed)


def two_rings(count: int = 400, noise: float = 0.03, seed: int = 0) -> Split:
    """A ring inside a ring in the unit square, one class each. Otherwise as `two_moons`.

    >>> two_rings().test.y.bincount()
    tensor([100, 100])
    """
    angle = 2 * math.pi * torch.linspace(0, 1, _points_per_class(count) + 1)[:-1]
    circle = torch.stack([angle.cos(), angle.sin()], dim=1)
    return _toy(0.5 + 0.15 * circle, 0.5 + 0.35 * circle, noise, seed)


def batches(images: Images, size: int = 128, seed: int | None = 0) -> Iterable[tuple[Tensor, Tensor]]:
    """Mini-batches (x, y) of at most `size`, shuffled anew at each pass; or in order with seed=None.

    The shuffling has a generator of its own, so a run can be repeated whatever else draws numbers.

    >>> len(batches(digits().train, size=128))
    12
    """
    expect_pairs(*images)
    data = TensorDataset(*images)
    order = range(len(data))
    if seed is not None:
        order = RandomSampler(data, generator=torch.Generator().manual_seed(seed))
    # a whole batch is one indexing operation: a hundred times faster than image by image
    by_batch = BatchSampler(order, size, drop_last=False)
    # the second generator is for worker processes we do not have, drawn from the global one otherwise
    return DataLoader(data, sampler=by_batch, batch_size=None, generator=torch.Generator())


def expect_pairs(x: Tensor, y: Tensor) -> None:
    """Raise ValueError unless every image in x has its label in y, and there is one at least."""
    if len(x) != len(y) or len(x) == 0:
        raise ValueError(f"Expected as many images as labels and at least one, got {len(x)} and {len(y)}")


def _digits_file() -> Path:
    file = data_folder() / "digits.npz"
    if not file.exists():
        raise FileNotFoundError(
            f"Expected the course's digits at {file}, found nothing; take data/digits.npz from the "
            "repository again"
        )
    return file


def _read_digits(file: Path) -> tuple[np.ndarray, np.ndarray]:
    damaged = f"Expected the course's digits in {file}, got a damaged file; take it from the repository again"
    try:
        with np.load(io.BytesIO(file.read_bytes())) as arrays:  # np.load would leave a damaged file open
            images, labels = arrays["images"], arrays["labels"]
    except Exception as error:  # numpy and zipfile have a dozen ways to say that a file is damaged
        raise ValueError(f"{damaged} ({error})") from error
    if hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest() != DIGITS_SHA256:
        raise ValueError(f"{damaged} (its checksum differs)")
    return images, labels


def _rank_within_class(y: Tensor) -> Tensor:
    """For each label, how many equal ones stand before it."""
    one_hot = torch.nn.functional.one_hot(y.long())
    return one_hot.cumsum(dim=0).gather(1, y.long()[:, None]).squeeze(1) - 1


def _torchvision_split(kind: type, root: str | Path | None, download: bool, train_size: int | None) -> Split:
    root = _own_data() if root is None else Path(root).expanduser()
    train, test = (_as_images(dataset) for dataset in read(kind, root, download))
    return Split(train if train_size is None else _first_of_each_class(train, train_size), test)


def _own_data() -> Path:
    return own_folder() / "data" if from_a_wheel() else data_folder()


def _as_images(dataset) -> Images:
    pixels = torch.as_tensor(dataset.data)  # uint8; (count, h, w), or CIFAR's (count, h, w, 3)
    x = pixels[:, None] if pixels.dim() == 3 else pixels.permute(0, 3, 1, 2)
    return Images(x.contiguous() / 255.0, torch.as_tensor(dataset.targets).long())


def _first_of_each_class(images: Images, size: int) -> Images:
    rank, counts = _rank_within_class(images.y), images.y.bincount()
    each, left_over = divmod(size, len(counts))
    if left_over or not 1 <= each <= int(counts.min()):
        largest = len(counts) * int(counts.min())
        raise ValueError(f"Expected train_size a multiple of {len(counts)} up to {largest}, got {size}")
    return Images(images.x[rank < each], images.y[rank < each])


def _points_per_class(count: int) -> int:
    if count < 4 or count % 4:
        raise ValueError(f"Expected count to be a positive multiple of 4, got {count}")
    return count // 2


def _toy(first: Tensor, second: Tensor, noise: float, seed: int) -> Split:
    if not noise >= 0:
        raise ValueError(f"Expected noise >= 0, got {noise}")
    x = torch.cat([first, second])
    x = x + noise * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
    y = torch.arange(len(x)) // len(first)
    train = torch.arange(len(x)) % 2 == 0
    return Split(Images(x[train], y[train]), Images(x[~train], y[~train]))
