"""Few-shot accuracy and forgetting of readers that learn new classes on the features of a frozen network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plastic_cli.analysis.associative_memory import (
    Memory,
    decorrelated_recall,
    decorrelated_scores,
    empty_memory,
    learn_example,
    nearest_mean_scores,
    normalized,
    recall,
)
from plastic_cli.data.datasets import Split
from plastic_cli.data.episodes import Episode, Episodes
from plastic_cli.numerics.seeds import torch_generator

RIDGE = 0.1
"""Default ridge of the decorrelated memory, for features of norm 1."""

Reader = Callable[[Tensor, Tensor, Tensor, int], Tensor]
"""Features x (n, units), labels (n,) from 0, queries (m, units) and the number of classes to scores (m, classes)."""

HEBBIAN, DECORRELATED, NEAREST_MEAN = "Hebbian memory", "decorrelated memory", "nearest class mean"
READOUT, MIXED_READOUT = "readout by SGD", "readout by SGD, classes mixed"


def hebbian_scores(x: Tensor, y: Tensor, queries: Tensor, classes: int) -> Tensor:
    """Learn each example once, at batch size 1, by equation (2) of the memory, and recall by equation (3)."""
    memory = Memory(x.new_zeros(classes, x.shape[1]), x.new_zeros(0, 0))
    for example, label in zip(normalized(x), y.tolist(), strict=True):
        memory.associations[label] += example
    return recall(memory, normalized(queries))


def readers(ridge: float = RIDGE) -> dict[str, Reader]:
    """Return the readers of features by name; nearest class means are those of the features without normalization."""

    def decorrelated(x: Tensor, y: Tensor, queries: Tensor, classes: int) -> Tensor:
        return decorrelated_scores(normalized(x), y, normalized(queries), classes, ridge)

    return {HEBBIAN: hebbian_scores, DECORRELATED: decorrelated, NEAREST_MEAN: nearest_mean_scores}


@dataclass(frozen=True)
class FewShotTask:
    """How episodes are drawn. ways: classes per episode. shots, queries: training and test images per class."""

    ways: int
    shots: int
    queries: int
    episodes: int
    seed: int

    def draw(self, split: Split) -> Iterator[Episode]:
        """Draw the episodes from a split; the same images for every split with the same labels.

        Labels are from 0 to ways - 1. Raises UserError if there are too few classes or images.
        """
        source = Episodes(split, ways=self.ways, shots=self.shots, queries=self.queries, name="the held-out classes")
        generator = torch_generator(self.seed, f"few-shot episodes, {self.shots} shots")
        for _ in range(self.episodes):
            yield source.draw(generator).with_own_labels()


def few_shot_accuracies(task: FewShotTask, features: Tensor, y: Tensor, reader: Reader) -> NDArray[np.float64]:
    """Return the accuracy (episodes,) of a reader that learns each episode from the beginning.

    features (n, units), y (n,): of the images of classes that the network has not learned.
    """
    found = []
    with torch.no_grad():
        for episode in task.draw(Split(features, y)):
            scores = reader(episode.x, episode.y, episode.query_x, task.ways)
            found.append(float((scores.argmax(1) == episode.query_y).double().mean()))
    return np.array(found)


@dataclass(frozen=True)
class IncrementalTask:
    """Classes that come one after another. train, test: features (n, units) and labels. classes: in their order.

    images: training images of each class, each of which is learned once. rate, mixed_rate: learning rates of the
    readout, for classes in sequence and for mixed classes. ridge: of the decorrelated memory.
    """

    train: Split
    test: Split
    classes: Sequence[int]
    images: int
    rate: float
    mixed_rate: float
    seed: int
    ridge: float = RIDGE


def incremental_accuracies(task: IncrementalTask) -> dict[str, list[float]]:
    """Return, by reader, the accuracy on the test images of all classes so far after each class from the second one.

    All readers see the same images, one at a time. The readout is softmax regression on the layer-normed features, and
    predicts one of the classes so far. With mixed classes it learns the same images in random order, from
    the beginning for each number of classes; this control shows what it reaches without forgetting.
    """
    streams, tests = _streams(task), _test_images(task)
    count = len(task.classes)
    memory = empty_memory(count, task.train.x)
    weights = np.zeros((count, task.train.x.shape[1] + 1))
    found: dict[str, list[float]] = {name: [] for name in (HEBBIAN, DECORRELATED, READOUT, MIXED_READOUT)}
    for place, stream in enumerate(streams):
        for u in normalized(stream):
            learn_example(memory, u, place)
        learn_readout(weights, stream, torch.full((len(stream),), place), place + 1, task.rate)
        if place == 0:
            continue
        so_far = place + 1
        x = torch.cat(tests[:so_far])
        y = torch.arange(so_far).repeat_interleave(torch.tensor([len(part) for part in tests[:so_far]]))
        mixed = np.zeros_like(weights)
        images = torch.cat(streams[:so_far])
        labels = torch.arange(so_far).repeat_interleave(task.images)
        order = torch.randperm(len(images), generator=torch_generator(task.seed, f"mixed order {so_far}"))
        learn_readout(mixed, images[order], labels[order], so_far, task.mixed_rate)
        scores = {
            HEBBIAN: recall(memory, normalized(x)),
            DECORRELATED: decorrelated_recall(memory, normalized(x), task.ridge),
            READOUT: readout_scores(weights, x),
            MIXED_READOUT: readout_scores(mixed, x),
        }
        for name, of_reader in scores.items():
            found[name].append(float((of_reader[:, :so_far].argmax(1) == y).double().mean()))
    return found


def learn_readout(weights: NDArray[np.float64], x: Tensor, y: Tensor, classes: int, rate: float) -> None:
    """Learn by SGD at batch size 1, in place: softmax regression of features x (n, units) on the first `classes`.

    weights: (all classes, units + 1), the bias last. The features of an image are layer-normed: mean 0, variance 1.
    """
    inputs = _readout_inputs(x)
    seen = weights[:classes]
    for row, label in zip(inputs, y.tolist(), strict=True):
        logits = seen @ row
        error = np.exp(logits - logits.max())
        error /= error.sum()
        error[label] -= 1
        seen -= rate * np.outer(error, row)


def readout_scores(weights: NDArray[np.float64], x: Tensor) -> Tensor:
    """Return logits (n, classes) of features x (n, units)."""
    return torch.from_numpy(_readout_inputs(x) @ weights.T)


def _readout_inputs(x: Tensor) -> NDArray[np.float64]:
    scaled = torch.nn.functional.layer_norm(x.double(), x.shape[1:]).numpy()
    return np.concatenate([scaled, np.ones((len(scaled), 1))], axis=1)


def _streams(task: IncrementalTask) -> list[Tensor]:
    """Return the features (images, units) of each class in the order in which they are learned."""
    generator = torch_generator(task.seed, "incremental images")
    streams = []
    for label in task.classes:
        of_class = torch.nonzero(task.train.y == label)[:, 0]
        streams.append(task.train.x[of_class[torch.randperm(len(of_class), generator=generator)[: task.images]]])
    return streams


def _test_images(task: IncrementalTask) -> list[Tensor]:
    """Return the features of the test images of each class."""
    return [task.test.x[task.test.y == label] for label in task.classes]
