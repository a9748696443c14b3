"""How a classifier's accuracy falls as its inputs are corrupted."""

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
    """Return the suite used where none is named, less what makes no sense on `dataset`.

    Gaussian noise after normalisation; Gaussian noise on pixels, where they lie in [0, 1]; rotation by random angles up
    to 15, 30 and 45 degrees either way, where there are images. No suite is a standard of the field, so rows always
    carry kind and strength.
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
    """Evaluate `predict` (normalised inputs (n, features) to logits) on a split, clean and under each corruption.

    The first row is the clean split, of kind "clean" and strength 0. `corruptions` defaults to `default_corruptions`.
    Every corruption draws from its own generator started at `seed`, so that a row does not depend on which others are
    asked for, and all strengths of a kind share one draw. One transfer from the device for all rows together.

    Raises UserError for a split that `dataset` lacks and a corruption that it cannot take.
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
