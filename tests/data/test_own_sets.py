import numpy as np
import pytest
import torch

from data.tiny_sets import write_idx, write_mnist
from plastic_cli.data.datasets import load_dataset
from plastic_cli.errors import UserError


def _arrays(dtype=np.uint8, shape=(6, 7), train=30, test=12, classes=3):
    rng = np.random.default_rng(0)

    def images(count):
        x = rng.random((count, *shape))
        return (x * 256).astype(np.uint8) if dtype == np.uint8 else x.astype(dtype)

    return images(train), np.arange(train) % classes, images(test), np.arange(test) % classes


def _save_pair(folder, arrays):
    train_x, train_y, test_x, test_y = arrays
    np.savez(folder / "train.npz", x=train_x, y=train_y)
    np.savez_compressed(folder / "test.npz", x=test_x, y=test_y)


def _check(dataset, arrays, white):
    train_x, train_y, test_x, test_y = arrays
    train_x, test_x = train_x.astype(float), test_x.astype(float)
    mean, std = (train_x / white).mean(), (train_x / white).std()
    assert dataset.mean == pytest.approx([mean], rel=1e-5)
    assert dataset.std == pytest.approx([std], rel=1e-5)
    for split, x, y in ((dataset.train, train_x, train_y), (dataset.test, test_x, test_y)):
        expected = torch.tensor((x.reshape(len(x), -1) / white - mean) / std)
        torch.testing.assert_close(split.x.double(), expected, atol=1e-4, rtol=1e-4)
        assert split.y.tolist() == y.tolist()
        assert split.x.dtype == torch.float32


@pytest.mark.parametrize(("dtype", "white"), [(np.uint8, 255), (np.float32, 1), (np.float64, 1), (np.float16, 1)])
def test_npz_pair(tmp_path, dtype, white):
    arrays = _arrays(dtype)
    _save_pair(tmp_path, arrays)
    dataset = load_dataset(str(tmp_path))
    _check(dataset, arrays, white)
    assert dataset.image_shape == (1, 6, 7)
    assert dataset.classes == 3
    assert dataset.class_names == ("0", "1", "2")
    assert dataset.name == tmp_path.name


@pytest.mark.parametrize("by_folder", [True, False])
def test_one_npz(tmp_path, by_folder):
    arrays = _arrays()
    train_x, train_y, test_x, test_y = arrays
    path = tmp_path / "mine.npz"
    np.savez(path, x_train=train_x, y_train=train_y, x_test=test_x, y_test=test_y)
    _check(load_dataset(str(tmp_path if by_folder else path)), arrays, 255)


@pytest.mark.parametrize(("place", "suffix"), [("", ""), ("raw", ".gz")])
def test_idx_files(tmp_path, place, suffix):
    arrays = write_mnist(tmp_path / place, suffix=suffix, classes=4)
    dataset = load_dataset(str(tmp_path))
    _check(dataset, arrays, 255)
    assert dataset.classes == 4


def test_the_checksum_does_not_depend_on_the_format(tmp_path):
    train_x, train_y, test_x, test_y = write_mnist(tmp_path / "idx")
    (tmp_path / "npz").mkdir()
    _save_pair(tmp_path / "npz", (train_x, train_y, test_x, test_y))
    assert load_dataset(str(tmp_path / "idx")).checksum == load_dataset(str(tmp_path / "npz")).checksum


def test_color_images_with_channels_first_or_last(tmp_path):
    for name, order in (("first", (0, 1, 2, 3)), ("last", (0, 2, 3, 1))):
        folder = tmp_path / name
        folder.mkdir()
        train_x, train_y, test_x, test_y = _arrays(shape=(3, 6, 7))
        _save_pair(folder, (train_x.transpose(order), train_y, test_x.transpose(order), test_y))
    first, last = load_dataset(str(tmp_path / "first")), load_dataset(str(tmp_path / "last"))
    assert first.image_shape == last.image_shape == (3, 6, 7)
    torch.testing.assert_close(first.train.x, last.train.x)
    assert "channels last" in last.note


@pytest.mark.parametrize(("features", "shape"), [(49, (1, 7, 7)), (50, (1, 1, 50))])
def test_flat_images(tmp_path, features, shape):
    _save_pair(tmp_path, _arrays(shape=(features,)))
    dataset = load_dataset(str(tmp_path))
    assert dataset.image_shape == shape
    assert f"pixels read as {shape[1]} x {shape[2]}" in dataset.note


def test_labels_in_a_column(tmp_path):
    train_x, train_y, test_x, test_y = _arrays()
    _save_pair(tmp_path, (train_x, train_y[:, None], test_x, test_y[:, None]))
    assert load_dataset(str(tmp_path)).train.y.tolist() == train_y.tolist()


def test_validation_split_of_an_own_set(tmp_path):
    _save_pair(tmp_path, _arrays())
    dataset, whole = load_dataset(str(tmp_path), validation=6), load_dataset(str(tmp_path))
    assert torch.bincount(dataset.validation.y).tolist() == [2, 2, 2]
    assert dataset.mean == whole.mean


def test_a_constant_channel_is_only_centered(tmp_path):
    train_x, train_y, test_x, test_y = _arrays(np.float32)
    _save_pair(tmp_path, (np.full_like(train_x, 0.5), train_y, test_x, test_y))
    dataset = load_dataset(str(tmp_path))
    assert (dataset.mean, dataset.std) == ((0.5,), (1.0,))
    assert (dataset.train.x == 0).all()


