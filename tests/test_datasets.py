"""The data: what comes out, how it is split, and what is said where it is missing or damaged."""

import gc
import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from gaussreg_lab import datasets, places
from gaussreg_lab.datasets import Images, batches, digits, mnist, two_moons, two_rings

both_toys = pytest.mark.parametrize("toy", [two_moons, two_rings], ids=lambda toy: toy.__name__)

# the digits


def read_by_hand() -> tuple[np.ndarray, np.ndarray]:
    file = np.load(Path(__file__).resolve().parents[1] / "data" / "digits.npz")
    return file["images"], file["labels"]


def test_digits_have_their_promised_sizes_and_types():
    for images, count in zip(digits(), (1442, 355), strict=True):
        assert images.x.shape == (count, 1, 8, 8)
        assert images.x.dtype == torch.float32
        assert images.y.shape == (count,)
        assert images.y.dtype == torch.int64


def test_digits_fill_the_range_from_zero_to_one_in_sixteenths():
    for x, _ in digits():
        assert x.min() == 0
        assert x.max() == 1
        assert (16 * x == (16 * x).round()).all()


def test_every_fifth_digit_of_a_class_is_a_test_image():
    images, labels = read_by_hand()
    seen, train, test = [0] * 10, [], []
    for index, label in enumerate(labels):
        seen[label] += 1
        (test if seen[label] % 5 == 0 else train).append(index)
    for (x, y), chosen in zip(digits(), (train, test), strict=True):
        np.testing.assert_array_equal(x[:, 0].numpy(), images[chosen] / 16)
        np.testing.assert_array_equal(y.numpy(), labels[chosen])


def test_a_fifth_of_every_class_of_digits_is_held_out():
    train, test = digits()
    held_out, everything = test.y.bincount(), train.y.bincount() + test.y.bincount()
    assert len(everything) == 10
    assert ((held_out - everything / 5).abs() < 1).all()


def test_no_digit_is_both_a_training_and_a_test_image():
    train, test = ({x.numpy().tobytes() for x in images.x} for images in digits())
    assert train.isdisjoint(test)
    assert len(train) + len(test) == 1797


def test_digits_are_the_same_at_every_call():
    for first, second in zip(digits(), digits(), strict=True):
        assert torch.equal(first.x, second.x)
        assert torch.equal(first.y, second.y)


def write_truncated(file: Path) -> None:
    file.write_bytes((Path(datasets._digits_file())).read_bytes()[:20_000])


def write_one_other_pixel(file: Path) -> None:
    images, labels = read_by_hand()
    images[1000, 4, 4] ^= 1
    np.savez_compressed(file, images=images, labels=labels)


def write_one_other_label(file: Path) -> None:
    images, labels = read_by_hand()
    labels[1000] = (labels[1000] + 1) % 10
    np.savez_compressed(file, images=images, labels=labels)


def write_no_labels(file: Path) -> None:
    np.savez_compressed(file, images=read_by_hand()[0])


def write_flipped_bits(file: Path) -> None:
    content = bytearray(Path(datasets._digits_file()).read_bytes())
    content[5000:5010] = bytes(255 - byte for byte in content[5000:5010])
    file.write_bytes(content)


def write_a_web_page(file: Path) -> None:
    file.write_text("<!DOCTYPE html><title>404</title>")


def write_nothing(file: Path) -> None:
    file.write_bytes(b"")


def write_a_single_array(file: Path) -> None:
    with file.open("wb") as opened:
        np.save(opened, read_by_hand()[0])


def write_a_zip_of_the_future(file: Path) -> None:
    content = bytearray(Path(datasets._digits_file()).read_bytes())
    content[content.index(b"PK\x01\x02") + 6] = 255  # the version of zip needed to unpack
    file.write_bytes(content)


@pytest.mark.parametrize(
    "write",
    [
        write_truncated,
        write_one_other_pixel,
        write_one_other_label,
        write_no_labels,
        write_flipped_bits,
        write_a_web_page,
        write_nothing,
        write_a_single_array,
        write_a_zip_of_the_future,
    ],
    ids=lambda write: write.__name__,
)
def test_damaged_digits_are_refused_by_the_name_of_the_file(write, tmp_path, monkeypatch):
    file = tmp_path / "digits.npz"
    write(file)
    monkeypatch.setattr(datasets, "_digits_file", lambda: file)
    with pytest.raises(
        ValueError, match=r"digits.npz, got a damaged file; take it from the repository again"
    ):
        digits()


def test_a_damaged_file_of_digits_is_closed_again(tmp_path, monkeypatch):
    file = tmp_path / "digits.npz"
    write_truncated(file)
    monkeypatch.setattr(datasets, "_digits_file", lambda: file)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(ValueError, match="damaged"):
            digits()
        gc.collect()
    assert not caught


def test_missing_digits_are_reported_with_the_place_searched(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "PACKAGE", tmp_path / "package")
    with pytest.raises(FileNotFoundError, match=re.escape(f"at {tmp_path}/data/digits.npz, found nothing")):
        digits()


@pytest.mark.parametrize("folder", ["package/data", "data"])
def test_digits_are_found_inside_the_package_and_beside_it(folder, tmp_path, monkeypatch):
    (tmp_path / folder).mkdir(parents=True)
    shutil.copy(datasets._digits_file(), tmp_path / folder)
    monkeypatch.setattr(places, "PACKAGE", tmp_path / "package")
    assert len(digits().train.x) == 1442


# the real MNIST


