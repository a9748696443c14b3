"""Labels of every form are read."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plastic_cli.data.labels import number_classes, read_labels
from plastic_cli.errors import UserError

_FILE = Path("folder/train.npz")
_FORMS = {
    "a row": lambda y: y,
    "a column": lambda y: y[:, None],
    "a row of a matrix": lambda y: y[None],
    "floats": lambda y: y.astype(np.float32),
    "bytes": lambda y: y.astype(np.uint8),
    "big-endian": lambda y: y.astype(">i8"),
    "one-hot": lambda y: np.eye(7)[y],
    "one-hot, true and false": lambda y: np.eye(7, dtype=bool)[y],
    "one-hot, number last": lambda y: np.eye(7)[y].T,
    "text": lambda y: y.astype(str),
    "text of bytes": lambda y: y.astype("S3"),
    "text of floats": lambda y: np.char.add(y.astype(str), ".0"),
}


@pytest.mark.parametrize("form", _FORMS)
@given(y=st.lists(st.integers(0, 6), min_size=8, max_size=30).map(np.array))
def test_every_form_of_a_label_is_the_same_label(form, y):
    labels = read_labels(_FORMS[form](y), len(y), _FILE)
    assert labels.y.tolist() == y.tolist()
    assert labels.y.dtype == np.int64
    assert labels.names == ()


def test_true_and_false_are_two_classes():
    assert read_labels(np.array([True, False, True]), 3, _FILE).y.tolist() == [1, 0, 1]


def _both(train, test):
    train, test = np.array(train), np.array(test)
    return number_classes(
        read_labels(train, len(train), _FILE), read_labels(test, len(test), Path("folder/test.npz")), Path("folder")
    )


def test_names_are_numbered_in_their_order_over_both_splits():
    train_y, test_y, names, notes = _both(["fox", "ant ", "fox", "cat"], ["dog", "ant"])
    assert names == ("ant", "cat", "dog", "fox")
    assert train_y.tolist() == [3, 0, 3, 1]
    assert test_y.tolist() == [2, 0]
    assert "classes in order: ant, cat, dog, fox" in notes
    assert "1 of the classes have no training image" in notes
    assert "2 of the classes have no test image" in notes


def test_columns_without_an_image_count_as_classes():
    _, _, names, _ = _both(np.eye(4)[[0, 1, 0, 1]], np.eye(4)[[0, 1]])
    assert len(names) == 4


def test_numbers_stay_as_stored():
    """A set without class 0 must agree with one that has it."""
    train_y, _, names, notes = _both([1, 2, 3, 1], [3, 2])
    assert train_y.tolist() == [1, 2, 3, 1]
    assert names == ("0", "1", "2", "3")
    assert "labels start at 1: store y - 1 if classes should start at 0" in notes


def test_the_note_on_gaps_does_not_advise_to_shift():
    _, _, names, notes = _both([0, 1, 4, 4, 1, 0], [0, 1, 4])
    assert len(names) == 5
    assert "2 of the classes 0 to 4 have no training image" in notes
    assert not any("begin at" in note for note in notes)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0.5, 1, 2]), "it holds the label 0.5. Store whole numbers"),
        (np.array([0, np.nan, 2]), "not finite numbers"),
        (np.array([0, 1, 1e300]), "it holds the label 1e+300"),
        (np.array([-1, 1, -1]), "write (y > 0)"),
        (np.array([-1, 0, 2]), "the label -1: number the classes from 0 on"),
        (np.array([0, 1, 2**64 - 1], np.uint64), "number the classes from 0 on"),
        (np.array([1j, 0, 1]), "labels are complex128"),
        (np.array(["2020-01-01"] * 3, "M8[D]"), "labels are datetime64[D]"),
        (np.array([b"\xff", b"a", b"b"]), "not UTF-8"),
        (np.array(["a", " ", "b"]), "some labels are empty"),
        (np.array(0), "labels have the shape ()"),
        (np.zeros((3, 2, 2)), "labels have the shape (3, 2, 2)"),
        (np.full((3, 4), 0.25), "are not one-hot. Store one class number for each image, such as y.argmax(1)"),
        (np.eye(4)[:, :2], "labels have the shape (4, 2) for 3 images"),
        (np.array([0, 1]), "it holds 2 labels for 3 images"),
    ],
)
def test_the_error_for_invalid_labels_says_what_to_store(labels, message):
    with pytest.raises(UserError) as raised:
        read_labels(labels, 3, _FILE)
    assert str(raised.value).startswith(f"{_FILE}: ")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (["a", "b"], [0, 1], "training labels are text and test labels are numbers"),
        ([0, 1], ["a", "b"], "test labels are text and training labels are numbers"),
        ([0, 0], [0], "all labels are 0. A data set needs at least two classes"),
        (["a", "a"], ["a"], "all labels are a. A data set needs at least two classes"),
        ([0, 1], [1002], "the highest label is 1,002, but there are 2 training images"),
    ],
)
def test_incompatible_splits_are_errors(train, test, message):
    with pytest.raises(UserError) as raised:
        _both(train, test)
    assert message in str(raised.value)
