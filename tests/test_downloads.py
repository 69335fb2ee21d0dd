"""Data sets of torchvision: read whole or refused, fetched whole or not at all, without a network."""

import gc
import gzip
import hashlib
import http.server
import pickle
import socket
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10, MNIST

from gaussreg_lab import places
from gaussreg_lab.datasets import cifar10, fashion_mnist, mnist

# a tiny MNIST of our own, with two training images and one test image of each class


def idx(array: np.ndarray) -> bytes:
    """The file format of MNIST: a magic number, the shape, the bytes."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.tobytes()


def tiny_files() -> dict[str, bytes]:
    files = {}
    for part, count in (("train", 20), ("t10k", 10)):
        numbers = np.arange(count, dtype=np.uint8)
        images = np.zeros((count, 28, 28), dtype=np.uint8)
        images[:, 0, 0], images[:, 27, 27] = numbers, 255
        files[f"{part}-images-idx3-ubyte"] = idx(images)
        files[f"{part}-labels-idx1-ubyte"] = idx(numbers % 10)
    return files


def put_tiny_mnist(root: Path, name: str = "MNIST") -> Path:
    raw = root / name / "raw"
    raw.mkdir(parents=True)
    for file, content in tiny_files().items():
        (raw / file).write_bytes(content)
    return raw


def test_grey_images_come_with_one_channel_scaled_to_one(tmp_path):
    put_tiny_mnist(tmp_path)
    train, test = mnist(tmp_path)
    assert train.x.shape == (20, 1, 28, 28)
    assert train.x[:, 0, 0, 0].tolist() == pytest.approx([number / 255 for number in range(20)])
    assert test.x[:, 0, 27, 27].tolist() == [1] * 10
    assert train.y.tolist() == [*range(10), *range(10)]


def test_fashion_mnist_is_read_from_a_folder_of_its_own(tmp_path):
    put_tiny_mnist(tmp_path, "FashionMNIST")
    assert fashion_mnist(tmp_path, train_size=10).train.x.shape == (10, 1, 28, 28)
    with pytest.raises(FileNotFoundError, match="Expected MNIST in"):
        mnist(tmp_path)


def test_a_root_may_be_a_string_with_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    put_tiny_mnist(tmp_path / "data")
    assert len(mnist("~/data").train.x) == 20


def test_without_a_root_the_courses_own_data_folder_is_used(tmp_path, monkeypatch):
    put_tiny_mnist(tmp_path / "data")
    monkeypatch.setattr(places, "PACKAGE", tmp_path / "package")
    assert len(mnist().train.x) == 20


def test_without_a_root_a_wheel_uses_the_users_own_folder(tmp_path, monkeypatch):
    (tmp_path / "package" / "data").mkdir(parents=True)  # only a wheel has them
    (tmp_path / "package" / "course").mkdir()
    put_tiny_mnist(tmp_path / "data")  # not ours there: site-packages/data
    monkeypatch.setattr(places, "PACKAGE", tmp_path / "package")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    with pytest.raises(FileNotFoundError, match="own/gaussreg_lab/data"):
        mnist()
    put_tiny_mnist(tmp_path / "own" / "gaussreg_lab" / "data")
    assert len(mnist().train.x) == 20


def test_train_size_keeps_the_first_images_of_each_class(tmp_path):
    put_tiny_mnist(tmp_path)
    train, test = mnist(tmp_path, train_size=10)
    assert (255 * train.x[:, 0, 0, 0]).round().tolist() == list(range(10))
    assert len(test.x) == 10


@pytest.mark.parametrize("size", [-10, 0, 5, 15, 30])
def test_a_train_size_that_does_not_fit_is_refused(size, tmp_path):
    put_tiny_mnist(tmp_path)
    with pytest.raises(ValueError, match=f"train_size a multiple of 10 up to 20, got {size}"):
        mnist(tmp_path, train_size=size)


@pytest.mark.parametrize("load", [mnist, fashion_mnist, cifar10], ids=lambda load: load.__name__)
def test_missing_data_is_reported_by_name_and_root(load, tmp_path):
    with pytest.raises(
        FileNotFoundError, match=rf"(MNIST|FashionMNIST|CIFAR10) in {tmp_path}.*download=True"
    ):
        load(tmp_path)


@pytest.mark.parametrize("part", ["train-images", "train-labels", "t10k-images", "t10k-labels"])
def test_an_incomplete_folder_counts_as_missing(part, tmp_path):
    raw = put_tiny_mnist(tmp_path)
    next(raw.glob(f"{part}*")).unlink()
    with pytest.raises(FileNotFoundError, match="missing or incomplete"):
        mnist(tmp_path)


@pytest.mark.parametrize("size", [0, 3, 10, 17])
@pytest.mark.parametrize("part", ["train-images", "train-labels", "t10k-images", "t10k-labels"])
def test_a_truncated_file_counts_as_damage(part, size, tmp_path):
    file = next(put_tiny_mnist(tmp_path).glob(f"{part}*"))
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(ValueError, match=rf"Expected MNIST in {tmp_path}, got damaged files .*delete them"):
        mnist(tmp_path)


@pytest.mark.parametrize("part", ["train", "t10k"])
def test_images_and_labels_of_different_number_count_as_damage(part, tmp_path):
    raw = put_tiny_mnist(tmp_path)
    (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.zeros(7, dtype=np.uint8)))
    with pytest.raises(ValueError, match=r"got damaged files \(\d+ images, 7 labels\)"):
        mnist(tmp_path)


# a tiny CIFAR-10 of our own


@pytest.fixture
def tiny_cifar(tmp_path, monkeypatch) -> Path:
    """One training and one test batch of ten images; red is 255, green the label, blue the row."""
    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    planes = np.zeros((10, 3, 32, 32), dtype=np.uint8)
    planes[:, 0], planes[:, 1], planes[:, 2] = 255, np.arange(10)[:, None, None], np.arange(32)[:, None]
    colours = planes.reshape(10, -1)
    contents = {
        "train": {"data": colours, "labels": list(range(10))},
        "test": {"data": colours[::-1].copy(), "labels": list(range(10))[::-1]},
        "meta": {"label_names": list("abcdefghij")},
    }
    sums = {}
    for name, content in contents.items():
        (folder / name).write_bytes(pickle.dumps(content))
        sums[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    monkeypatch.setattr(CIFAR10, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test", sums["test"]]])
    monkeypatch.setattr(CIFAR10, "meta", {"filename": "meta", "key": "label_names", "md5": sums["meta"]})
    return tmp_path


def test_colour_images_come_channels_first(tiny_cifar):
    train, test = cifar10(tiny_cifar)
    assert train.x.shape == (10, 3, 32, 32)
    assert train.x.is_contiguous()
    for images in (train, test):
        assert images.y.dtype == torch.int64
        assert (images.x[:, 0] == 1).all()
        torch.testing.assert_close(images.x[:, 1, 31, 0], images.y / 255)
        torch.testing.assert_close(images.x[0, 2, :, 7], torch.arange(32) / 255)


def test_damaged_colour_images_count_as_damage(tiny_cifar):
    file = tiny_cifar / CIFAR10.base_folder / "train"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match="got damaged files"):
        cifar10(tiny_cifar)


# downloads, from a server on this machine


class Mirror:
    """A web server for the tiny MNIST. asked: what was asked for; missing: what it does not have."""

    def __init__(self) -> None:
        self.files = {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in tiny_files().items()}
        self.asked: set[str] = set()
        self.missing: set[str] = set()
        mirror = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.strip("/")
                mirror.asked.add(name)
                content = b"" if name in mirror.missing else mirror.files[name]
                self.send_response(200 if content else 404)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


# urllib keeps the answer 404, and its socket, in a cycle with its own error until the garbage is collected
not_found = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


@pytest.fixture
def mirror(monkeypatch):
    """A running `Mirror`, from which torchvision believes MNIST is to be had."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running = Mirror()
    sums = {name: hashlib.md5(content).hexdigest() for name, content in running.files.items()}
    monkeypatch.setattr(MNIST, "mirrors", [running.url])
    monkeypatch.setattr(MNIST, "resources", [(name, sums[name]) for name, _ in MNIST.resources])
    yield running
    running.close()
    gc.collect()


