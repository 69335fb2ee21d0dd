"""Our PNG files hold, for the library that everyone reads them with, the pixels that went in."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gaussreg_lab.png import encoded


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_pillow_reads_the_same_pixels(height, width, seed):
    rgba = np.random.default_rng(seed).integers(0, 256, (height, width, 4), dtype=np.uint8)
    image = Image.open(io.BytesIO(encoded(rgba)))
    image.verify()  # the checksums
    image = Image.open(io.BytesIO(encoded(rgba)))
    assert (image.format, image.mode, image.size) == ("PNG", "RGB", (width, height))
    np.testing.assert_array_equal(np.asarray(image), rgba[..., :3])


def test_white_paper_takes_no_room():
    assert len(encoded(np.full((460, 1296, 4), 255, dtype=np.uint8))) < 10_000


def test_a_canvas_of_another_layout_in_memory_is_read_right():
    rgba = np.arange(2 * 6 * 4, dtype=np.uint8).reshape(2, 6, 4)[:, ::2]
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encoded(rgba)))), rgba[..., :3])


@pytest.mark.parametrize(
    "wrong", [np.zeros((2, 3, 3), np.uint8), np.zeros((2, 3), np.uint8), np.zeros((2, 3, 4))]
)
def test_anything_but_bytes_with_four_channels_is_refused(wrong):
    with pytest.raises(ValueError, match=r"Expected bytes of shape \(height, width, 4\), got "):
        encoded(wrong)
