"""The cost of training that rules for classifiers share: the gradient, and what optimizers store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from plastic_cli.analysis.cost import Cost, TrainedRun, epoch_steps, samples_of
from plastic_cli.analysis.shapes import Layer, NetworkShape, activity_of, weights_of

MOMENTS = {"adam": 2, "adamw": 2, "selective": 2}
"""Numbers that an optimizer stores for each parameter; SGD stores one with momentum, and none without."""


def moments_of(optimizer: str, momentum: float = 0.0) -> int:
    """Return how many numbers an optimizer stores for each parameter."""
    return MOMENTS.get(optimizer, 1 if momentum else 0)


def gradient_cost(
    record: TrainedRun, config: Mapping[str, Any], shape: NetworkShape, *, readout_only: bool = False
) -> Cost:
    """Return the cost of backpropagation through a network, or of a readout that learns on fixed hidden layers.

    config: `epochs`, `batch_size`, `optimizer` and `momentum`.
    """
    samples, steps = samples_of(record), epoch_steps(record, config)
    layers: Sequence[Layer] = (shape.readout,) if readout_only else shape.layers
    learned = shape.readout.weights + shape.readout.biases if readout_only else shape.parameters
    moments = moments_of(config["optimizer"], config["momentum"])
    return Cost(
        samples=samples,
        inference_flops=samples * shape.forward_flops,
        learning_flops=samples * (shape.readout.flops if readout_only else shape.gradient_flops),
        messages=0 if readout_only else samples * shape.errors_from_above,
        updates=steps * weights_of(layers),
        state_bytes=shape.number_bytes * (shape.parameters + shape.buffers + moments * learned),
        step_bytes=shape.number_bytes * (config["batch_size"] * activity_of(layers) + learned),
    )
