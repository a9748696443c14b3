"""The user's own files under the usual names."""

import gzip
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from data.tiny_sets import idx_bytes, write_idx, write_mnist
from plastic_cli.data.catalog import (
    DATASETS,
    check_dataset_name,
    full_dataset_name,
    known_dataset,
)
from plastic_cli.data.datasets import load_dataset
from plastic_cli.data.sources import dataset_checksum
from plastic_cli.errors import UserError


def _arrays(shape=(6, 7), train=30, test=12):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (train + test, *shape), dtype=np.uint8), np.arange(train + test) % 3
    return x[:train], y[:train], x[train:], y[train:]


@pytest.fixture
def plain(tmp_path):
    """The checksum of the arrays, which does not depend on the format."""
    folder = tmp_path / "plain"
    folder.mkdir()
    train_x, train_y, test_x, test_y = _arrays()
    np.savez(folder / "all.npz", x_train=train_x, y_train=train_y, x_test=test_x, y_test=test_y)
    return load_dataset(str(folder)).checksum


@pytest.mark.parametrize(
    "names",
    [
        ("x_train", "y_train", "x_test", "y_test"),
        ("X_train", "Y_train", "X_test", "Y_test"),
        ("train_images", "train_labels", "test_images", "test_labels"),
        ("images_training", "labels_training", "images_testing", "labels_testing"),
        ("train-data", "train-targets", "test-data", "test-targets"),
    ],
)
def test_names_of_arrays_in_one_npz_and_of_npy_files(tmp_path, plain, names):
    (tmp_path / "npy").mkdir()
    (tmp_path / "npz").mkdir()
    for name, array in zip(names, _arrays(), strict=True):
        np.save(tmp_path / "npy" / f"{name}.npy", array)
    np.savez(tmp_path / "npz" / "set.npz", **dict(zip(names, _arrays(), strict=True)), val_images=np.zeros(3))
    assert load_dataset(str(tmp_path / "npy")).checksum == plain
    assert load_dataset(str(tmp_path / "npz")).checksum == plain


def test_names_of_arrays_in_two_npz(tmp_path, plain):
    train_x, train_y, test_x, test_y = _arrays()
    np.savez(tmp_path / "train.npz", images=train_x, labels=train_y)
    np.savez(tmp_path / "test.npz", Images=test_x, label=test_y)
    assert load_dataset(str(tmp_path)).checksum == plain


def test_two_candidate_arrays_are_an_error_that_names_both(tmp_path):
    train_x, train_y, test_x, test_y = _arrays()
    np.savez(tmp_path / "train.npz", images=train_x, data=train_x, y=train_y)
    np.savez(tmp_path / "test.npz", x=test_x, y=test_y)
    with pytest.raises(UserError, match=r"it is not clear which array to read, images or data\. Keep one"):
        load_dataset(str(tmp_path))


@pytest.mark.parametrize("spelled", ["{}.idx{}-ubyte", "{}.idx{}-ubyte.gz", "{}-idx{}-ubyte.gz", "{}-idx{}-ubyte"])
@pytest.mark.parametrize("test", ["t10k", "test"])
def test_names_of_idx_files(tmp_path, spelled, test, plain):
    for name, array in zip(
        ("train-images", "train-labels", f"{test}-images", f"{test}-labels"), _arrays(), strict=True
    ):
        write_idx(tmp_path / spelled.format(name, 3 if "images" in name else 1), array.astype(np.uint8))
    assert load_dataset(str(tmp_path)).checksum == plain


def test_known_sets_are_found_under_dotted_names_too(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    write_mnist(raw)
    expected = load_dataset("mnist", tmp_path, download=False).checksum
    for path in raw.iterdir():
        path.with_name(path.name.replace("-idx", ".idx")).write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert load_dataset("mnist", tmp_path, download=False).checksum == expected


@pytest.mark.parametrize("place", ["a folder with spaces", "über"])
def test_links_relative_paths_and_odd_names_lead_to_the_same_set(tmp_path, monkeypatch, plain, place):
    folder = tmp_path / place
    folder.mkdir()
    for name, array in zip(("x_train", "y_train", "x_test", "y_test"), _arrays(), strict=True):
        np.save(folder / f"{name}.npy", array)
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    for name in (place, f"./{place}/", f"../{tmp_path.name}/{place}", "link", str(folder)):
        assert load_dataset(name).checksum == plain == dataset_checksum(name)
        assert load_dataset(name).name == place
        assert full_dataset_name(name) == str(folder)


# Folders without a data set


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"contains no data set, it is empty\. It needs train.npz"):
        load_dataset(str(tmp_path))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["notes.txt", "train.csv"], "contains no data set, only notes.txt, train.csv. It needs train.npz"),
        (["train.npz"], "has no test.npz, only the other split."),
        (["raw/train-images-idx3-ubyte"], "has no train-labels-idx1-ubyte and no t10k-images-idx3-ubyte and no"),
        (["3/a.png", "4/b.png"], "contains pictures without a split: store them as train/CLASS/NAME.png"),
        (["train/3/a.png", "val/3/a.png"], "contains pictures under train, val: store them as train/CLASS/NAME.png"),
    ],
)
def test_an_error_says_what_a_folder_contains_and_what_it_lacks(tmp_path, files, message):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError) as raised:
        load_dataset(str(tmp_path))
    assert f"{tmp_path} {message}" in str(raised.value)
    assert "damaged" not in str(raised.value)


