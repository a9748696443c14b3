"""Linear decoding of past inputs, and of the environment's info, from h and from M.

A linear decoder is fitted to some episodes and tested on others. Its score is compared with that of a decoder of
shuffled targets: those of another episode at the same step. The shuffled score shows what the time alone predicts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.model_selection import GroupKFold
from threadpoolctl import threadpool_limits

from plastic_cli.errors import UserError
from plastic_mpn.analysis.principal_components import state_sequences
from plastic_mpn.analysis.recording import Episode

Array = NDArray[np.float64]

LAGS = (0, 1, 2, 5, 10)
MAX_COMPONENTS_OF_M = 100
"""Maximum number of principal components of M."""
MAX_STEPS = 4000
FOLDS = 5
MIN_EPISODES = 5
MAX_CLASSES = 10
MAX_SEPARATE_COLUMNS = 8
"""Observations and info entries with at most this many numbers are also scored number by number."""
PENALTIES = (1e-6, 1e-4, 1e-2, 1.0, 100.0)
"""The candidate L2 penalties, as multiples of the number of training steps."""


@dataclass(frozen=True)
class Target:
    """A quantity to decode: one array (T, k) for each episode, with NaN in rows without a value.

    score: "R2" (mean over the k columns), or "accuracy" for classes, where the columns are one-hot.
    """

    name: str
    lag: int
    score: Literal["R2", "accuracy"]
    episodes: list[Array]
    columns: tuple[str, ...] = ()


def find_targets(episodes: Sequence[Episode], lags: Sequence[int] = LAGS) -> list[Target]:
    """Return the targets: the observation `lag` steps ago for each lag, and every entry of the present info.

    Entries of up to eight numbers are regression targets. Strings, booleans and integers with at most ten different
    values are classes. Constant entries are left out, and so are lags that are longer than every episode.
    """
    longest = max(len(episode) for episode in episodes)
    width = episodes[0].observations.shape[1]
    columns = tuple(f"observation-{index}" for index in range(width)) if width <= MAX_SEPARATE_COLUMNS else ()
    targets = [
        Target("observation", lag, "R2", [_delayed(episode.observations, lag) for episode in episodes], columns)
        for lag in sorted(set(lags))
        if lag < longest
    ]
    names = sorted({name for episode in episodes for info in episode.infos for name in info})
    for name in names:
        found = _entry(name, [[info.get(name) for info in episode.infos] for episode in episodes])
        if found is not None:
            targets.append(found)
    return targets


def decode(
    episodes: Sequence[Episode],
    *,
    lags: Sequence[int] = LAGS,
    shuffles: int = 5,
    seed: int = 0,
) -> pd.DataFrame:
    """Return how well ridge regression decodes each target from h and from M, out of sample.

    Columns: state ("h": h_t; "M": M_{t-1}, which does not depend on the input of step t yet), target, lag, score ("R2"
    or "accuracy"), value, chance (mean over shuffles), chance_low, chance_high (minimum and maximum), steps.

    Cross-validated over 5 folds of whole episodes. R2 is pooled over the held-out steps of all folds, and averaged over
    the columns of a target that vary. Classes are decoded by regression on their one-hot encoding; the largest output
    is the prediction. The units of h are standardized. M is reduced to its first 100 principal components. Both are
    fitted to the training folds only. A fifth of the training episodes selects the penalty. At most 4000 random steps
    are used. Raises UserError for fewer than 5 episodes.
    """
    if len(episodes) < MIN_EPISODES:
        raise UserError(f"--decode needs at least {MIN_EPISODES} episodes for cross-validation, not {len(episodes)}.")
    rng = np.random.default_rng(seed)
    steps = np.concatenate([np.arange(len(episode)) for episode in episodes])
    groups = np.repeat(np.arange(len(episodes)), [len(episode) for episode in episodes])
    chosen = np.sort(rng.choice(len(steps), min(len(steps), MAX_STEPS), replace=False))
    steps, groups = steps[chosen], groups[chosen]
    targets = find_targets(episodes, lags)
    partners = [_other_episodes(len(episodes), rng) for _ in range(shuffles)]
    rows: list[dict[str, Any]] = []
    with threadpool_limits(limits=1):
        for state, sequences in state_sequences(episodes).items():
            states = np.concatenate([sequence[steps[groups == number]] for number, sequence in enumerate(sequences)])
            folds = _folds(states, groups, reduce=state == "M", seed=seed)
            for target in targets:
                actual = _decode(target, folds, groups, np.arange(len(episodes)), steps)
                shuffled = [_decode(target, folds, groups, other, steps) for other in partners]
                rows += _rows(state, target, actual, shuffled)
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class _Fold:
    """The prepared states of one fold; fit, validation, test: masks of the steps."""

    states: Array
    fit: NDArray[np.bool_]
    validation: NDArray[np.bool_]
    test: NDArray[np.bool_]


@dataclass(frozen=True)
class _Score:
    score: float
    by_column: Array
    steps: int


def _folds(states: NDArray[np.float32], groups: NDArray[np.int64], *, reduce: bool, seed: int) -> list[_Fold]:
    folds = []
    for train, _ in GroupKFold(min(FOLDS, len(np.unique(groups)))).split(states, groups=groups):
        training = np.zeros(len(states), np.bool_)
        training[train] = True
        members = np.random.default_rng(seed).permutation(np.unique(groups[train]))
        validation = training & np.isin(groups, members[: max(1, len(members) // 5)])
        folds.append(_Fold(_prepared(states, training, reduce, seed), training & ~validation, validation, ~training))
    return folds


def _prepared(states: NDArray[np.float32], training: NDArray[np.bool_], reduce: bool, seed: int) -> Array:
    known = states[training].astype(np.float64)
    if not np.ptp(known, axis=0).any():
        return np.zeros((len(states), 1))
    if not reduce:
        deviation = known.std(axis=0)
        # A deviation as small as float32 rounding counts as zero.
        varies = deviation > 1e-6 * np.abs(known.mean(axis=0))
        standardized: Array = (states[:, varies] - known.mean(axis=0)[varies]) / deviation[varies]
        return standardized
    model = PCA(min(MAX_COMPONENTS_OF_M, *known.shape), random_state=seed).fit(known)
    # One factor for all components, so that small ones stay small relative to the penalty.
    scale = np.sqrt(model.explained_variance_.mean())
    reduced: Array = model.transform(states.astype(np.float64)) / scale
    return reduced


def _decode(
    target: Target,
    folds: Sequence[_Fold],
    groups: NDArray[np.int64],
    partners: NDArray[np.int64],
    steps: NDArray[np.int64],
) -> _Score:
    """Decode the target of episode `partners[i]` from the states of episode i, at steps that both have."""
    values = np.full((len(steps), target.episodes[0].shape[1]), np.nan)
    for group in np.unique(groups):
        source, rows = target.episodes[partners[group]], np.flatnonzero(groups == group)
        rows = rows[steps[rows] < len(source)]
        values[rows] = source[steps[rows]]
    known = np.isfinite(values).all(axis=1)
    predictions = np.full_like(values, np.nan)
    for fold in folds:
        fit, validation, test = fold.fit & known, fold.validation & known, fold.test & known
        if fit.sum() < 2 or not validation.any() or not test.any():
            continue
        predictions[test] = _predicted(fold, values, fit, validation, test)
    decoded = np.isfinite(predictions).all(axis=1)
    truth, predicted = values[decoded], predictions[decoded]
    if not decoded.any():
        return _Score(float("nan"), np.full(values.shape[1], np.nan), 0)
    if target.score == "accuracy":
        accuracy = float(np.mean(predicted.argmax(axis=1) == truth.argmax(axis=1)))
        return _Score(accuracy, np.array([]), int(decoded.sum()))
    by_column = _r2(truth, predicted)
    score = float(np.nanmean(by_column)) if np.isfinite(by_column).any() else float("nan")
    return _Score(score, by_column, int(decoded.sum()))


def _predicted(
    fold: _Fold, values: Array, fit: NDArray[np.bool_], validation: NDArray[np.bool_], test: NDArray[np.bool_]
) -> Array:
    """Return predictions for the test steps. The validation steps select the penalty; the final fit uses both parts."""
    tried = _ridge_regressions(fold.states[fit], values[fit], PENALTIES)
    validated = fold.states[validation]
    errors = [np.mean((validated @ weights + intercept - values[validation]) ** 2) for weights, intercept in tried]
    both = fit | validation
    (weights, intercept) = _ridge_regressions(fold.states[both], values[both], [PENALTIES[int(np.argmin(errors))]])[0]
    predictions: Array = fold.states[test] @ weights + intercept
    return predictions


def _ridge_regressions(x: Array, y: Array, penalties: Sequence[float]) -> list[tuple[Array, Array]]:
    """Return weights (p, k) and intercept (k,) of x (n, p), y (n, k) for each penalty, in multiples of n.

    One eigendecomposition serves all penalties and columns. A library would need one for each.
    """
    center, mean = x.mean(axis=0), y.mean(axis=0)
    centered = x - center
    eigenvalues, directions = np.linalg.eigh(centered.T @ centered / len(x))
    projected = directions.T @ (centered.T @ (y - mean)) / len(x)
    found = []
    for penalty in penalties:
        weights = directions @ (projected / (eigenvalues.clip(0) + penalty)[:, None])
        found.append((weights, mean - center @ weights))
    return found


def _r2(truth: Array, predicted: Array) -> Array:
    """Return 1 - (residual sum of squares) / (total sum of squares) of each column; NaN for constant columns."""
    total = np.sum((truth - truth.mean(axis=0)) ** 2, axis=0)
    residual = np.sum((truth - predicted) ** 2, axis=0)
    return np.where(total > 1e-12 * len(truth), 1 - residual / np.where(total > 0, total, 1.0), np.nan)


def _rows(state: str, target: Target, actual: _Score, shuffled: Sequence[_Score]) -> list[dict[str, Any]]:
    def row(name: str, value: float, chance: Sequence[float]) -> dict[str, Any]:
        finite = [score for score in chance if np.isfinite(score)] or [float("nan")]
        return {
            "state": state,
            "target": name,
            "lag": target.lag,
            "score": target.score,
            "value": value,
            "chance": float(np.mean(finite)),
            "chance_low": min(finite),
            "chance_high": max(finite),
            "steps": actual.steps,
        }

    if not actual.steps:
        return []
    rows = [row(target.name, actual.score, [score.score for score in shuffled])]
    for index, name in enumerate(target.columns):
        if np.isfinite(actual.by_column[index]):
            rows.append(
                row(name, float(actual.by_column[index]), [float(score.by_column[index]) for score in shuffled])
            )
    return rows


def _other_episodes(episodes: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return another episode for each episode: the next one in a random cycle."""
    order = rng.permutation(episodes)
    partners = np.empty(episodes, np.int64)
    partners[order] = np.roll(order, -1)
    return partners


