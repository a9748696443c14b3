"""Measures of continual learning, computed from the accuracies on each task after each task.

The accuracy matrix R is (tasks + 1, tasks), in any unit. R[k, j] is the accuracy on task j + 1 after the first k tasks
were learned: R[0] is for the untrained network, and R[j + 1, j] for a task that was just learned. Formulas count tasks
from 1, as papers do: R_{k,j} = R[k, j - 1]. Accuracies that were not measured are nan.

after: number of tasks learned so far, all of them if None. Results have the unit of R. They are nan if too few tasks
are learned or if a needed accuracy was not measured. All functions raise ValueError for a matrix of another shape and
for an invalid `after`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray


def average_accuracy(accuracies: ArrayLike, after: int | None = None) -> float:
    """Return the mean accuracy on the k tasks learned so far: 1/k sum_{j<=k} R_{k,j}.

    Lopez-Paz & Ranzato 2017, "Gradient episodic memory for continual learning", NeurIPS 30 (there after all tasks).
    """
    matrix, learned = _matrix(accuracies, after)
    return _mean(matrix[learned, :learned])


def backward_transfer(accuracies: ArrayLike, after: int | None = None) -> float:
    """Return the mean change of accuracy on tasks since they were learned: 1/(k-1) sum_{j<k} (R_{k,j} - R_{j,j}).

    Lopez-Paz & Ranzato 2017 (there after all tasks; their code divides the same sum by k). Negative if tasks are
    forgotten; nan for fewer than two tasks.
    """
    matrix, learned = _matrix(accuracies, after)
    earlier = slice(0, max(learned - 1, 0))
    just_learned = matrix.diagonal(-1)
    return _mean(matrix[learned, earlier] - just_learned[earlier])


def forward_transfer(accuracies: ArrayLike, after: int | None = None) -> float:
    """Return how much earlier tasks help on the next task: 1/(k-1) sum_{1<j<=k} (R_{j-1,j} - b_j).

    b_j = R_{0,j}, the accuracy of the same network before any training. Lopez-Paz & Ranzato 2017 (there after all
    tasks; their code divides the same sum by k). nan for fewer than two tasks.
    """
    matrix, learned = _matrix(accuracies, after)
    later = slice(1, learned)
    before_learning = matrix.diagonal()
    return _mean(before_learning[later] - matrix[0, later])


def forgetting(accuracies: ArrayLike, after: int | None = None) -> float:
    """Return the mean drop of tasks below their best accuracy: 1/(k-1) sum_{j<k} (max_{1<=l<k} R_{l,j} - R_{k,j}).

    Chaudhry, Dokania, Ajanthan & Torr 2018, "Riemannian walk for incremental learning", ECCV. At least minus the
    backward transfer, and equal to it if every task had its best accuracy just after it was learned. Negative if tasks
    are better than ever before. The maximum ignores accuracies that were not measured. nan for fewer than two tasks.
    """
    matrix, learned = _matrix(accuracies, after)
    if learned < 2:
        return float("nan")
    best = np.fmax.reduce(matrix[1:learned, : learned - 1], axis=0)
    return _mean(best - matrix[learned, : learned - 1])


def intransigence(accuracies: ArrayLike, joint: ArrayLike, after: int | None = None) -> float:
    """Return the accuracy of joint training on the last task minus that of the network: a*_k - R_{k,k}.

    joint: the accuracy matrix of a network trained on all of the first k tasks together, for each k;
    a*_k = joint_{k,k}. Chaudhry et al. 2018. nan before the first task.
    """
    matrix, learned = _matrix(accuracies, after)
    reference, _ = _matrix(joint, after)
    if matrix.shape != reference.shape:
        raise ValueError(f"The accuracies are {matrix.shape} and those of joint training {reference.shape}.")
    return float(reference[learned, learned - 1] - matrix[learned, learned - 1]) if learned else float("nan")


def accuracy_matrix_frame(accuracies: ArrayLike) -> pd.DataFrame:
    """Return one row for each entry: after (tasks learned, from 0), task (from 1) and accuracy."""
    matrix, _ = _matrix(accuracies, None)
    after, task = np.indices(matrix.shape)
    return pd.DataFrame({"after": after.ravel(), "task": task.ravel() + 1, "accuracy": matrix.ravel()})


def accuracy_matrix(frame: pd.DataFrame) -> NDArray[np.float64]:
    """Return the matrix with the entries of `frame`, which has the columns of `accuracy_matrix_frame`.

    Missing entries are nan. Raises ValueError for a duplicate entry.
    """
    if frame.duplicated(["after", "task"]).any():
        raise ValueError("The accuracy matrix has a duplicate entry.")
    tasks = int(frame[["after", "task"]].max().max())
    matrix = np.full((tasks + 1, tasks), np.nan)
    matrix[frame["after"], frame["task"] - 1] = frame["accuracy"]
    return matrix


def _matrix(accuracies: ArrayLike, after: int | None) -> tuple[NDArray[np.float64], int]:
    """Check the accuracies, and return them as a matrix with the number of tasks learned."""
    matrix = np.asarray(accuracies, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] + 1:
        raise ValueError(f"An accuracy matrix is (tasks + 1, tasks), not {matrix.shape}.")
    tasks = matrix.shape[1]
    learned = tasks if after is None else after
    if not 0 <= learned <= tasks:
        raise ValueError(f"Of {tasks} tasks 0 to {tasks} can be learned, not {learned}.")
    return matrix, learned


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else float("nan")