def test_for_a_folder_of_known_sets_an_error_says_which_options_to_use(tmp_path):
    write_mnist(tmp_path / "KMNIST" / "raw")
    with pytest.raises(UserError, match=f"use --data {tmp_path} --dataset kmnist"):
        load_dataset(str(tmp_path))


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000, "~nobody-of-this-name", "/proc/1/root/nothing"])
def test_names_that_no_file_can_have(name):
    with pytest.raises(UserError, match=r"unknown data set|there is no folder"):
        check_dataset_name(name)


# Names of known sets


@pytest.mark.parametrize(
    ("name", "known"), [("MNIST", "mnist"), ("Emnist-Letters", "emnist-letters"), ("emnist-balanced", "emnist")]
)
def test_known_sets_are_found_in_any_case(tmp_path, monkeypatch, name, known):
    monkeypatch.chdir(tmp_path)
    assert known_dataset(name) == known == full_dataset_name(name)
    check_dataset_name(name)
    # Then a folder of that name takes precedence.
    (tmp_path / name).mkdir()
    assert known_dataset(name) is None
    assert full_dataset_name(name) == str(tmp_path / name)


# EMNIST


def _write_emnist(folder, split, images=62, suffix=""):
    """Write a tiny split as NIST stores it: rows and columns exchanged; return it upright, with labels from 0."""
    info = DATASETS["emnist" if split == "balanced" else f"emnist-{split}"]
    rng = np.random.default_rng(len(split))
    upright = []
    for part, count in (("train", images), ("test", images // 2)):
        x = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        y = np.arange(count) % info.classes
        write_idx(folder / f"emnist-{split}-{part}-images-idx3-ubyte{suffix}", x.transpose(0, 2, 1).copy())
        stored = y + 1 if split == "letters" else y
        write_idx(folder / f"emnist-{split}-{part}-labels-idx1-ubyte{suffix}", stored.astype(np.uint8))
        upright += [x, y]
    return info, upright


_SPLITS = ["balanced", "letters", "digits", "mnist", "byclass", "bymerge"]


@pytest.mark.parametrize("split", _SPLITS)
@pytest.mark.parametrize("by_name", [True, False])
def test_every_split_of_emnist_is_upright_and_numbered_from_0(tmp_path, split, by_name):
    info, (train_x, train_y, test_x, test_y) = _write_emnist(tmp_path / "EMNIST" / "raw", split)
    dataset = load_dataset(info.name, tmp_path) if by_name else load_dataset(str(tmp_path / "EMNIST"))
    assert dataset.classes == info.classes == len(dataset.class_names)
    assert dataset.class_names == info.class_names
    assert f"not {info.official}: 62 training and 31 test images" in dataset.note
    for part, x, y in ((dataset.train, train_x, train_y), (dataset.test, test_x, test_y)):
        np.testing.assert_allclose(dataset.to_pixels(part.x).numpy(), x.reshape(len(x), -1) / 255, atol=1e-6)
        assert part.y.tolist() == y.tolist()
    if not info.mean or not by_name:
        # The split has no mean of its own: that of the training images is used.
        assert dataset.mean[0] == pytest.approx((train_x / 255).mean(), rel=1e-5)
        assert dataset.std[0] == pytest.approx((train_x / 255).std(), rel=1e-5)
        assert abs(dataset.train.x.mean()) < 1e-4


def test_labels_of_letters_begin_at_1_in_the_files(tmp_path):
    _write_emnist(tmp_path / "EMNIST" / "raw", "letters")
    labels = tmp_path / "EMNIST" / "raw" / "emnist-letters-train-labels-idx1-ubyte"
    for wrong in (0, 27):
        write_idx(labels, np.full(62, wrong, np.uint8))
        with pytest.raises(UserError, match=f"it holds the label {wrong}, but labels are 1 to 26"):
            load_dataset("emnist-letters", tmp_path)


def test_the_error_for_several_splits_of_emnist_says_how_to_choose(tmp_path):
    for split in ("letters", "digits"):
        _write_emnist(tmp_path / "raw", split)
    with pytest.raises(UserError, match=r"contains emnist-letters, emnist-digits.*--dataset emnist-digits"):
        load_dataset(str(tmp_path))


# Pictures


def _write_pictures(folder, shape=(6, 7), mode=None, suffix="png", names=("ant", "bee", "cow"), convert=None):
    arrays = _arrays(shape)
    for split, x, y in (("train", *arrays[:2]), ("test", *arrays[2:])):
        for number, (image, label) in enumerate(zip(x, y, strict=True)):
            place = folder / split / names[label]
            place.mkdir(parents=True, exist_ok=True)
            picture = Image.fromarray(image, mode) if mode else Image.fromarray(image)
            (convert(picture) if convert else picture).save(place / f"{number:03}.{suffix}")
    return arrays


def _check_pictures(dataset, arrays):
    """Pictures are ordered by class."""
    for part, x, y in ((dataset.train, *arrays[:2]), (dataset.test, *arrays[2:])):
        order = np.argsort(y, kind="stable")
        images = x[order] if x.ndim == 4 else x[order][..., None]
        pixels = dataset.to_pixels(part.x).view(len(x), *dataset.image_shape).permute(0, 2, 3, 1)
        np.testing.assert_allclose(pixels.numpy(), images / 255, atol=1e-5)
        assert part.y.tolist() == y[order].tolist()


@pytest.mark.parametrize(("channels", "shape"), [(1, (6, 7)), (2, (6, 7, 2)), (3, (6, 7, 3)), (4, (6, 7, 4))])
def test_pictures_in_a_folder_for_each_class(tmp_path, channels, shape):
    arrays = _write_pictures(tmp_path, shape)
    dataset = load_dataset(str(tmp_path))
    assert dataset.image_shape == (channels, 6, 7)
    assert dataset.class_names == ("ant", "bee", "cow")
    _check_pictures(dataset, arrays)


def test_folders_named_by_numbers_are_these_numbers(tmp_path):
    _write_pictures(tmp_path, names=("10", "2", "0"))
    dataset = load_dataset(str(tmp_path))
    assert dataset.classes == 11
    assert sorted(set(dataset.train.y.tolist())) == [0, 2, 10]


def test_sixteen_bit_pictures_are_scaled_to_0_to_1(tmp_path):
    arrays = _write_pictures(tmp_path, convert=lambda image: Image.fromarray(np.asarray(image).astype(np.uint16) * 257))
    _check_pictures(load_dataset(str(tmp_path)), arrays)


def test_palettes_are_converted(tmp_path):
    _write_pictures(tmp_path, convert=lambda image: image.convert("RGB").quantize(256))
    dataset = load_dataset(str(tmp_path))
    assert dataset.image_shape == (3, 6, 7)
    _check_pictures(dataset, [x if x.ndim == 1 else np.repeat(x[..., None], 3, axis=-1) for x in _arrays()])


def test_gray_pictures_among_color_become_color(tmp_path):
    _write_pictures(tmp_path, (6, 7, 3))
    path = sorted((tmp_path / "train" / "bee").iterdir())[0]
    Image.open(path).convert("L").save(path)
    dataset = load_dataset(str(tmp_path))
    assert dataset.image_shape == (3, 6, 7)
    assert "pictures of several types (L, RGB) read as RGB" in dataset.note


def test_a_picture_of_another_size_is_named(tmp_path):
    _write_pictures(tmp_path)
    path = sorted((tmp_path / "test" / "cow").iterdir())[-1]
    Image.new("L", (9, 6)).save(path)
    with pytest.raises(UserError, match=f"{path} has 9 x 6 pixels and .* has 7 x 6"):
        load_dataset(str(tmp_path))


def test_a_broken_picture_is_named(tmp_path):
    _write_pictures(tmp_path)
    path = sorted((tmp_path / "test" / "cow").iterdir())[-1]
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UserError, match=f"{path} is damaged: it is not a complete picture"):
        load_dataset(str(tmp_path))


def test_too_many_pixels_are_an_error_before_decoding(tmp_path):
    _write_pictures(tmp_path)
    path = sorted((tmp_path / "train" / "ant").iterdir())[0]
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", 60_000, 60_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{path} has too many pixels"):
        load_dataset(str(tmp_path))


