"""Ablations of the memory: the returns of the same episodes with M set to zero, frozen or shuffled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from plastic_cli.statistics.intervals import mean_interval
from plastic_mpn.analysis.recording import Episode, record_episodes
from plastic_mpn.environments.greedy import StateChange
from plastic_mpn.networks.agents import Network
from plastic_mpn.networks.cores import Core

Ablation = Literal["zeroed", "frozen", "shuffled"]
ABLATIONS: tuple[Ablation, ...] = get_args(Ablation)


def ablated_part(core: Core) -> str | None:
    """Return what an ablation changes: "M", "hidden state" for a core without M, or None without memory."""
    if core.plastic_layers():
        return "M"
    return "hidden state" if np.prod(core.state_shape) > 0 else None


def make_ablation(name: Ablation, core: Core, episodes: int, *, freeze_after: int = 0, seed: int = 0) -> StateChange:
    """Return the change of the recurrent state that `record_episodes` applies before every step.

    - zeroed: M is 0 at every step.
    - frozen: M changes during the first `freeze_after` steps and is then constant.
    - shuffled: before every step, the entries of M are permuted among all synapses of their layer. The permutation is
      constant during an episode. The shuffled M is the basis of the next update, so an entry that was stored k steps
      ago has been permuted k times.

    Each layer with M is changed separately. The state of a core without M is its hidden state. It is set to zero or
    frozen in the same way, and shuffled among its units: the cell state of an LSTM with the same permutation, and the
    states of all layers of a stack together. An ablation serves one call of `record_episodes` with `episodes` episodes.
    """
    if name == "zeroed":
        return lambda state, _: torch.zeros_like(state)
    if name == "frozen":
        kept: list[Tensor] = []

        def freeze(state: Tensor, step: int) -> Tensor:
            if step == freeze_after:
                kept.append(state.clone())
            return state if step < freeze_after else kept[0]

        return freeze

    generator = torch.Generator().manual_seed(seed)
    orders: list[Tensor] = []

    def shuffle(state: Tensor, _: int) -> Tensor:
        state = state.clone()
        parts = [M.flatten(1) for M in core.matrices(state)] or [state]
        if not orders:
            orders.extend(
                torch.rand(episodes, part.shape[-1], generator=generator).argsort(dim=-1).to(state.device)
                for part in parts
            )
        for place, part, order in zip(core.matrices(state) or [state], parts, orders, strict=True):
            order = order.view(episodes, *[1] * (part.dim() - 2), -1).expand_as(part)
            # The matrices are views of the state.
            place.copy_(part.gather(-1, order).view_as(place))
        return state

    return shuffle


def ablate(
    network: Network,
    env_id: str,
    intact: Sequence[Episode],
    *,
    max_steps: int | None = None,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Run the seeds of the `intact` episodes again with each ablation; return one row per episode and ablation.

    Columns: ablation ("intact" for the given episodes), episode, seed, return, steps. M is frozen after
    `freezing_step`.
    """
    seeds = [episode.seed for episode in intact]
    rows = _rows("intact", intact)
    for name in ABLATIONS:
        change = make_ablation(name, network.core, len(seeds), freeze_after=freezing_step(intact), seed=seed)
        rows += _rows(
            name,
            record_episodes(
                network, env_id, seeds, max_steps=max_steps, options=options, ablation=change, keep_states=False
            ),
        )
    return pd.DataFrame(rows)


def freezing_step(intact: Sequence[Episode]) -> int:
    """Return the number of steps before M is frozen: half the median length of the episodes, at least 1."""
    return max(1, int(np.median([len(episode) for episode in intact])) // 2)


def summarize_ablations(table: pd.DataFrame) -> pd.DataFrame:
    """Return the mean return of each ablation with its interval, from the rows of `ablate`.

    Columns: ablation, mean, low, high; difference, difference_low, difference_high (paired differences from the intact
    network, because the seeds are the same); episodes.
    """
    intact = table[table["ablation"] == "intact"].set_index("episode")["return"]
    rows = []
    for name in dict.fromkeys(table["ablation"]):
        returns = table[table["ablation"] == name].set_index("episode")["return"]
        mean, difference = mean_interval(returns), mean_interval(returns - intact)
        rows.append(
            {
                "ablation": name,
                "mean": mean.mean,
                "low": mean.low,
                "high": mean.high,
                "difference": difference.mean,
                "difference_low": difference.low,
                "difference_high": difference.high,
                "episodes": mean.n,
            }
        )
    return pd.DataFrame(rows)


def _rows(name: str, episodes: Sequence[Episode]) -> list[dict[str, Any]]:
    return [
        {
            "ablation": name,
            "episode": number,
            "seed": episode.seed,
            "return": episode.episode_return,
            "steps": len(episode),
        }
        for number, episode in enumerate(episodes)
    ]