def _delayed(values: NDArray[np.float32], lag: int) -> Array:
    delayed = np.full(values.shape, np.nan)
    # An episode may be shorter than the lag.
    delayed[lag:] = values[: max(len(values) - lag, 0)]
    return delayed


def _entry(name: str, values: Sequence[Sequence[Any]]) -> Target | None:
    """Return an info entry as a target; None if it is constant, or neither a string nor at most eight numbers."""
    given = [np.asarray(value) for episode in values for value in episode if value is not None]
    if not given or len({value.shape for value in given}) > 1 or given[0].size > MAX_SEPARATE_COLUMNS:
        return None
    types = {value.dtype.kind for value in given}
    kinds = sorted({str(value) for value in given})
    if not types <= set("biufU") or len(kinds) < 2:
        return None
    if given[0].ndim == 0 and "f" not in types and len(kinds) <= MAX_CLASSES:
        return Target(name, 0, "accuracy", [_indicators(episode, kinds) for episode in values])
    if "U" in types:
        return None
    size = given[0].size
    missing = np.full(size, np.nan)
    episodes = [
        np.stack([missing if value is None else np.asarray(value, np.float64).ravel() for value in episode])
        for episode in values
    ]
    return Target(name, 0, "R2", episodes, tuple(f"{name}-{index}" for index in range(size)) if size > 1 else ())


def _indicators(values: Sequence[Any], kinds: Sequence[str]) -> Array:
    indicators = np.full((len(values), len(kinds)), np.nan)
    for row, value in enumerate(values):
        if value is not None:
            indicators[row] = [str(np.asarray(value)) == kind for kind in kinds]
    return indicators
