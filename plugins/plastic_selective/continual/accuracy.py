"""The accuracy matrix: how it is measured, and the numbers that are computed from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from plastic_cli.analysis import continual
from plastic_cli.analysis.classification import Evaluation, evaluate
from plastic_cli.data.datasets import Split
from plastic_cli.data.streams import Stream
from plastic_selective.config import Train
from plastic_selective.continual.networks import logits_of


class Accuracies:
    """The accuracy matrix (tasks + 1, tasks) of each split during training, as a part of the checkpoint.

    splits: the images of each task on which accuracy is measured. They are made once, because rotating takes time.
    """

    def __init__(self, stream: Stream) -> None:
        names = ("test",) if stream.tasks[0].dataset.validation is None else ("test", "validation")
        tasks = len(stream.tasks)
        self.splits = {name: [task.split(name) for task in stream.tasks] for name in names}
        self.matrices = {name: np.full((tasks + 1, tasks), np.nan) for name in names}

    def state_dict(self) -> dict[str, Any]:
        """Return the matrices as tensors."""
        return {name: torch.from_numpy(matrix.copy()) for name, matrix in self.matrices.items()}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Restore the state that `state_dict` returned."""
        self.matrices = {name: matrix.numpy().copy() for name, matrix in state.items()}


def allowed_by_task(stream: Stream, learned: int, config: Train) -> Tensor | None:
    """Return which outputs an answer may use after `learned` tasks, (tasks, outputs), or None for all."""
    trained = max(1, learned) if config.active == "seen" else None
    allowed = [stream.allowed(task, trained=trained) for task in range(len(stream.tasks))]
    present = [each for each in allowed if each is not None]
    return torch.stack(present) if present else None


def summary_of(matrix: NDArray[np.float64], learned: int) -> dict[str, float]:
    """Return the measures of an accuracy matrix after `learned` tasks, without those that are not defined yet."""
    numbers = {
        "accuracy": continual.average_accuracy(matrix, learned),
        "backward_transfer": continual.backward_transfer(matrix, learned),
        "forward_transfer": continual.forward_transfer(matrix, learned),
        "forgetting": continual.forgetting(matrix, learned),
    }
    numbers |= {f"accuracy_task_{task + 1}": float(matrix[learned, task]) for task in range(learned)}
    return {name: value for name, value in numbers.items() if not math.isnan(value)}


def accuracy_by_task(network: nn.Module, splits: Sequence[Split], allowed: Tensor | None) -> list[Evaluation]:
    """Measure accuracy and cross-entropy on a split of each task. The results are numbers, not tensors.

    The network is in evaluation mode afterwards. allowed: which outputs an answer may use, (tasks, outputs); None: all.
    """
    rows = []
    network.eval()
    for task, split in enumerate(splits):
        mask = None if allowed is None else allowed[task]
        rows.append(evaluate(logits_of(network, mask), split.x, split.y))
    numbers = torch.stack([torch.stack(row) for row in rows]).tolist()
    return [Evaluation(*row) for row in numbers]
