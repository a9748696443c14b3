"""The R^2 and the decoding accuracy of networks that integrate, as in Aitken & Mihalas (eLife 12:e83035, 2023)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import LinearSVC

Array = NDArray[np.floating[Any]]


def variance_explained(regressors: Array, activity: Array) -> float:
    """Return R^2 of activity (samples, units) fitted linearly, with an intercept, on regressors (samples, k).

    As published, R^2 is scikit-learn's `LinearRegression.score` on the fitted samples: the unweighted mean of the R^2
    of all units, where a constant unit has 1.
    """
    fitted = LinearRegression().fit(regressors, activity).predict(regressors)
    return float(r2_score(activity, fitted, multioutput="uniform_average"))


def relative_evidence(evidence: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the count of each class minus the mean over the classes: (..., classes)."""
    return np.asarray(evidence - evidence.mean(axis=-1, keepdims=True), np.float64)


def input_indicators(indices: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return a one-hot encoding (samples, inputs) of the inputs that occur in indices (samples,)."""
    return np.asarray(indices[:, None] == np.unique(indices), np.float64)


def decoding_accuracy(
    states: Array,
    labels: NDArray[np.int64],
    held_out_states: Array,
    held_out_labels: NDArray[np.int64],
    components: int = 100,
) -> float:
    """Return the held-out accuracy of a linear support vector classifier of states (trials, features).

    With more features than `components`, the states are first reduced to that many principal components of the trials
    that the classifier is fitted to.
    """
    kept = min(components, len(states))
    if states.shape[1] > kept:
        pca = PCA(kept, svd_solver="randomized", random_state=0).fit(states)
        states, held_out_states = pca.transform(states), pca.transform(held_out_states)
    classifier = LinearSVC(dual="auto", random_state=0, max_iter=10_000).fit(states, labels)
    return float(classifier.score(held_out_states, held_out_labels))


def cross_validated_accuracy(states: Array, labels: NDArray[np.int64], folds: int = 10) -> float:
    """Return the cross-validated accuracy of a linear support vector classifier of states (trials, features).

    The mean over stratified folds. Raises ValueError if a label has fewer trials than there are folds.
    """
    scores = [
        decoding_accuracy(states[fit], labels[fit], states[held_out], labels[held_out])
        for fit, held_out in StratifiedKFold(folds, shuffle=True, random_state=0).split(states, labels)
    ]
    return float(np.mean(scores))
