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


def variance_explained(regressors: Array, activity: Array, *, weighted: bool = False) -> float:
    """Return R^2 of activity (samples, units) fitted linearly, with an intercept, on regressors (samples, k).

    As published, R^2 is that of scikit-learn's `LinearRegression.score` on the fitted samples: the mean over the units
    of each unit's R^2, however little the unit varies, and 1 for a unit that is constant. weighted: weight the units by
    their variance instead, which gives the share of the population's variance.
    """
    fitted = LinearRegression().fit(regressors, activity).predict(regressors)
    return float(r2_score(activity, fitted, multioutput="variance_weighted" if weighted else "uniform_average"))


def relative_evidence(evidence: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return how far each class's count (..., classes) is ahead of the mean over the classes."""
    return np.asarray(evidence - evidence.mean(axis=-1, keepdims=True), np.float64)


def input_indicators(indices: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return indices (samples,) as one column of zeros and ones for each input that occurs: (samples, inputs)."""
    return np.asarray(indices[:, None] == np.unique(indices), np.float64)


def decoding_accuracy(
    states: Array,
    labels: NDArray[np.int64],
    held_out_states: Array,
    held_out_labels: NDArray[np.int64],
    components: int = 100,
) -> float:
    """Return how many held-out labels a linear support vector classifier finds from the states (trials, features).

    Where there are more features than `components`, the states are first cut to that many principal components, which
    are those of the trials that the classifier is fitted on.
    """
    kept = min(components, len(states))
    if states.shape[1] > kept:
        pca = PCA(kept, svd_solver="randomized", random_state=0).fit(states)
        states, held_out_states = pca.transform(states), pca.transform(held_out_states)
    classifier = LinearSVC(dual="auto", random_state=0, max_iter=10_000).fit(states, labels)
    return float(classifier.score(held_out_states, held_out_labels))


def cross_validated_accuracy(states: Array, labels: NDArray[np.int64], folds: int = 10) -> float:
    """Return how many labels a linear support vector classifier finds from states (trials, features) it did not see.

    The mean over the folds, which hold equal shares of the labels. Raises ValueError for fewer trials of a label than
    folds.
    """
    scores = [
        decoding_accuracy(states[fit], labels[fit], states[held_out], labels[held_out])
        for fit, held_out in StratifiedKFold(folds, shuffle=True, random_state=0).split(states, labels)
    ]
    return float(np.mean(scores))
