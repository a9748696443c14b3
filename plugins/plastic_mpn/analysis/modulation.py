"""M over the episodes: its norm, and its share of the preactivations of the units."""

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
    """Return (W x_t + b, (W * M_{t-1}) x_t), both (T, n); the second is M_{t-1} x_t if the modulation is additive.

    x (T, d): the input of the layer. matrices (T, n, d): the M that each step used. The sum of both is the
    preactivation.
    """
    weights, bias = (part.detach().cpu().numpy().astype(np.float64) for part in (layer.W, layer.b))
    fixed = x @ weights.T + bias
    modulation = matrices * weights if layer.variant.interaction == "multiplicative" else matrices
    return fixed, np.einsum("tnd,td->tn", modulation, x)


def modulation_table(network: Network, episodes: Sequence[Episode]) -> pd.DataFrame:
    """Return a table of episode, step, norm and share for the lowest layer with M.

    norm: the Frobenius norm of M_{t-1}. share: |(W * M) x| / (|(W * M) x| + |W x + b|), Euclidean norms over the units:
    the relative size of the part that comes from M, whatever its sign. NaN if both parts are 0.
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
    """Return the share of the variance of the preactivations that comes from M.

        sum_i Cov(m_i, a_i) / sum_i Var(a_i),    a = m + c,  m = (W * M_{t-1}) x_t,  c = W x_t + b

    over the units i, with moments over all steps of all episodes. The shares of m and c sum to 1, because
    Var(a) = Cov(m, a) + Cov(c, a). The share may be outside 0 to 1 if the two parts are negatively correlated. NaN if
    the preactivations are constant.
    """
    parts = [(modulated, fixed) for _, fixed, modulated in _parts(network, episodes)]
    modulated = np.concatenate([part for part, _ in parts])
    drive = modulated + np.concatenate([part for _, part in parts])
    drive -= drive.mean(axis=0)
    total = float(np.sum(drive**2))
    return float(np.sum((modulated - modulated.mean(axis=0)) * drive)) / total if total > 0 else float("nan")


def summarize_modulation(table: pd.DataFrame) -> pd.DataFrame:
    """Return mean and interval over the episodes that have each step: measure, step, mean, low, high, episodes.

    table: from `modulation_table`.
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
            inputs = network.core.project(torch.from_numpy(episode.observations).to(device))
        found.append((episode, *parts_of_preactivation(layer, inputs.cpu().numpy(), episode.matrices)))
    return found
