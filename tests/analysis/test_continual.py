import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from plastic_cli.analysis.continual import (
    accuracy_matrix,
    accuracy_matrix_frame,
    average_accuracy,
    backward_transfer,
    forgetting,
    forward_transfer,
    intransigence,
)

# Eighths, so that sums of a few are exact.
HAND_MADE = np.array(
    [
        [1 / 8, 2 / 8, 1 / 8],
        [8 / 8, 3 / 8, 0 / 8],
        [4 / 8, 7 / 8, 3 / 8],
        [2 / 8, 6 / 8, 8 / 8],
    ]
)


@st.composite
def matrices(draw):
    tasks = draw(st.integers(1, 6))
    return draw(arrays.arrays(np.float64, (tasks + 1, tasks), elements=st.floats(0, 1)))


@st.composite
def matrices_and_after(draw):
    matrix = draw(matrices())
    return matrix, draw(st.none() | st.integers(0, matrix.shape[1]))


def _r(matrix, after, task):
    """R as papers count: after `after` tasks, on task 1, 2, ..."""
    return matrix[after][task - 1]


def _mean(values):
    return math.fsum(values) / len(values) if values else math.nan


def _same(value, expected):
    assert isinstance(value, float)
    assert value == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_by_hand():
    assert average_accuracy(HAND_MADE) == (2 + 6 + 8) / 24
    assert backward_transfer(HAND_MADE) == ((2 - 8) + (6 - 7)) / 16
    assert forward_transfer(HAND_MADE) == ((3 - 2) + (3 - 1)) / 16
    assert forgetting(HAND_MADE) == ((8 - 2) + (7 - 6)) / 16
    assert average_accuracy(HAND_MADE, 2) == (4 + 7) / 16
    assert backward_transfer(HAND_MADE, 2) == (4 - 8) / 8
    assert forward_transfer(HAND_MADE, 2) == (3 - 2) / 8
    assert forgetting(HAND_MADE, 2) == (8 - 4) / 8
    assert average_accuracy(HAND_MADE, 1) == 1
    joint = np.full((4, 3), np.nan)
    joint[1, 0], joint[2, 1], joint[3, 2] = 1, 1, 7 / 8
    assert [intransigence(HAND_MADE, joint, after) for after in (1, 2, 3, None)] == [0, 1 / 8, -1 / 8, -1 / 8]


def test_the_best_accuracy_of_a_task_can_be_before_or_after_learning_it():
    better_later = [[0.1, 0.1, 0.1], [0.5, 0.1, 0.1], [0.9, 0.5, 0.1], [0.6, 0.5, 0.5]]
    assert forgetting(better_later) == pytest.approx((0.3 + 0) / 2)
    assert backward_transfer(better_later) == pytest.approx((0.1 + 0) / 2)
    better_before = [[0.1, 0.1, 0.1], [0.5, 0.8, 0.1], [0.5, 0.6, 0.1], [0.5, 0.6, 0.5]]
    assert forgetting(better_before) == pytest.approx((0 + 0.2) / 2)
    # The untrained network does not count, and a task that is better than ever before is forgotten by less than 0.
    assert forgetting([[1, 0], [0.25, 0], [0.5, 1]]) == -0.25


@given(matrices_and_after())
def test_against_loops(drawn):
    matrix, after = drawn
    k = matrix.shape[1] if after is None else after
    earlier, later = range(1, k), range(2, k + 1)
    _same(average_accuracy(matrix, after), _mean([_r(matrix, k, j) for j in range(1, k + 1)]))
    _same(backward_transfer(matrix, after), _mean([_r(matrix, k, j) - _r(matrix, j, j) for j in earlier]))
    _same(forward_transfer(matrix, after), _mean([_r(matrix, j - 1, j) - _r(matrix, 0, j) for j in later]))
    fallen = [max(_r(matrix, i, j) for i in range(1, k)) - _r(matrix, k, j) for j in earlier]
    _same(forgetting(matrix, after), _mean(fallen))
    joint = 1 - matrix
    _same(intransigence(matrix, joint, after), _r(joint, k, k) - _r(matrix, k, k) if k else math.nan)


@given(matrices_and_after())
def test_forgetting_is_at_least_minus_backward_transfer(drawn):
    matrix, after = drawn
    k = matrix.shape[1] if after is None else after
    if k >= 2:
        assert forgetting(matrix, after) >= -backward_transfer(matrix, after) - 1e-12
        peaked = matrix.copy()
        for j in range(matrix.shape[1]):
            peaked[j + 1, j] = 1
        _same(forgetting(peaked, after), -backward_transfer(peaked, after))


@given(matrices_and_after())
def test_average_accuracy_is_the_accuracy_just_after_learning_plus_the_change_since(drawn):
    matrix, after = drawn
    k = matrix.shape[1] if after is None else after
    if k >= 2:
        just_learned = _mean([_r(matrix, j, j) for j in range(1, k + 1)])
        _same(average_accuracy(matrix, after), just_learned + (k - 1) / k * backward_transfer(matrix, after))


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6))
def test_accuracies_that_never_change_transfer_nothing(columns):
    matrix = np.tile(columns, (len(columns) + 1, 1))
    for after in range(2, len(columns) + 1):
        assert backward_transfer(matrix, after) == forward_transfer(matrix, after) == forgetting(matrix, after) == 0
        assert intransigence(matrix, matrix, after) == 0
        _same(average_accuracy(matrix, after), _mean(columns[:after]))


