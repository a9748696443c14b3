"""The noise that the kernels draw, as rule.py takes it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from plastic_grlu.epoch import NoiseState
from plastic_grlu.kernels.noise import fill, padded


def noise_of_steps(
    state: NoiseState,
    steps: int,
    sizes: Sequence[int],
    *,
    rows: int,
    sigma: float,
    top_k: float | None,
) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
    """Return the noise of the next `steps` steps of `train_epoch` on the CPU, without advancing `state`.

    With one reward, and a source of noise for each unit. sizes: d_0, ..., d_L. rows: batch_size * perturbations.
    Returns (noises, gumbels), a list per step of a (rows, width) tensor per layer, as `rule.grlu_update` and
    `rule.pair_masks` take them (noises times sigma; gumbels for hidden layers, empty without top_k).
    """
    widths = list(sizes[1:])
    gumbel_widths = [] if top_k is None else widths[:-1]
    normal = np.empty((steps, padded(rows * sum(widths))), np.float32)
    gumbel = np.empty((steps, padded(rows * sum(gumbel_widths))), np.float32)
    fill(normal, gumbel, float(sigma), np.uint64(state.key), np.uint64(state.counter))

    def split(flat: Tensor, of: Sequence[int]) -> list[Tensor]:
        parts = flat[: rows * sum(of)].split([rows * width for width in of])
        return [part.view(rows, width) for part, width in zip(parts, of, strict=True)]

    return (
        [split(flat, widths) for flat in torch.from_numpy(normal)],
        [split(flat, gumbel_widths) for flat in torch.from_numpy(gumbel)],
    )
