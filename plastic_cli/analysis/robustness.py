"""Accuracy of a classifier under corrupted inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from plastic_cli.analysis.classification import Predict, evaluate

if TYPE_CHECKING:
    from plastic_cli.data.corruptions import Corruption
    from plastic_cli.data.datasets import Dataset

CLEAN = "clean"
"""The `kind` of the row without corruption."""


@dataclass(frozen=True)
class RobustnessRow:
    """Accuracy (0 to 1) and mean cross-entropy (nats) under one corruption, over `examples` inputs."""

    kind: str
    strength: float
    accuracy: float
    loss: float
    examples: int


def default_corruptions(dataset: Dataset) -> list[Corruption]:
    """Return the default corruptions that apply to `dataset`.

    These are Gaussian noise after normalization, Gaussian noise on pixels if they are in [0, 1], and rotation by random
    angles of up to 15, 30 and 45 degrees in both directions if there are images. There is no standard suite in the
    field, so each row has its kind and strength.
    """
    from plastic_cli.data.corruptions import Corruption

    suite = [Corruption("gaussian-noise", sigma) for sigma in (0.1, 0.2, 0.3, 0.5)]
    lowest, highest = dataset.to_pixels(dataset.test.x).aminmax() if len(dataset.test) else (0.0, 1.0)
    if float(lowest) > -1e-3 and float(highest) < 1 + 1e-3:
        suite += [Corruption("pixel-noise", sigma) for sigma in (0.1, 0.2, 0.3)]
    if min(dataset.image_shape[1:]) > 1:
        suite += [Corruption("rotation", degrees) for degrees in (15, 30, 45)]
    return suite


def robustness(
    predict: Predict,
    dataset: Dataset,
    corruptions: Sequence[Corruption] | None = None,
    seed: int = 0,
    *,
    split: str = "test",
    batch_size: int = 1000,
) -> list[RobustnessRow]:
    """Evaluate `predict` (normalized inputs (n, features) to logits) on a split, clean and under each corruption.

    The first row is the clean split, of kind "clean" and strength 0. corruptions: by default `default_corruptions`.
    Every corruption has its own generator with the seed `seed`, so that a row does not depend on the other corruptions,
    and all strengths of a kind use the same random numbers. All rows are copied from the device together.

    Raises UserError for a split that `dataset` does not have and for a corruption that does not apply to it.
    """
    from plastic_cli.data.corruptions import apply_corruption

    part = dataset.split(split)
    chosen = default_corruptions(dataset) if corruptions is None else list(corruptions)
    evaluations = [evaluate(predict, part.x, part.y, batch_size)]
    for corruption in chosen:
        # A generator on the CPU gives the same noise whatever the device of the data.
        generator = torch.Generator().manual_seed(seed)
        corrupted = apply_corruption(dataset, part.x, corruption, generator)
        evaluations.append(evaluate(predict, corrupted, part.y, batch_size))
    conditions = [(CLEAN, 0.0), *((corruption.kind, corruption.strength) for corruption in chosen)]
    numbers = torch.stack([torch.stack(evaluation) for evaluation in evaluations]).tolist()
    return [
        RobustnessRow(kind, float(strength), accuracy, loss, len(part))
        for (kind, strength), (accuracy, loss) in zip(conditions, numbers, strict=True)
    ]
