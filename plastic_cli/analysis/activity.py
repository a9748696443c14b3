"""Activity of the hidden layers of any module, by the name of each layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from plastic_cli.credit.recording import Use, record

MOST_UNITS = 1024
"""Number of units up to which `pooled` keeps each unit of a layer."""

LARGEST_BATCH = 4096
_NUMBERS_AT_ONCE = 1 << 25

Activity = Callable[[Tensor], Mapping[str, Tensor]]
"""Inputs (batch, ...) to the activity of each hidden layer, (batch, units, ...) each, by name."""


def layer_name(parameter: str) -> str:
    """Return the name of the layer of a weight: "layer1.0.conv1" for "layer1.0.conv1.weight"."""
    return parameter.removesuffix(".weight")


def hidden_activity(model: nn.Module, inputs: Tensor) -> dict[str, Tensor]:
    """Return the activity of each hidden layer by name, for inputs (batch, ...), in the order of the layers.

    A layer is a weight that the model multiplies its inputs or its activity by. The last layer, the readout, is left
    out. The activity is the output of the nonlinearity that follows the layer, after normalization and the addition of
    a shortcut; without a nonlinearity it is the response of the layer. Its shape is (batch, units, ...): further
    dimensions are positions, such as pixels, tokens or time steps.

    A layer is also left out if its activity is that of an earlier layer, as in a shortcut with weights, and if it does
    not depend on the inputs, as an embedding of positions. The model is called in its present mode, without gradients.
    """
    _, uses = record(model, inputs)
    by_name: dict[str, list[Use]] = {}
    for use in uses:
        by_name.setdefault(use.name, []).append(use)
    activity: dict[str, Tensor] = {}
    seen: list[Tensor] = []
    for name, uses_of_layer in by_name.items():
        parts = [use.y for use in uses_of_layer]
        if name == uses[-1].name or any(part is other for part in parts for other in seen):
            continue
        seen += parts
        found = [
            _by_sample(part, use.product.unit_dimension, len(inputs))
            for part, use in zip(parts, uses_of_layer, strict=True)
        ]
        present = [part for part in found if part is not None]
        if len(present) == len(found) and len({part.shape for part in present}) == 1:
            activity[layer_name(name)] = present[0] if len(present) == 1 else torch.stack(present, dim=-1)
    return activity


def layer_numbers(model: nn.Module, inputs: Tensor) -> dict[str, int]:
    """Return the number of each layer of weights by name, from 1, in the order in which the model uses them."""
    _, uses = record(model, inputs)
    return {name: number for number, name in enumerate(dict.fromkeys(layer_name(use.name) for use in uses), start=1)}


def in_batches(activity: Activity, inputs: Tensor) -> Iterator[dict[str, Tensor]]:
    """Yield the activity of each layer in batches of samples that are small enough for the memory.

    Every batch has the same layers: those that two batches of different sizes have in common.
    """
    first, second = activity(inputs[:2]), activity(inputs[:3])
    names = [name for name in first if name in second]
    numbers = sum(first[name][0].numel() for name in names)
    batch = max(1, min(LARGEST_BATCH, _NUMBERS_AT_ONCE // max(numbers, 1)))
    for part in inputs.split(batch):
        found = activity(part)
        yield {name: found[name] for name in names}


def pooled(activity: Tensor, most_units: int = MOST_UNITS) -> Tensor:
    """Return activity (batch, units, ...) as (batch, features), with at most `most_units` features where possible.

    With more numbers than that, positions are averaged: in the largest grid of equal sides that fits, or over all
    positions if no grid fits. Units are never averaged.
    """
    units, *positions = activity.shape[1:]
    if units * math.prod(positions) <= most_units or not positions:
        return activity.flatten(1)
    dimensions = len(positions)
    if dimensions > 3:
        activity, dimensions = activity.flatten(2), 1
    side = max(1, math.floor((most_units / units) ** (1 / dimensions) + 1e-9))
    pool: Callable[[Tensor, Any], Tensor] = {
        1: functional.adaptive_avg_pool1d,
        2: functional.adaptive_avg_pool2d,
        3: functional.adaptive_avg_pool3d,
    }[dimensions]
    return pool(activity, tuple(min(side, size) for size in activity.shape[2:])).flatten(1)


def _by_sample(part: Tensor, unit_dimension: int, batch: int) -> Tensor | None:
    """Return the activity of one use of a layer as (batch, units, ...); None if no dimension holds the samples."""
    units = unit_dimension % part.ndim
    samples = [dimension for dimension, size in enumerate(part.shape) if size == batch and dimension != units]
    if samples:
        # The first dimension if it has this size: time can come first.
        return part.movedim((samples[0], units), (0, 1))
    if units > 0 and part.shape[0] and part.shape[0] % batch == 0:
        # Parts of a sample, such as windows of an image, are in the dimension of the samples.
        windows: Tensor = part.unflatten(0, (batch, -1))
        return windows.movedim(units + 1, 1)
    return None