def test_stored_arrays_are_not_changed(tmp_path):
    """Normalizing in place must not change the arrays of the training mean and the checksum."""
    _save_pair(tmp_path, _arrays(np.float32))
    first, again = (load_dataset(str(tmp_path), validation=6) for _ in range(2))
    torch.testing.assert_close(first.to_pixels(first.test.x), torch.tensor(_arrays(np.float32)[2]).flatten(1))
    torch.testing.assert_close(first.validation.x, again.validation.x, rtol=0, atol=0)


def test_a_folder_called_mnist_is_not_listed_as_mnist(tmp_path, monkeypatch):
    folder = tmp_path / "mnist"
    folder.mkdir()
    _save_pair(folder, _arrays())
    monkeypatch.chdir(tmp_path)
    assert load_dataset("./mnist").name == str(folder)


def test_a_class_without_training_images_is_in_the_note(tmp_path):
    train_x, train_y, test_x, test_y = _arrays()
    _save_pair(tmp_path, (train_x, train_y + 1, test_x, test_y + 1))
    dataset = load_dataset(str(tmp_path))
    assert dataset.classes == 4
    assert "1 of the classes 0 to 3 have no training image" in dataset.note


def test_folder_without_a_set(tmp_path):
    (tmp_path / "one.npz").write_bytes(b"")
    (tmp_path / "other.npz").write_bytes(b"")
    with pytest.raises(UserError) as raised:
        load_dataset(str(tmp_path))
    assert f"{tmp_path} contains no data set, only one.npz, other.npz. It needs train.npz" in str(raised.value)
    assert "train/CLASS/NAME.png" in str(raised.value)


def _change(place, value):
    def change(arrays):
        return [value(array) if index == place else array for index, array in enumerate(arrays)]

    return change


def _with_a_nan(x):
    x = x.astype(np.float32)
    x[3, 2, 1] = np.nan
    return x


@pytest.mark.parametrize(
    ("change", "file", "message"),
    [
        (_change(0, lambda x: x.astype(np.int64) * 300), "train.npz", "Store them as uint8 (0 to 255) or as float"),
        (_change(0, lambda x: x.astype(np.int64) - 1), "train.npz", "images are int64 from -1"),
        (_change(0, lambda x: x * 1j), "train.npz", "images are complex128"),
        (_change(0, _with_a_nan), "train.npz", "not finite"),
        (_change(2, lambda x: x[:, :, :, None, None]), "test.npz", "are not (n, height, width)"),
        (_change(2, lambda x: x[:0]), "test.npz", "holds no images"),
        (_change(2, lambda x: x / np.float32(255)), "", "Store both the same way"),
        (_change(2, lambda x: x[:, 1:]), "", "Store both the same way"),
        (_change(1, lambda y: y[1:]), "train.npz", "29 labels for 30 images"),
        (_change(1, lambda y: y - 1), "train.npz", "the label -1"),
        (_change(1, lambda y: y + 0.5), "train.npz", "whole numbers"),
        (_change(3, lambda y: y + 1000), "", "the highest label is 1,002"),
        (_change(1, lambda y: np.array([None] * 30)), "train.npz", "y.astype(str)"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, change, file, message):
    _save_pair(tmp_path, change(_arrays()))
    with pytest.raises(UserError) as raised:
        load_dataset(str(tmp_path))
    assert str(tmp_path / file) in str(raised.value)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "damaged" not in str(raised.value)
    assert "pickle" not in str(raised.value)


def test_missing_array_is_named(tmp_path):
    np.savez(tmp_path / "mine.npz", x_train=np.zeros((3, 4, 4)), labels=np.zeros(3))
    with pytest.raises(UserError, match=r"no array y_train or x_test or y_test: it holds x_train, labels"):
        load_dataset(str(tmp_path / "mine.npz"))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"<html>", b"\x93NUMPY"])
def test_broken_npz(tmp_path, content):
    _save_pair(tmp_path, _arrays())
    (tmp_path / "test.npz").write_bytes(content)
    with pytest.raises(UserError) as raised:
        load_dataset(str(tmp_path))
    assert str(tmp_path / "test.npz") in str(raised.value)


def test_truncated_npz(tmp_path):
    _save_pair(tmp_path, _arrays())
    path = tmp_path / "test.npz"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match="is damaged"):
        load_dataset(str(tmp_path))


def test_a_single_array_is_no_npz(tmp_path):
    with (tmp_path / "mine.npz").open("wb") as stream:
        np.save(stream, np.zeros(3))
    with pytest.raises(UserError, match="single array"):
        load_dataset(str(tmp_path / "mine.npz"))


def test_own_idx_files_may_hold_floats(tmp_path):
    train_x, train_y, test_x, test_y = _arrays(np.float32)
    for name, x, y in (("train", train_x, train_y), ("t10k", test_x, test_y)):
        write_idx(tmp_path / f"{name}-images-idx3-ubyte", x)
        write_idx(tmp_path / f"{name}-labels-idx1-ubyte", y.astype(np.int32))
    _check(load_dataset(str(tmp_path)), (train_x, train_y, test_x, test_y), 1)
