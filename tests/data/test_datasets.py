import gzip
import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from data.tiny_sets import write_idx, write_mnist
from plastic_cli.data import download
from plastic_cli.data.arrays import stratified_split
from plastic_cli.data.catalog import DATASETS
from plastic_cli.data.datasets import load_dataset
from plastic_cli.errors import UserError

DIGITS_CHECKSUM = "d928c7b0f4789e896c31b53fe286078dbcc133e8a712ed00e111f226f4d9b28d"


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


def _expected(x, info):
    """Normalized pixels in float64, from stored bytes (n, height, width)."""
    return torch.tensor((x.reshape(len(x), -1) / 255 - info.mean[0]) / info.std[0])


def test_digits_are_scikit_learns_in_a_fixed_split(digits):
    assert (len(digits.train), len(digits.test)) == (1437, 360)
    assert digits.validation is None
    assert digits.image_shape == (1, 8, 8)
    # Every image of scikit-learn is in exactly one split.
    known = load_digits()
    pixels = torch.cat([digits.to_pixels(split.x) for split in (digits.train, digits.test)])
    rows = np.column_stack([torch.cat([digits.train.y, digits.test.y]).numpy(), (pixels * 16).round().numpy()])
    expected = np.column_stack([known.target, known.data])
    np.testing.assert_array_equal(rows[np.lexsort(rows.T)], expected[np.lexsort(expected.T)])


def test_digits_split_never_changes(digits):
    # If a new release of a library drew another split, results would not be comparable.
    assert digits.checksum == DIGITS_CHECKSUM


def test_digits_split_is_stratified(digits):
    share = torch.bincount(digits.test.y) / (torch.bincount(digits.train.y) + torch.bincount(digits.test.y))
    assert ((share - 360 / 1797).abs() < 0.004).all()


def test_stated_normalization_of_digits_is_that_of_its_training_pixels(digits):
    pixels = digits.to_pixels(digits.train.x).double()
    assert abs(pixels.mean().item() - digits.mean[0]) < 6e-5
    assert abs(pixels.std(correction=0).item() - digits.std[0]) < 6e-5


