"""The cost of training that rules for classifiers share: the gradient, and what optimizers store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plastic_cli.analysis.cost import Cost, TrainedRun, epoch_steps, samples_of
from plastic_cli.analysis.shapes import Layer, NetworkShape, activity_of, weights_of

MOMENTS = {"adam": 2, "adamw": 2, "selective": 2}
"""Numbers that an optimizer stores for each parameter; SGD stores one with momentum, and none without."""


def moments_of(optimizer: str, momentum: float = 0.0) -> int:
    """Return how many numbers an optimizer stores for each parameter."""
    return MOMENTS.get(optimizer, 1 if momentum else 0)


@dataclass(frozen=True)
class Training:
    """How long and with what a network is trained.

    samples: number of training samples, of all epochs. steps: of the optimizer. batch_size: samples in a step, at most.
    moments: numbers that the optimizer stores for each parameter.
    """

    samples: int
    steps: int
    batch_size: int
    moments: int
    epochs: int = 1


def training_of(record: TrainedRun, config: Mapping[str, Any]) -> Training:
    """Return the training of a run with the options `epochs`, `batch_size`, `optimizer` and `momentum`."""
    moments = moments_of(config["optimizer"], config["momentum"])
    steps = epoch_steps(record, config)
    return Training(samples_of(record), steps, config["batch_size"], moments, config["epochs"])


def gradient_cost(training: Training, shape: NetworkShape, *, readout_only: bool = False) -> Cost:
    """Return the cost of backpropagation through a network, or of a readout that learns on fixed hidden layers."""
    samples = training.samples
    layers: Sequence[Layer] = (shape.readout,) if readout_only else shape.layers
    learned = shape.readout.weights + shape.readout.biases if readout_only else shape.parameters
    return Cost(
        samples=samples,
        inference_flops=samples * shape.forward_flops,
        learning_flops=samples * (shape.readout.flops if readout_only else shape.gradient_flops),
        messages=0 if readout_only else samples * shape.errors_from_above,
        updates=training.steps * weights_of(layers),
        state_bytes=shape.number_bytes * (shape.parameters + shape.buffers + training.moments * learned),
        step_bytes=shape.number_bytes * (training.batch_size * activity_of(layers) + learned),
    )
