"""The axes of images and channels, and the units of pixels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from plastic_cli.data.datasets import load_dataset
from plastic_cli.data.images import PixelRange, in_other_units, pixel_range
from plastic_cli.errors import UserError


def _images(shape, count, seed=0, white=256):
    return np.random.default_rng(seed).integers(0, white, (count, *shape)).astype(np.uint8)


def _load(folder, train, test, train_y=None, test_y=None):
    folder.mkdir(exist_ok=True)
    np.savez(folder / "train.npz", x=train, y=np.arange(30) % 3 if train_y is None else train_y)
    np.savez(folder / "test.npz", x=test, y=np.arange(12) % 3 if test_y is None else test_y)
    return load_dataset(str(folder))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_one_to_four_channels_may_be_first_or_last(tmp_path, channels):
    train, test = _images((channels, 6, 7), 30), _images((channels, 6, 7), 12)
    first = _load(tmp_path / "first", train, test)
    last = _load(tmp_path / "last", train.transpose(0, 2, 3, 1), test.transpose(0, 2, 3, 1))
    assert first.image_shape == last.image_shape == (channels, 6, 7)
    assert first.checksum == last.checksum
    assert "channels last" in last.note
    assert "channels last" not in first.note


@pytest.mark.parametrize(
    ("stored", "read"),
    [
        # Both ends could be channels: the reading with square images is used.
        ((3, 4, 4), (3, 4, 4)),
        ((4, 4, 3), (3, 4, 4)),
        ((2, 2, 4), (4, 2, 2)),
        # Neither could be channels: the same.
        ((7, 6, 6), (7, 6, 6)),
        ((6, 6, 7), (7, 6, 6)),
        ((1, 9, 1), (1, 9, 1)),
    ],
)
def test_square_images_decide_if_both_ends_could_be_channels(tmp_path, stored, read):
    assert _load(tmp_path / "set", _images(stored, 30), _images(stored, 12)).image_shape == read


@pytest.mark.parametrize("shape", [(3, 32, 3), (4, 32, 2), (3, 3, 3), (4, 4, 4), (5, 6, 7), (8, 8, 8)])
def test_the_error_for_an_ambiguous_shape_names_both_readings(tmp_path, shape):
    first, middle, last = shape
    with pytest.raises(UserError) as raised:
        _load(tmp_path / "set", _images(shape, 30), _images(shape, 12))
    assert f"{first} channels of {middle} x {last} or {last} channels of {first} x {middle}" in str(raised.value)
    assert f"Store them flat, (n, {first * middle * last})" in str(raised.value)


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 3), (64,)])
def test_images_along_the_last_axis_are_found_by_the_labels(tmp_path, shape):
    train, test = _images(shape, 30), _images(shape, 12)
    first = _load(tmp_path / "first", train, test)
    last = _load(tmp_path / "last", np.moveaxis(train, 0, -1), np.moveaxis(test, 0, -1))
    assert last.checksum == first.checksum
    assert "MATLAB" in last.note
    one_hot = np.eye(3)[np.arange(30) % 3], np.eye(3)[np.arange(12) % 3]
    assert _load(tmp_path / "hot", np.moveaxis(train, 0, -1), np.moveaxis(test, 0, -1), *one_hot).checksum == (
        first.checksum
    )


def test_if_both_axes_fit_the_first_holds_the_images(tmp_path):
    train, test = _images((30, 30), 30), _images((30, 30), 12)
    assert _load(tmp_path / "set", train, test).checksum == _load(tmp_path / "again", train.copy(), test).checksum
    assert len(_load(tmp_path / "set", train, test).train) == 30


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint16, ">i4", np.uint64])
def test_whole_numbers_from_0_to_255_are_read_as_bytes(tmp_path, dtype):
    train, test = _images((6, 7), 30), _images((6, 7), 12)
    assert _load(tmp_path / "wide", train.astype(dtype), test.astype(dtype)).checksum == (
        _load(tmp_path / "bytes", train, test).checksum
    )


def test_the_error_for_sixteen_bits_says_what_to_write(tmp_path):
    train = _images((6, 7), 30).astype(np.uint16) * 257
    with pytest.raises(UserError, match=r"images are uint16 from 0 to 65535.*x.astype\('float32'\) / 65535"):
        _load(tmp_path / "set", train, train[:12])


@pytest.mark.parametrize("dtype", [bool, np.uint8])
def test_images_of_zeros_and_ones_are_not_scaled(tmp_path, dtype):
    train, test = (_images((6, 7), count, white=2).astype(dtype) for count in (30, 12))
    dataset = _load(tmp_path / "set", train, test)
    pixels = dataset.to_pixels(dataset.train.x)
    np.testing.assert_allclose(pixels.numpy(), train.reshape(30, -1), atol=1e-6)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", ">f8", "<f2"])
def test_byte_order_and_memory_order_make_no_difference(tmp_path, dtype, order):
    train, test = (_images((6, 7), count) / np.float32(256) for count in (30, 12))
    stored = [np.asarray(x.astype(dtype), order=order) for x in (train, test)]
    assert _load(tmp_path / "set", *stored).checksum == _load(tmp_path / "plain", train, test).checksum


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x * 255,
        lambda x: x * 16,
        lambda x: 2 * x - 1,
        lambda x: (x - 0.1307) / 0.3081,
        lambda x: (x * 255).astype(np.uint8),
    ],
)
@pytest.mark.parametrize("swapped", [False, True])
def test_training_and_test_images_in_different_units_are_an_error(tmp_path, change, swapped):
    rng = np.random.default_rng(0)
    plain, other = (rng.random((count, 6, 7)).astype(np.float32) for count in (30, 12))
    pair = plain, change(other)
    if swapped:
        pair = change(plain), other
    with pytest.raises(UserError, match="Store both") as raised:
        _load(tmp_path / "set", *pair)
    assert str(tmp_path / "set") in str(raised.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x * 0.5,
        lambda x: 0.2 + 0.6 * x,
        lambda x: x * 1.2 - 0.1,
        lambda x: np.zeros_like(x),
        lambda x: x**4,
    ],
)
def test_a_narrower_or_wider_range_is_the_same_unit(tmp_path, change):
    rng = np.random.default_rng(0)
    plain, other = (rng.random((count, 6, 7)).astype(np.float32) for count in (30, 12))
    _load(tmp_path / "set", plain, change(other))
    _load(tmp_path / "swapped", np.concatenate([change(other)] * 2 + [other[:6]]), plain[:12])


@given(
    x=arrays.arrays(np.float32, (9, 4), elements=st.floats(-100, 100, width=32)),
    scale=st.floats(0.125, 8),
)
def test_another_contrast_is_the_same_unit(x, scale):
    one, other = pixel_range([x]), pixel_range([x * np.float32(scale)])
    assert not in_other_units(one, other)
    assert in_other_units(one, other) == in_other_units(other, one)


def test_a_stored_range_is_read_back():
    stored = pixel_range([_images((6, 7), 30)], 255.0)
    assert PixelRange.from_stored(dict(vars(stored))) == stored
    assert PixelRange.from_stored(None) is None
    assert PixelRange.from_stored({"low": 0}) is None


@pytest.mark.parametrize(("white", "fits"), [(20, True), (1, False)])
def test_one_dark_image_is_the_same_unit(tmp_path, white, fits):
    train, test = np.full((2, 6, 7), 255, np.uint8), np.full((1, 6, 7), white, np.uint8)
    labels = np.array([0, 1]), np.array([1])
    if fits:
        _load(tmp_path / "set", train, test, *labels)
    else:
        with pytest.raises(UserError, match="Store both in the same units"):
            _load(tmp_path / "set", train, test, *labels)


def test_one_image_of_each_split(tmp_path):
    dataset = _load(tmp_path / "set", _images((6, 7), 2), _images((6, 7), 1), np.array([0, 1]), np.array([1]))
    assert (len(dataset.train), len(dataset.test)) == (2, 1)
    assert "1 of the classes 0 to 1 have no test image" in dataset.note