def test_mnist_has_seventy_thousand_images_between_zero_and_one(real_mnist):
    for images, count in zip(real_mnist, (60_000, 10_000), strict=True):
        assert images.x.shape == (count, 1, 28, 28)
        assert images.x.dtype == torch.float32
        assert (images.x.min(), images.x.max()) == (0, 1)
        assert images.y.dtype == torch.int64
        assert images.y.unique().tolist() == list(range(10))


def test_mnist_can_keep_fifty_training_images_of_each_class(shared_data, real_mnist):
    train, test = mnist(shared_data, train_size=500)
    assert train.y.bincount().tolist() == [50] * 10
    assert len(test.x) == 10_000
    first_sevens = real_mnist.train.x[real_mnist.train.y == 7][:50]
    assert torch.equal(train.x[train.y == 7], first_sevens)


# toys


@both_toys
def test_toys_are_balanced_halves_of_pairs(toy):
    for images in toy(count=40):
        assert images.x.shape == (20, 2)
        assert images.x.dtype == torch.float32
        assert images.y.bincount().tolist() == [10, 10]


@both_toys
def test_toys_lie_in_the_unit_square(toy):
    for x, _ in toy(count=4000):
        assert ((x >= 0) & (x <= 1)).all()


def test_moons_without_noise_lie_on_two_half_circles():
    for x, y in two_moons(noise=0.0):
        centre = torch.tensor([[0.35, 0.42], [0.65, 0.58]])[y]
        torch.testing.assert_close((x - centre).norm(dim=1), torch.full((200,), 0.25))
        assert (((x - centre)[:, 1] >= -1e-6) == (y == 0)).logical_or((x - centre)[:, 1].abs() < 1e-6).all()


def test_rings_without_noise_lie_on_two_circles():
    for x, y in two_rings(noise=0.0):
        torch.testing.assert_close((x - 0.5).norm(dim=1), torch.tensor([0.15, 0.35])[y])


@both_toys
def test_noise_is_the_standard_deviation_of_the_scatter(toy):
    clean, noisy = toy(count=20_000, noise=0.0), toy(count=20_000, noise=0.07)
    scatter = torch.cat([(after.x - before.x).flatten() for before, after in zip(clean, noisy, strict=True)])
    assert scatter.std().item() == pytest.approx(0.07, rel=4.5 / (2 * 40_000) ** 0.5)


@both_toys
def test_toys_of_one_seed_are_the_same_and_of_two_seeds_are_not(toy):
    assert torch.equal(toy(seed=3).train.x, toy(seed=3).train.x)
    assert not torch.equal(toy(seed=3).train.x, toy(seed=4).train.x)


@both_toys
def test_toys_do_not_touch_the_global_generator(toy):
    before = torch.get_rng_state()
    toy()
    assert torch.equal(torch.get_rng_state(), before)


@both_toys
@pytest.mark.parametrize("count", [-4, 0, 3, 6])
def test_toys_refuse_a_count_that_cannot_be_halved_twice(toy, count):
    with pytest.raises(ValueError, match=f"count to be a positive multiple of 4, got {count}"):
        toy(count=count)


@both_toys
@pytest.mark.parametrize("noise", [-0.1, float("nan")])
def test_toys_refuse_negative_noise(toy, noise):
    with pytest.raises(ValueError, match=f"Expected noise >= 0, got {noise}"):
        toy(noise=noise)


# batches


def numbered(count: int) -> Images:
    """Images whose one pixel is their own number."""
    return Images(torch.arange(float(count))[:, None], torch.arange(count) + 100)


def order(loader) -> list[int]:
    return torch.cat([x for x, _ in loader]).flatten().int().tolist()


@pytest.mark.parametrize("seed", [0, 1, None])
def test_batches_give_every_image_once_a_pass_with_its_label(seed):
    for _ in range(2):
        passed = list(batches(numbered(10), size=4, seed=seed))
        assert [len(y) for _, y in passed] == [4, 4, 2]
        assert sorted(order(passed)) == list(range(10))
        assert all((x.flatten() + 100 == y).all() for x, y in passed)


def test_batches_are_shuffled_anew_at_each_pass():
    loader = batches(numbered(50), size=8)
    assert order(loader) != order(loader)


def test_batches_of_one_seed_come_in_one_order_whatever_else_draws_numbers():
    first, second = batches(numbered(50), size=8, seed=5), batches(numbered(50), size=8, seed=5)
    for _ in range(2):
        torch.rand(3)
        assert order(first) == order(second)


def test_batches_of_two_seeds_come_in_two_orders():
    assert order(batches(numbered(50), seed=0)) != order(batches(numbered(50), seed=1))


def test_batches_without_a_seed_come_in_the_order_of_the_images():
    loader = batches(numbered(50), size=8, seed=None)
    assert order(loader) == order(loader) == list(range(50))


def test_batches_have_128_images_if_nothing_is_said():
    assert [len(y) for _, y in batches(numbered(300))] == [128, 128, 44]


def test_batches_know_their_number():
    assert len(batches(numbered(10), size=4)) == 3


@pytest.mark.parametrize("seed", [0, None])
def test_batches_do_not_touch_the_global_generator(seed):
    before = torch.get_rng_state()
    list(batches(numbered(10), seed=seed))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("images", "labels"), [(3, 2), (0, 0), (0, 1)])
def test_batches_refuse_images_without_labels(images, labels):
    with pytest.raises(
        ValueError, match=f"as many images as labels and at least one, got {images} and {labels}"
    ):
        batches(Images(torch.zeros(images, 1), torch.zeros(labels)))


@pytest.mark.parametrize("size", [0, -1])
def test_batches_refuse_a_size_without_images(size):
    with pytest.raises(ValueError, match=f"got batch_size={size}"):
        batches(numbered(3), size=size)