def test_hidden_and_other_files_among_pictures_are_ignored(tmp_path):
    arrays = _write_pictures(tmp_path)
    (tmp_path / "train" / ".cache").mkdir()
    (tmp_path / "train" / "ant" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "train" / "ant" / "._000.png").write_bytes(b"x")
    (tmp_path / "train" / "readme.txt").write_text("x")
    _check_pictures(load_dataset(str(tmp_path)), arrays)


def test_the_error_for_a_wrong_idx_file_names_its_format(tmp_path):
    write_mnist(tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(b"<!DOCTYPE html><title>404</title>")
    with pytest.raises(UserError, match="is a web page, not an IDX file"):
        load_dataset(str(tmp_path))
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(b"PK\x03\x04" + idx_bytes(np.zeros(3, np.uint8)))
    with pytest.raises(UserError, match="is a zip archive, not an IDX file"):
        load_dataset(str(tmp_path))


def test_the_darkest_value_fills_corners(tmp_path):
    train_x, train_y, test_x, test_y = _arrays((6, 7, 3))
    scaled = [2 * (x / np.float32(255)) - 1 for x in (train_x, test_x)]
    np.savez(tmp_path / "set.npz", x_train=scaled[0], y_train=train_y, x_test=scaled[1], y_test=test_y)
    dataset = load_dataset(str(tmp_path))
    assert dataset.darkest == pytest.approx([scaled[0][..., channel].min() for channel in range(3)])
    normalized = dataset.train.x.view(30, 3, -1)
    torch.testing.assert_close(torch.tensor(dataset.black), normalized.amin((0, 2)))