def test_tensors_are_whole_float32_and_int64(mnist_folder):
    dataset = load_dataset("mnist", mnist_folder)
    for split, count in ((dataset.train, 40), (dataset.test, 20)):
        assert split.x.shape == (count, 784)
        assert split.x.is_contiguous()
        assert (split.x.dtype, split.y.dtype) == (torch.float32, torch.int64)
        assert len(split) == count


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_known_sets_are_normalized_as_stated(tmp_path, suffix):
    train_x, train_y, test_x, test_y = write_mnist(tmp_path / "FashionMNIST" / "raw", suffix=suffix)
    dataset = load_dataset("fashion", tmp_path)
    info = DATASETS["fashion"]
    torch.testing.assert_close(dataset.train.x.double(), _expected(train_x, info), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(dataset.test.x.double(), _expected(test_x, info), atol=1e-6, rtol=1e-6)
    assert dataset.train.y.tolist() == train_y.tolist()
    assert dataset.test.y.tolist() == test_y.tolist()
    assert dataset.class_names == info.class_names
    assert (dataset.mean, dataset.std) == (info.mean, info.std)


def test_emnist_is_shown_upright(tmp_path):
    rng = np.random.default_rng(0)
    raw = tmp_path / "EMNIST" / "raw"
    upright = {}
    for split, count in (("train", 47), ("test", 47)):
        upright[split] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        # As in the official files: rows and columns are exchanged.
        write_idx(raw / f"emnist-balanced-{split}-images-idx3-ubyte", upright[split].swapaxes(1, 2).copy())
        write_idx(raw / f"emnist-balanced-{split}-labels-idx1-ubyte", np.arange(count, dtype=np.uint8))
    dataset = load_dataset("emnist", tmp_path)
    info = DATASETS["emnist"]
    torch.testing.assert_close(dataset.train.x.double(), _expected(upright["train"], info), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(dataset.test.x.double(), _expected(upright["test"], info), atol=1e-6, rtol=1e-6)
    assert dataset.classes == 47
    assert "not the official Balanced split: 47 training and 47 test images" in dataset.note


def test_real_emnist_is_upright_and_has_a_note(real_data):
    if not (real_data / "EMNIST" / "raw").is_dir():
        pytest.skip(f"{real_data} has no EMNIST/raw")
    emnist, mnist = load_dataset("emnist", real_data), load_dataset("mnist", real_data)
    official = (len(emnist.train), len(emnist.test)) == (112_800, 18_800)
    assert ("not the official Balanced split" in emnist.note) != official
    # The mean image of a digit is nearer to MNIST's than its transpose is.
    for digit in (2, 4, 5, 7):
        ours = emnist.train.x[emnist.train.y == digit].mean(0).view(28, 28)
        theirs = mnist.train.x[mnist.train.y == digit].mean(0).view(28, 28)
        upright, transposed = (
            torch.corrcoef(torch.stack([image.flatten(), theirs.flatten()]))[0, 1] for image in (ours, ours.T)
        )
        assert upright > transposed + 0.1


def test_real_mnist(real_data):
    dataset = load_dataset("mnist", real_data)
    assert (len(dataset.train), len(dataset.test)) == (60_000, 10_000)
    assert dataset.note == ""
    # The first labels of the official files.
    assert dataset.train.y[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert abs(dataset.train.x.mean().item()) < 1e-3
    assert abs(dataset.train.x.std().item() - 1) < 1e-3


def test_normalization_can_be_undone(digits):
    pixels = digits.to_pixels(digits.test.x)
    assert pixels.min() > -1e-6
    assert pixels.max() < 1 + 1e-6
    torch.testing.assert_close(digits.from_pixels(pixels), digits.test.x, atol=1e-5, rtol=1e-5)
    # One image, or a stack of stacks, as well as a batch.
    torch.testing.assert_close(digits.to_pixels(digits.test.x[3]), pixels[3])
    torch.testing.assert_close(digits.to_pixels(digits.test.x[None]), pixels[None])


def test_channels_have_a_mean_each(tmp_path):
    x = np.random.default_rng(0).random((20, 3, 4, 5)) * np.array([1, 2, 4])[:, None, None]
    np.savez(tmp_path / "train.npz", x=x, y=np.arange(20) % 2)
    np.savez(tmp_path / "test.npz", x=x, y=np.arange(20) % 2)
    dataset = load_dataset(str(tmp_path))
    np.testing.assert_allclose(dataset.mean, x.mean(axis=(0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(dataset.std, x.std(axis=(0, 2, 3)), rtol=1e-5)
    torch.testing.assert_close(dataset.to_pixels(dataset.train.x).view(20, 3, 4, 5), torch.tensor(x).float())
    darkest = torch.tensor(x.min(axis=(0, 2, 3)), dtype=torch.float32)[:, None].expand(3, 20).reshape(1, 60)
    torch.testing.assert_close(dataset.from_pixels(darkest).view(3, 20)[:, 0], torch.tensor(dataset.black))


def test_black_is_a_pixel_of_zero_normalized(digits):
    assert digits.black == pytest.approx([(digits.test.x.min()).item()])


def test_checksum_is_of_the_content(tmp_path):
    for folder, suffix, seed in (("a", "", 0), ("b", ".gz", 0), ("c", "", 1)):
        write_mnist(tmp_path / folder / "MNIST" / "raw", suffix=suffix, seed=seed)
    plain, packed, other = (load_dataset("mnist", tmp_path / folder).checksum for folder in "abc")
    assert plain == packed != other
    assert len(bytes.fromhex(plain)) == 32
    labels = tmp_path / "a" / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    content = bytearray(labels.read_bytes())
    content[-1] ^= 1
    labels.write_bytes(content)
    assert load_dataset("mnist", tmp_path / "a").checksum != plain


# Validation


def test_validation_is_disjoint_and_stratified_and_keeps_the_order_of_the_rest():
    plain, dataset = load_dataset("digits"), load_dataset("digits", validation=200)
    assert (len(dataset.train), len(dataset.validation)) == (1237, 200)
    rows = {tuple(row): index for index, row in enumerate(plain.train.x.tolist())}
    assert len(rows) == 1437, "two images are alike, so they cannot tell places apart"
    kept, held = ([rows[tuple(row)] for row in split.x.tolist()] for split in (dataset.train, dataset.validation))
    assert sorted(kept + held) == list(range(1437))
    assert kept == sorted(kept)
    torch.testing.assert_close(plain.train.y[held], dataset.validation.y)
    whole = torch.bincount(plain.train.y).double()
    assert ((torch.bincount(dataset.validation.y) - whole * 200 / 1437).abs() <= 1).all()
    assert dataset.checksum == plain.checksum
    torch.testing.assert_close(dataset.test.x, plain.test.x)


def test_validation_does_not_depend_on_any_seed(mnist_folder):
    first = load_dataset("mnist", mnist_folder, validation=10)
    torch.manual_seed(12345)
    np.random.seed(54321)  # noqa: NPY002  # the global state is what must not matter
    again = load_dataset("mnist", mnist_folder, validation=10)
    torch.testing.assert_close(first.validation.x, again.validation.x, rtol=0, atol=0)


def test_loading_does_not_change_global_random_state(mnist_folder):
    before = (torch.get_rng_state(), np.random.get_state()[1].copy())  # noqa: NPY002
    load_dataset("mnist", mnist_folder, validation=10)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()  # noqa: NPY002


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(2, 40), min_size=2, max_size=6), data=st.data())
def test_stratified_split_takes_each_class_in_proportion(sizes, data):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    held_out = data.draw(st.integers(len(sizes), len(labels) - len(sizes)))
    kept, held = stratified_split(labels, held_out)
    assert len(held) == held_out
    assert sorted([*kept, *held]) == list(range(len(labels)))
    counts = np.bincount(labels[held], minlength=len(sizes))
    assert (np.abs(counts - np.array(sizes) * held_out / len(labels)) <= 1).all()


@pytest.mark.parametrize("validation", [-1, 3, 31, 40, 1000])
def test_impossible_validation(mnist_folder, validation):
    with pytest.raises(UserError, match=r"needs 10 to 30"):
        load_dataset("mnist", mnist_folder, validation=validation)


def test_validation_needs_two_images_of_a_class(tmp_path):
    np.savez(tmp_path / "train.npz", x=np.zeros((9, 4, 4), np.uint8), y=[0] * 8 + [1])
    np.savez(tmp_path / "test.npz", x=np.zeros((2, 4, 4), np.uint8), y=[0, 1])
    with pytest.raises(UserError, match="single training image"):
        load_dataset(str(tmp_path), validation=3)


def test_split_by_name(mnist_folder):
    dataset = load_dataset("mnist", mnist_folder, validation=10)
    assert dataset.split("train") is dataset.train
    assert dataset.split("test") is dataset.test
    assert dataset.split("validation") is dataset.validation
    with pytest.raises(UserError, match=r"unknown split 'tests'. Did you mean 'test'\?"):
        dataset.split("tests")
    with pytest.raises(UserError, match="without a validation split"):
        load_dataset("mnist", mnist_folder).split("validation")


# Data folder


def test_folder_then_variable_then_cache(tmp_path, monkeypatch):
    given_folder, named, cache = tmp_path / "given", tmp_path / "named", tmp_path / "cache"
    write_mnist(given_folder / "MNIST" / "raw", 11)
    write_mnist(named / "MNIST" / "raw", 12)
    write_mnist(cache / "plastic" / "data" / "MNIST" / "raw", 13)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    assert len(load_dataset("mnist").train) == 13
    monkeypatch.setenv("PLASTIC_DATA", "")
    assert len(load_dataset("mnist").train) == 13
    monkeypatch.setenv("PLASTIC_DATA", str(named))
    assert len(load_dataset("mnist").train) == 12
    assert len(load_dataset("mnist", given_folder).train) == 11


def test_unknown_name():
    with pytest.raises(UserError) as raised:
        load_dataset("mnits")
    assert str(raised.value).startswith("unknown data set 'mnits'. Did you mean 'mnist'?")
    assert f"Known data sets: {', '.join(DATASETS)}." in str(raised.value)


def test_an_empty_name_is_not_the_current_folder():
    with pytest.raises(UserError, match="unknown data set ''"):
        load_dataset("")


def test_a_path_that_does_not_exist(tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        load_dataset(str(tmp_path / "nowhere"))
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(UserError, match="neither a folder nor an"):
        load_dataset(str(tmp_path / "file.txt"))


def test_missing_set_without_a_download(tmp_path):
    with pytest.raises(UserError) as raised:
        load_dataset("kmnist", tmp_path, download=False)
    text = str(raised.value)
    assert f"kmnist is not in {tmp_path}" in text
    assert str(tmp_path / "KMNIST" / "raw") in text
    assert "train-images-idx3-ubyte" in text
    assert "\n" not in text


def test_only_the_missing_file_is_named(mnist_folder):
    (mnist_folder / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(UserError, match=r"Put t10k-labels-idx1-ubyte into"):
        load_dataset("mnist", mnist_folder, download=False)


def test_a_present_set_is_not_downloaded(mnist_folder, monkeypatch):
    monkeypatch.setattr(download, "download_dataset", lambda *_: pytest.fail("it was downloaded"))
    load_dataset("mnist", mnist_folder)


# Damage


def _raw(folder, name):
    return folder / "MNIST" / "raw" / name


def test_truncated_file(mnist_folder):
    path = _raw(mnist_folder, "train-images-idx3-ubyte")
    os.truncate(path, 1000)
    with pytest.raises(UserError) as raised:
        load_dataset("mnist", mnist_folder)
    assert str(path) in str(raised.value)


def test_truncated_packed_file(tmp_path):
    write_mnist(tmp_path / "MNIST" / "raw", suffix=".gz")
    path = _raw(tmp_path, "t10k-images-idx3-ubyte.gz")
    os.truncate(path, 1000)
    with pytest.raises(UserError) as raised:
        load_dataset("mnist", tmp_path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("train-labels-idx1-ubyte", np.full(40, 10, np.uint8), "the label 10, but labels are 0 to 9"),
        ("train-labels-idx1-ubyte", np.zeros(39, np.uint8), "39 labels for 40 images"),
        ("train-labels-idx1-ubyte", np.zeros((40, 2), np.uint8), "one per image"),
        ("train-labels-idx1-ubyte", np.zeros(40, np.float32), "whole numbers"),
        ("train-labels-idx1-ubyte", np.full(40, -1, np.int8), "the label -1"),
        ("t10k-images-idx3-ubyte", np.zeros((20, 28, 27), np.uint8), "not uint8 images of (28, 28)"),
        ("t10k-images-idx3-ubyte", np.zeros((20, 28, 28), np.float32), "not uint8 images of (28, 28)"),
    ],
)
def test_content_that_does_not_fit(mnist_folder, name, array, message):
    write_idx(_raw(mnist_folder, name), array)
    with pytest.raises(UserError) as raised:
        load_dataset("mnist", mnist_folder)
    assert str(_raw(mnist_folder, name)) in str(raised.value)
    assert message in str(raised.value)


def test_empty_set(tmp_path):
    write_mnist(tmp_path / "MNIST" / "raw", train=0)
    with pytest.raises(UserError, match="holds no labels"):
        load_dataset("mnist", tmp_path)


def test_an_uncompressed_file_takes_precedence(mnist_folder):
    _raw(mnist_folder, "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"rubbish"))
    assert len(load_dataset("mnist", mnist_folder).train) == 40