@given(matrices(), st.floats(0.1, 100), st.data())
def test_differences_scale_with_the_unit_and_do_not_depend_on_the_level(matrix, unit, data):
    level = data.draw(arrays.arrays(np.float64, matrix.shape[1], elements=st.floats(-1, 1)))
    for measure in (backward_transfer, forward_transfer, forgetting):
        assert measure(unit * matrix + level) == pytest.approx(unit * measure(matrix), abs=1e-9, nan_ok=True)
    moved = intransigence(unit * matrix + level, level + unit * (1 - matrix))
    assert moved == pytest.approx(unit * intransigence(matrix, 1 - matrix), abs=1e-9)


@pytest.mark.filterwarnings("error")
def test_too_few_tasks():
    for matrix, after in ((HAND_MADE, 1), (HAND_MADE, 0), ([[0.5], [1.0]], None), (np.empty((1, 0)), None)):
        assert all(math.isnan(measure(matrix, after)) for measure in (backward_transfer, forward_transfer, forgetting))
    assert math.isnan(average_accuracy(HAND_MADE, 0))
    assert math.isnan(intransigence(HAND_MADE, HAND_MADE, 0))
    assert average_accuracy([[0.5], [1.0]]) == 1


@pytest.mark.filterwarnings("error")
def test_accuracies_that_were_not_measured():
    # Only tasks already learned were measured, and training stopped after the second of three.
    matrix = np.where(np.tril(np.ones((4, 3)), -1) > 0, HAND_MADE, np.nan)
    matrix[3] = np.nan
    assert forgetting(matrix, 2) == forgetting(HAND_MADE, 2)
    assert backward_transfer(matrix, 2) == backward_transfer(HAND_MADE, 2)
    assert average_accuracy(matrix, 2) == average_accuracy(HAND_MADE, 2)
    assert math.isnan(forward_transfer(matrix, 2))
    for measure in (average_accuracy, backward_transfer, forward_transfer, forgetting):
        assert math.isnan(measure(matrix))
    unseen = HAND_MADE.copy()
    unseen[1:3, 0] = np.nan
    assert math.isnan(forgetting(unseen))


def test_a_tensor_is_accepted_as_a_matrix():
    assert forgetting(torch.from_numpy(HAND_MADE)) == forgetting(HAND_MADE.tolist()) == forgetting(HAND_MADE)


@pytest.mark.parametrize("matrix", [np.ones((3, 3)), np.ones(3), np.ones((2, 3)), np.ones((3, 2, 1))])
def test_other_shapes_are_refused(matrix):
    for measure in (average_accuracy, backward_transfer, forward_transfer, forgetting, accuracy_matrix_frame):
        with pytest.raises(ValueError, match=r"\(tasks \+ 1, tasks\)"):
            measure(matrix)


def test_invalid_numbers_of_tasks_are_refused():
    for after in (-1, 4):
        with pytest.raises(ValueError, match="0 to 3 can be learned"):
            average_accuracy(HAND_MADE, after)
    with pytest.raises(ValueError, match="joint training"):
        intransigence(HAND_MADE, np.ones((3, 2)))


def test_frame_by_hand():
    frame = accuracy_matrix_frame([[0.1, 0.2], [0.9, 0.3], [0.5, np.nan]])
    assert list(frame.columns) == ["after", "task", "accuracy"]
    assert frame["after"].tolist() == [0, 0, 1, 1, 2, 2]
    assert frame["task"].tolist() == [1, 2, 1, 2, 1, 2]
    assert frame["accuracy"].tolist()[:5] == [0.1, 0.2, 0.9, 0.3, 0.5]
    assert math.isnan(frame["accuracy"].iloc[5])


@given(matrices(), st.randoms(use_true_random=False))
def test_a_matrix_is_restored_from_its_frame_in_any_order(matrix, random):
    order = list(range(matrix.size))
    random.shuffle(order)
    np.testing.assert_array_equal(accuracy_matrix(accuracy_matrix_frame(matrix).iloc[order]), matrix)


def test_a_matrix_is_restored_from_a_file(tmp_path):
    matrix = np.random.default_rng(0).random((6, 5))
    matrix[2, 3] = np.nan
    accuracy_matrix_frame(matrix).to_csv(tmp_path / "accuracy_matrix.csv", index=False)
    np.testing.assert_array_equal(accuracy_matrix(pd.read_csv(tmp_path / "accuracy_matrix.csv")), matrix)


def test_missing_and_duplicate_entries():
    frame = accuracy_matrix_frame(HAND_MADE)
    some = accuracy_matrix(frame[frame["task"] <= frame["after"]])
    assert np.isnan(some[0]).all()
    np.testing.assert_array_equal(np.isnan(some), np.triu(np.ones((4, 3)), 0) > 0)
    assert forgetting(some) == forgetting(HAND_MADE)
    with pytest.raises(ValueError, match="duplicate entry"):
        accuracy_matrix(pd.concat([frame, frame[:1]]))
