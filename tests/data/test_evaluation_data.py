"""A trained network is evaluated on compatible data; otherwise the error says why not."""

import numpy as np
import pytest

from plastic_cli.classifier.data import data_for
from plastic_cli.data.datasets import load_dataset
from plastic_cli.errors import UserError
from plastic_cli.runs.folder import create_run

_NAMES = np.array(["ant", "bee", "cow"])


def _save(path, x, y):
    np.savez(path, x_train=x, y_train=y, x_test=x[:12], y_test=y[:12])
    return str(path)


@pytest.fixture
def images():
    return np.random.default_rng(0).random((30, 6, 7)).astype(np.float32)


@pytest.fixture
def trained(tmp_path):
    """Make a run that was trained on the given data."""

    def make(x, y):
        name = _save(tmp_path / "learned.npz", x, y)
        run = create_run(tmp_path / "runs", rule="witness", config={"seed": 5}, dataset=name)
        run.describe_data(**load_dataset(name).description())
        return run

    return make


_Y = np.arange(30) % 3


@pytest.mark.parametrize(
    ("change", "labels"),
    [
        (lambda x: x, _Y),
        (lambda x: x * 0.5, _Y),
        (lambda x: x * 1.3 - 0.1, _Y),
        (lambda x: x, _Y % 2),
        (lambda x: x, _NAMES[_Y]),
    ],
)
def test_compatible_data_are_accepted(tmp_path, trained, images, change, labels):
    run = trained(images, _NAMES[_Y])
    other = _save(tmp_path / "other.npz", change(images), labels)
    assert data_for(run, other).checksum == load_dataset(other).checksum


@pytest.mark.parametrize(
    ("change", "labels", "message"),
    [
        (lambda x: x[:, 1:], _Y, "its images are 1 x 5 x 7, run .* was trained on 1 x 6 x 7"),
        (lambda x: x, _Y + 1, "it has 4 classes, run .* was trained on 3 classes"),
        (lambda x: x, np.array(["ant", "bee", "dog"])[_Y], "its class 2 is dog, run .* was trained on cow as class 2"),
        (lambda x: x * 255, _Y, "its pixels are from .* to 2.*, run .* was trained on pixels from .* to"),
        (lambda x: x * 2 - 1, _Y, "Store both in the same units"),
        (lambda x: (x - 0.13) / 0.31, _Y, "Store both in the same units"),
    ],
)
def test_incompatible_data_are_errors(tmp_path, trained, images, change, labels, message):
    run = trained(images, _NAMES[_Y])
    other = _save(tmp_path / "other.npz", change(images), labels)
    with pytest.raises(UserError, match=message) as raised:
        data_for(run, other)
    assert "--dataset other.npz" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_bytes_and_floats_from_0_to_1_are_the_same_units(tmp_path, trained, images):
    run = trained((images * 255).astype(np.uint8), _Y)
    data_for(run, _save(tmp_path / "other.npz", images, _Y))


def test_an_old_run_without_range_and_names_can_be_evaluated(tmp_path, trained, images):
    run = trained(images, _NAMES[_Y])
    run.write_record(
        data={key: value for key, value in run.record.data.items() if key not in ("pixels", "class_names")}
    )
    data_for(run, _save(tmp_path / "other.npz", images * 255, _Y))


def test_names_of_known_sets_are_compared(tmp_path, mnist_folder):
    """Letters are not digits, even if there are enough outputs."""
    from data.tiny_sets import write_idx

    for split in ("balanced", "letters"):
        for part in ("train", "test"):
            first, classes = (1, 26) if split == "letters" else (0, 47)
            prefix = mnist_folder / "EMNIST" / "raw" / f"emnist-{split}-{part}"
            x = np.random.default_rng(0).integers(0, 256, (60, 28, 28), dtype=np.uint8)
            write_idx(prefix.with_name(f"{prefix.name}-images-idx3-ubyte"), x)
            labels = (np.arange(60) % classes + first).astype(np.uint8)
            write_idx(prefix.with_name(f"{prefix.name}-labels-idx1-ubyte"), labels)
    run = create_run(mnist_folder / "runs", rule="witness", config={"seed": 5}, dataset="emnist")
    run.data_folder = mnist_folder
    run.describe_data(**load_dataset("emnist", mnist_folder).description())
    assert data_for(run, "mnist").classes == 10
    with pytest.raises(UserError, match=r"its class 10 is k, run .* was trained on A as class 10"):
        data_for(run, "emnist-letters")
