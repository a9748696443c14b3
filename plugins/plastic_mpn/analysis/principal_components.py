"""Principal components of the hidden states and of M over many episodes: in how many dimensions the network works."""

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
MOST_STEPS = 4000
"""So many steps, drawn at random from all episodes, decide the components: enough, and bearable for a large M."""


@dataclass(frozen=True)
class PrincipalComponents:
    """The principal components of states with p numbers each.

    variance_ratios (k,): share of the total variance along each component, the largest first. participation_ratio:
    effective number of dimensions, from the whole spectrum. mean (p,), directions (k, p). steps: how many decided.
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
    """Return the first principal components of the states of all episodes, each (T, p); None where they do not vary.

    With more than `MOST_STEPS` steps that many, drawn at random by `seed`, decide. scikit-learn chooses how: by the
    covariance where p is small, by a randomised search for the first components where it is large.
    """
    lengths = [len(sequence) for sequence in sequences]
    decides = np.zeros(sum(lengths), np.bool_)
    decides[np.random.default_rng(seed).permutation(len(decides))[:MOST_STEPS]] = True
    parts = np.split(decides, np.cumsum(lengths)[:-1])
    chosen = [sequence[part] for sequence, part in zip(sequences, parts, strict=True)]
    # The states of saturated units vary in the last digits of float32.
    states = np.concatenate(chosen).astype(np.float64)
    if len(states) < 2 or not np.ptp(states, axis=0).any():
        return None
    # One thread: sums then do not depend on how many there are.
    with threadpool_limits(limits=1):
        mean = states.mean(axis=0)
        centred = states - mean
        fitted = PCA(min(components, *states.shape), random_state=seed).fit(centred)
        return PrincipalComponents(
            variance_ratios=fitted.explained_variance_ratio_,
            participation_ratio=participation_ratio(centred),
            mean=mean,
            directions=fitted.components_,
            steps=len(states),
        )


def state_sequences(episodes: Sequence[Episode]) -> dict[str, list[NDArray[np.float32]]]:
    """Return, for "h" and where there is one for "M", the states (T, p) of each episode; M flattened, p = n d."""
    sequences = {"h": [episode.hidden for episode in episodes]}
    matrices = [episode.matrices.reshape(len(episode), -1) for episode in episodes if episode.matrices is not None]
    if len(matrices) == len(episodes):
        sequences["M"] = matrices
    return sequences


ALWAYS_THERE = ("time", "action", "reward", "return")
"""What every trajectory can be coloured by."""


def colour_values(episode: Episode, colour: str) -> NDArray[Any]:
    """Return what colours a trajectory, one value per step (T,).

    colour: "time", "action", "reward", "return" (so far), "observation-0" and so on, or the name of what the
    environment tells in its info, NaN where it tells nothing. Raises UserError for anything else.
    """
    if colour == "time":
        return np.arange(len(episode))
    if colour == "action":
        return episode.actions
    if colour == "reward":
        return episode.rewards
    if colour == "return":
        return np.cumsum(episode.rewards)
    names = [f"observation-{index}" for index in range(episode.observations.shape[1])]
    if colour in names:
        return episode.observations[:, names.index(colour)]
    told = sorted({key for info in episode.infos for key, value in info.items() if np.ndim(value) == 0})
    if colour in told:
        values = [info.get(colour) for info in episode.infos]
        if any(isinstance(value, str) for value in values):
            return np.array([str(value) for value in values])
        return np.array([np.nan if value is None else float(value) for value in values])
    offered = ["time", "action", "reward", "return", names[0], *([f"... {names[-1]}"] if names[1:] else []), *told]
    raise UserError(f"--colour {colour}: choose {', '.join(offered)}.{did_you_mean(colour, [*names, *offered])}")


def variance_table(found: dict[str, PrincipalComponents]) -> pd.DataFrame:
    """Return explained variance by component: state, component (from 1), variance_ratio, cumulative."""
    return pd.concat(
        pd.DataFrame(
            {
                "state": state,
                "component": np.arange(1, len(components.variance_ratios) + 1),
                "variance_ratio": components.variance_ratios,
                # Rounding must not carry it beyond 1.
                "cumulative": np.cumsum(components.variance_ratios).clip(max=1),
            }
        )
        for state, components in found.items()
    )


def trajectory_table(
    episodes: Sequence[Episode], found: dict[str, PrincipalComponents], colour: str = "time"
) -> pd.DataFrame:
    """Return the way of each episode: state, episode, step, PC1, PC2, value (what colours it)."""
    sequences = state_sequences(episodes)
    tables = []
    for state, components in found.items():
        for number, (episode, states) in enumerate(zip(episodes, sequences[state], strict=True)):
            places = components.project(states)
            tables.append(
                pd.DataFrame(
                    {
                        "state": state,
                        "episode": number,
                        "step": np.arange(len(episode)),
                        "PC1": places[:, 0],
                        # A state with a single number has one component.
                        "PC2": places[:, 1] if places.shape[1] > 1 else 0.0,
                        "value": colour_values(episode, colour),
                    }
                )
            )
    return pd.concat(tables, ignore_index=True)
