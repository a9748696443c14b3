"""Principal components and effective dimension of the hidden states and of M over many episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits

from plastic_cli.analysis.dimensionality import participation_ratio
from plastic_cli.errors import UserError, did_you_mean
from plastic_mpn.analysis.recording import Episode

COMPONENTS = 10
MAX_STEPS = 4000
"""Maximum number of random steps from which components are computed; limits the cost for a large M."""


@dataclass(frozen=True)
class PrincipalComponents:
    """The principal components of states with p numbers each.

    variance_ratios (k,): explained fraction of the total variance, the largest first. participation_ratio: effective
    number of dimensions, from the whole spectrum. mean (p,), directions (k, p). steps: number of steps used.
    """

    variance_ratios: NDArray[np.float64]
    participation_ratio: float
    mean: NDArray[np.float64]
    directions: NDArray[np.float64]
    steps: int

    def project(self, states: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Return the coordinates (..., k) of states (..., p)."""
        coordinates: NDArray[np.float64] = (states - self.mean) @ self.directions.T
        return coordinates


def principal_components(
    sequences: Sequence[NDArray[np.floating[Any]]], components: int = COMPONENTS, *, seed: int = 0
) -> PrincipalComponents | None:
    """Return the first principal components of the states (T, p) of all episodes; None if they are constant.

    Of more than `MAX_STEPS` steps, that many are drawn at random with `seed`. scikit-learn selects the solver: the
    covariance for a small p, a randomized solver for a large one.
    """
    lengths = [len(sequence) for sequence in sequences]
    used = np.zeros(sum(lengths), np.bool_)
    used[np.random.default_rng(seed).permutation(len(used))[:MAX_STEPS]] = True
    parts = np.split(used, np.cumsum(lengths)[:-1])
    chosen = [sequence[part] for sequence, part in zip(sequences, parts, strict=True)]
    # The states of saturated units differ only in the last digits of float32.
    states = np.concatenate(chosen).astype(np.float64)
    if len(states) < 2 or not np.ptp(states, axis=0).any():
        return None
    # One thread, so that sums do not depend on the number of threads.
    with threadpool_limits(limits=1):
        mean = states.mean(axis=0)
        centered = states - mean
        fitted = PCA(min(components, *states.shape), random_state=seed).fit(centered)
        return PrincipalComponents(
            variance_ratios=fitted.explained_variance_ratio_,
            participation_ratio=participation_ratio(centered),
            mean=mean,
            directions=fitted.components_,
            steps=len(states),
        )


def state_sequences(episodes: Sequence[Episode]) -> dict[str, list[NDArray[np.float32]]]:
    """Return the states (T, p) of each episode, for "h", and for "M" if there is one (flattened, p = n d)."""
    sequences = {"h": [episode.hidden for episode in episodes]}
    matrices = [episode.matrices.reshape(len(episode), -1) for episode in episodes if episode.matrices is not None]
    if len(matrices) == len(episodes):
        sequences["M"] = matrices
    return sequences


STEP_COLORS = ("time", "action", "reward", "return")
"""Color values that every episode has."""


def color_values(episode: Episode, color: str, names: Sequence[str] = ()) -> NDArray[Any]:
    """Return the values (T,) that color the states.

    color: "time", "action", "reward", "return" (so far), "observation-0" and so on, one of `names`, the names of the
    observations, or the name of an entry of info, with NaN at steps without it. Raises UserError for other names.
    """
    if color == "time":
        return np.arange(len(episode))
    if color == "action":
        return episode.actions
    if color == "reward":
        return episode.rewards
    if color == "return":
        return np.cumsum(episode.rewards)
    numbered = [f"observation-{index}" for index in range(episode.observations.shape[1])]
    for of_observations in (numbered, list(names)):
        if color in of_observations:
            return episode.observations[:, of_observations.index(color)]
    entries = sorted({key for info in episode.infos for key, value in info.items() if np.ndim(value) == 0})
    if color in entries:
        values = [info.get(color) for info in episode.infos]
        if any(isinstance(value, str) for value in values):
            return np.array([str(value) for value in values])
        return np.array([np.nan if value is None else float(value) for value in values])
    known = list(names) or numbered
    observations = known if names and len(names) < 12 else [known[0], *([f"... {known[-1]}"] if known[1:] else [])]
    offered = [*STEP_COLORS, *observations, *entries]
    raise UserError(f"--color {color}: choose {', '.join(offered)}.{did_you_mean(color, [*numbered, *offered])}")


def variance_table(found: dict[str, PrincipalComponents]) -> pd.DataFrame:
    """Return the explained variance by component: state, component (from 1), variance_ratio, cumulative."""
    return pd.concat(
        pd.DataFrame(
            {
                "state": state,
                "component": np.arange(1, len(components.variance_ratios) + 1),
                "variance_ratio": components.variance_ratios,
                # Rounding may give a value slightly above 1.
                "cumulative": np.cumsum(components.variance_ratios).clip(max=1),
            }
        )
        for state, components in found.items()
    )


def trajectory_table(
    episodes: Sequence[Episode], found: dict[str, PrincipalComponents], color: str = "time", names: Sequence[str] = ()
) -> pd.DataFrame:
    """Return the trajectory of each episode: state, episode, step, PC1, PC2, value (its color)."""
    sequences = state_sequences(episodes)
    tables = []
    for state, components in found.items():
        for number, (episode, states) in enumerate(zip(episodes, sequences[state], strict=True)):
            coordinates = components.project(states)
            tables.append(
                pd.DataFrame(
                    {
                        "state": state,
                        "episode": number,
                        "step": np.arange(len(episode)),
                        "PC1": coordinates[:, 0],
                        # A state of one number has one component.
                        "PC2": coordinates[:, 1] if coordinates.shape[1] > 1 else 0.0,
                        "value": color_values(episode, color, names),
                    }
                )
            )
    return pd.concat(tables, ignore_index=True)


def has_trials(episodes: Sequence[Episode]) -> bool:
    """Return whether the info of every step has its trial, its step in the trial, its period and the answer."""
    needed = {"trial", "trial_step", "period", "target"}
    return all(needed <= info.keys() for episode in episodes for info in episode.infos)


def trial_table(episodes: Sequence[Episode], found: dict[str, PrincipalComponents]) -> pd.DataFrame:
    """Return the trajectory of each trial: state, episode, trial, trial_step, period, answer, PC1, PC2.

    answer: the correct action at the end of the trial. The episodes must have trials, see `has_trials`.
    """
    facts = pd.concat(
        pd.DataFrame(
            {
                "episode": number,
                **{key: [info[key] for info in episode.infos] for key in ("trial", "trial_step", "period", "target")},
            }
        )
        for number, episode in enumerate(episodes)
    ).reset_index(drop=True)
    facts["answer"] = facts.groupby(["episode", "trial"])["target"].transform("last")
    places = trajectory_table(episodes, found)
    return pd.concat(
        pd.concat([rows[["state", "PC1", "PC2"]].reset_index(drop=True), facts.drop(columns="target")], axis=1)
        for _, rows in places.groupby("state", sort=False)
    ).reset_index(drop=True)
