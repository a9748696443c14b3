"""M over the episodes: how large it is, and how much of what drives the units comes from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from plastic_cli.statistics.intervals import mean_intervals
from plastic_mpn.analysis.recording import Episode
from plastic_mpn.networks.agents import Network
from plastic_mpn.networks.cores import MPN


def parts_of_preactivation(
    layer: MPN, x: NDArray[np.floating[Any]], matrices: NDArray[np.floating[Any]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (W x_t + b, (W * M_{t-1}) x_t), both (T, n), the second M_{t-1} x_t where the modulation is additive.

    x (T, d) is what the layer sees, matrices (T, n, d) the M that each step used. Their sum is what f is applied to.
    """
    weights, bias = (part.detach().cpu().numpy().astype(np.float64) for part in (layer.W, layer.b))
    fixed = x @ weights.T + bias
    modulation = matrices * weights if layer.variant.interaction == "multiplicative" else matrices
    return fixed, np.einsum("tnd,td->tn", modulation, x)


def modulation_table(network: Network, episodes: Sequence[Episode]) -> pd.DataFrame:
    """Return, for every step, episode, step, norm and share; the layer is the lowest with M.

    norm: the Frobenius norm of M_{t-1}. share: |(W * M) x| / (|(W * M) x| + |W x + b|), Euclidean norms over the units:
    the part of the drive that comes from M by size, whichever way it points. NaN where there is no drive at all.
    """
    tables = []
    for number, (episode, fixed, modulated) in enumerate(_parts(network, episodes)):
        sizes = np.linalg.norm(modulated, axis=1), np.linalg.norm(fixed, axis=1)
        with np.errstate(invalid="ignore"):
            share = sizes[0] / (sizes[0] + sizes[1])
        assert episode.matrices is not None
        norms = np.linalg.norm(episode.matrices.reshape(len(episode), -1).astype(np.float64), axis=1)
        tables.append(pd.DataFrame({"episode": number, "step": np.arange(len(episode)), "norm": norms, "share": share}))
    return pd.concat(tables, ignore_index=True)


def variance_share(network: Network, episodes: Sequence[Episode]) -> float:
    """Return which share of the variance of the preactivations comes from M.

        sum_i Cov(m_i, a_i) / sum_i Var(a_i),    a = m + c,  m = (W * M_{t-1}) x_t,  c = W x_t + b

    over the units i, with moments over all steps of all episodes. With that of c it adds up to exactly 1, as
    Var(a) = Cov(m, a) + Cov(c, a). It lies outside 0 to 1 where the two parts act against each other. NaN where the
    preactivations do not vary.
    """
    parts = [(modulated, fixed) for _, fixed, modulated in _parts(network, episodes)]
    modulated = np.concatenate([part for part, _ in parts])
    drive = modulated + np.concatenate([part for _, part in parts])
    drive -= drive.mean(axis=0)
    total = float(np.sum(drive**2))
    return float(np.sum((modulated - modulated.mean(axis=0)) * drive)) / total if total > 0 else float("nan")


def summarise_modulation(table: pd.DataFrame) -> pd.DataFrame:
    """Return mean and interval over the episodes that still run at each step: measure, step, mean, low, high, episodes.

    table: that of `modulation_table`.
    """
    rows = []
    for measure in ("norm", "share"):
        steps = [(step, group.to_numpy()) for step, group in table.groupby("step")[measure]]
        intervals = mean_intervals([values for _, values in steps])
        rows += [
            {
                "measure": measure,
                "step": step,
                "mean": interval.mean,
                "low": interval.low,
                "high": interval.high,
                "episodes": interval.n,
            }
            for (step, _), interval in zip(steps, intervals, strict=True)
        ]
    return pd.DataFrame(rows)


def _parts(
    network: Network, episodes: Sequence[Episode]
) -> list[tuple[Episode, NDArray[np.float64], NDArray[np.float64]]]:
    layer = network.core.plastic_layers()[0]
    device = layer.W.device
    found = []
    for episode in episodes:
        if episode.matrices is None:
            raise ValueError("The episodes hold no M.")
        with torch.no_grad():
            seen = network.core.project(torch.from_numpy(episode.observations).to(device))
        found.append((episode, *parts_of_preactivation(layer, seen.cpu().numpy(), episode.matrices)))
    return found
