"""The network and the tasks of a trained run, for other programs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import torch

from plastic_cli import Run
from plastic_cli.classifier.data import described_data
from plastic_cli.data.datasets import Dataset
from plastic_cli.data.streams import Stream
from plastic_selective.config import Train
from plastic_selective.continual.accuracy import allowed_by_task
from plastic_selective.continual.components import build, rounds_of_task, stream_of
from plastic_selective.continual.networks import ModuleNetwork, TrainedModule, TrainedNetwork


def network(run: Run) -> TrainedNetwork | TrainedModule:
    """Return the trained network of a run as a module: logits (batch, outputs) of images as its tasks have them."""
    config, data = Train.from_values(run.config, source=f"run {run.id}"), described_data(run)
    stream = stream_of(config, data, run.seed)
    begun = math.ceil(sum(run.record.steps_done.values()) / rounds_of_task(config))
    allowed = allowed_by_task(stream, begun, config)
    if allowed is None:
        allowed = torch.ones(config.tasks, stream.units, dtype=torch.bool, device=run.device)
    built = build(run, data)
    trained: TrainedNetwork | TrainedModule
    if isinstance(built, ModuleNetwork):
        trained = TrainedModule(built.network, built.image_shape, allowed)
    else:
        trained = TrainedNetwork(built.layers, allowed)
    return trained.requires_grad_(True).eval()


class TrainedRun(Protocol):
    """What `load_stream` reads of a run."""

    @property
    def config(self) -> Mapping[str, Any]:
        """The options of the run."""

    @property
    def seed(self) -> int:
        """The seed of the run."""


def load_stream(run: TrainedRun, data: Dataset) -> Stream:
    """Return the tasks of a run with the images of `data`.

    `stream.tasks[0].test` has the images x and the labels y of the first task. The labels are outputs of the network.
    Raises UserError if the data set does not fit.
    """
    return stream_of(Train.from_values(run.config), data, run.seed)