@pytest.fixture
def closed_port():
    """The address of a port on which nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}/"


def contents(root: Path) -> dict[str, bytes]:
    """Every file under root by its path, but for the folder of unfinished downloads."""
    files = (file for file in root.rglob("*") if file.is_file() and ".incoming" not in file.parts)
    return {str(file.relative_to(root)): file.read_bytes() for file in files}


def fill_with_other_things(root: Path) -> None:
    """Files that are none of ours, and half a data set."""
    raw = put_tiny_mnist(root)
    (root / "notes.txt").write_text("mine")
    (raw / "more notes.txt").write_text("mine, too")
    (raw / "t10k-labels-idx1-ubyte").unlink()
    (raw / "train-images-idx3-ubyte").write_bytes(b"old")


def test_a_download_gives_the_data_and_keeps_it(mirror, tmp_path):
    root = tmp_path / "new" / "folder"
    train, test = mnist(root, download=True)
    assert (len(train.x), len(test.x)) == (20, 10)
    assert len(mnist(root).train.x) == 20
    assert mirror.asked == set(mirror.files)


def test_a_download_leaves_nothing_unfinished_and_other_files_alone(mirror, tmp_path):
    fill_with_other_things(tmp_path / "root")
    mnist(tmp_path / "root", download=True)
    files = contents(tmp_path / "root")
    assert files["notes.txt"] == b"mine"
    assert files["MNIST/raw/more notes.txt"] == b"mine, too"
    assert files["MNIST/raw/train-images-idx3-ubyte"] == tiny_files()["train-images-idx3-ubyte"]
    assert not [file for file in (tmp_path / "root" / ".incoming").rglob("*") if file.is_file()]


def test_nothing_is_downloaded_that_is_already_there(mirror, tmp_path):
    put_tiny_mnist(tmp_path)
    assert len(mnist(tmp_path, download=True).train.x) == 20
    assert mirror.asked == set()


def test_nothing_is_downloaded_unasked(mirror, tmp_path):
    with pytest.raises(FileNotFoundError, match="Expected MNIST"):
        mnist(tmp_path)
    assert mirror.asked == set()


def test_damaged_data_is_replaced_by_a_download(mirror, tmp_path):
    (put_tiny_mnist(tmp_path) / "t10k-images-idx3-ubyte").write_bytes(b"")
    assert len(mnist(tmp_path, download=True).test.x) == 10


@not_found
def test_a_failed_download_says_what_to_do(mirror, tmp_path):
    mirror.missing = {"t10k-images-idx3-ubyte.gz"}
    with pytest.raises(
        ConnectionError, match=rf"download MNIST into {tmp_path}(.|\n)*digits\(\)(.|\n)*is kept"
    ):
        mnist(tmp_path, download=True)


@not_found
def test_a_failed_download_leaves_what_was_there_byte_for_byte(mirror, tmp_path):
    fill_with_other_things(tmp_path / "root")
    before = contents(tmp_path / "root")
    mirror.missing = {"t10k-images-idx3-ubyte.gz"}
    with pytest.raises(ConnectionError, match="Could not download MNIST"):
        mnist(tmp_path / "root", download=True)
    assert contents(tmp_path / "root") == before


@not_found
def test_a_second_download_fetches_only_what_is_missing(mirror, tmp_path):
    mirror.missing = {"t10k-images-idx3-ubyte.gz"}
    with pytest.raises(ConnectionError, match="Could not download MNIST"):
        mnist(tmp_path, download=True)
    mirror.missing, mirror.asked = set(), set()
    assert len(mnist(tmp_path, download=True).test.x) == 10
    assert mirror.asked == {"t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"}


def test_a_file_that_arrives_damaged_is_not_accepted(mirror, tmp_path):
    good = mirror.files["t10k-labels-idx1-ubyte.gz"]
    mirror.files["t10k-labels-idx1-ubyte.gz"] = good[:-9]
    with pytest.raises(ConnectionError, match="Could not download MNIST"):
        mnist(tmp_path, download=True)
    assert contents(tmp_path) == {}
    mirror.files["t10k-labels-idx1-ubyte.gz"] = good
    assert len(mnist(tmp_path, download=True).test.x) == 10


@pytest.mark.parametrize("size", [0, 100])
def test_a_damaged_leftover_of_an_earlier_download_does_not_stop_the_next(size, mirror, tmp_path):
    raw = put_tiny_mnist(tmp_path / ".incoming" / "MNIST")
    with (raw / "train-images-idx3-ubyte").open("r+b") as file:
        file.truncate(size)
    assert len(mnist(tmp_path, download=True).train.x) == 20


def test_without_a_network_the_error_names_the_data_and_the_way_round(
    mirror, closed_port, tmp_path, monkeypatch
):
    monkeypatch.setattr(MNIST, "mirrors", [closed_port])
    with pytest.raises(ConnectionError, match=r"download MNIST(.|\n)*Without a network use digits\(\)"):
        mnist(tmp_path, download=True)


def test_without_a_network_colour_images_get_the_same_error(closed_port, tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(CIFAR10, "url", closed_port + "cifar-10-python.tar.gz")
    with pytest.raises(ConnectionError, match=r"download CIFAR10(.|\n)*Without a network use digits\(\)"):
        cifar10(tmp_path, download=True)


def test_a_server_that_does_not_speak_http_counts_as_no_connection(mirror, tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            client, _ = listening.accept()
            with client:
                client.recv(1000)
                client.sendall(b"please log in\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{listening.getsockname()[1]}/"])
        with pytest.raises(ConnectionError, match="Could not download MNIST"):
            mnist(tmp_path, download=True)
