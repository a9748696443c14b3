"""Streams of tasks for continual learning from one data set: split classes, permuted pixels or rotated images.

The three scenarios are those of van de Ven, Tuytelaars & Tolias 2022, "Three types of incremental learning", Nature
Machine Intelligence 4:1185. They differ in what the network predicts. Class-incremental: the class, among those of all
tasks. Domain-incremental: the index of the class within its task; all tasks share the output units. Task-incremental:
the class, with the task given; each task has its own output units, and only those are used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from plastic_cli.data.corruptions import Corruption, apply_corruption, rotate
from plastic_cli.data.datasets import Dataset, Split
from plastic_cli.errors import UserError, did_you_mean

Kind = Literal["split", "permuted", "rotated"]
Scenario = Literal["class", "domain", "task"]


@dataclass(frozen=True, eq=False)
class Task:
    """One task of a stream.

    number: from 0. classes: classes of the data set, in the order of outputs. outputs: output units of this task; an
    image of classes[i] has the label outputs[i]. permutation: (features,) int64, feature i of the task is feature
    permutation[i] of the data set; None for no permutation. degrees: angle of rotation, counter-clockwise.

    A split is computed on every access, so that a long stream needs the memory of one task: store a split that is used
    more than once. An unchanged split is that of the data set: do not write to it.
    """

    number: int
    classes: tuple[int, ...]
    outputs: tuple[int, ...]
    dataset: Dataset
    permutation: Tensor | None = None
    degrees: float = 0.0

    @property
    def train(self) -> Split:
        """The training split, computed on access."""
        return self.split("train")

    @property
    def test(self) -> Split:
        """The test split, computed on access."""
        return self.split("test")

    @property
    def validation(self) -> Split | None:
        """The validation split, computed on access; None if the data set has none."""
        return None if self.dataset.validation is None else self.split("validation")

    def split(self, name: str) -> Split:
        """Return the split called train, test or validation: images in the order of the data set, y are output units.

        Raises UserError as `Dataset.split` does.
        """
        part = self.dataset.split(name)
        output_of_class = torch.full((self.dataset.classes,), -1)
        output_of_class[list(self.classes)] = torch.tensor(self.outputs)
        x, y = part.x, output_of_class.to(part.y.device)[part.y]
        if len(self.classes) < self.dataset.classes:
            mine = y >= 0
            x, y = x[mine], y[mine]
        if self.permutation is not None:
            x = x.index_select(1, self.permutation.to(x.device))
        if self.degrees:
            degrees = torch.full((len(x),), self.degrees)
            x = rotate(x, self.dataset.image_shape, degrees, self.dataset.black)
        return Split(x, y)


@dataclass(frozen=True, eq=False)
class Stream:
    """Tasks in the order of training. units: number of output units of the network."""

    kind: Kind
    scenario: Scenario
    tasks: tuple[Task, ...]
    units: int

    def allowed(self, task: int, *, trained: int | None = None) -> Tensor | None:
        """Return the output units that a prediction for task `task` may use, bool (units,); None for all.

        Task-incremental: those of the task. Class-incremental: all, or those of the first `trained` tasks (at least 1,
        including the current task). Domain-incremental: all; if the classes do not divide evenly, a short task has no
        label for the last unit. The tensor is on the device of the data.
        """
        if trained is not None and not 1 <= trained <= len(self.tasks):
            raise ValueError(f"trained is {trained}; it must be from 1 to {len(self.tasks)}.")
        if self.scenario == "task":
            tasks: tuple[Task, ...] = (self.tasks[task],)
        elif self.scenario == "class" and trained is not None:
            tasks = self.tasks[:trained]
        else:
            return None
        allowed = torch.zeros(self.units, dtype=torch.bool)
        allowed[[output for each in tasks for output in each.outputs]] = True
        return allowed.to(self.tasks[task].dataset.train.x.device)


def make_stream(
    dataset: Dataset,
    kind: Kind,
    scenario: Scenario,
    tasks: int,
    generator: torch.Generator,
    *,
    class_order: Sequence[int] | None = None,
    shuffle_classes: bool = False,
    max_degrees: float = 180.0,
) -> Stream:
    """Make a stream of at least 2 tasks.

    split: the classes are divided over the tasks as evenly as possible; the first tasks get one more if there is a
    remainder. Their order is by number, `class_order`, or with `shuffle_classes` drawn from `generator`. Every image is
    in one task. Outputs are numbered like the classes; in domain-incremental streams, like the classes of the task.

    permuted: every task has all images with its own permutation of features; the first task is not permuted
    (Goodfellow et al. 2013, arXiv 1312.6211). Normalized values are permuted across pixels and channels. A longer
    stream starts with the tasks of a shorter one.

    rotated: every task has all images; task t = 0, 1, ... rotates them by t / tasks * max_degrees (0 to 360 degrees,
    counter-clockwise), after Lopez-Paz & Ranzato 2017; corners are black.

    Domain-incremental permuted and rotated tasks share one output per class. In the other two scenarios a class of a
    task has the output task * classes + class.

    The drawn orders depend on the state of `generator` only: a CPU generator gives the same orders for data on any
    device, and for another data set with the same number of classes or features.

    Raises UserError for an unknown kind or scenario, an impossible number of tasks, a class order that is incomplete or
    not for a split stream, classes without images in a split stream, and rotation of inputs that are not images.
    """
    for what, word, known in (("stream", kind, get_args(Kind)), ("scenario", scenario, get_args(Scenario))):
        if word not in known:
            raise UserError(f"unknown {what} '{word}'.{did_you_mean(word, known)} Choose one of {', '.join(known)}.")
    if tasks < 2:
        raise UserError(f"the number of tasks is {tasks}: a stream has at least 2.")
    everything = tuple(range(dataset.classes))
    if kind == "split":
        divided = _divide_classes(dataset, tasks, generator, class_order, shuffle_classes)
    elif class_order is not None or shuffle_classes:
        raise UserError(f"every task of a {kind} stream has all classes: an order of classes is for split streams.")
    else:
        divided = [everything] * tasks
    if kind == "rotated":
        _check_rotation(dataset, max_degrees)

    made = []
    for number, classes in enumerate(divided):
        outputs = classes
        if scenario == "domain":
            outputs = tuple(range(len(classes)))
        elif kind != "split":
            outputs = tuple(number * dataset.classes + label for label in classes)
        permutation = None
        if kind == "permuted" and number > 0:
            features = math.prod(dataset.image_shape)
            permutation = torch.randperm(features, generator=generator, device=generator.device)
        degrees = number / tasks * max_degrees if kind == "rotated" else 0.0
        made.append(Task(number, classes, outputs, dataset, permutation, degrees))
    return Stream(kind, scenario, tuple(made), units=1 + max(max(task.outputs) for task in made))


def corrupted(stream: Stream, corruption: Corruption, seed: int = 0, *, split: str = "test") -> Stream:
    """Return the stream with one split of its data set corrupted, before tasks permute or rotate the images.

    The split is corrupted once for all tasks, with a CPU generator of seed `seed`: an image is the same in every task.
    Raises UserError for a split that the data set lacks and for a corruption that does not fit it.
    """
    dataset = stream.tasks[0].dataset
    part = dataset.split(split)
    x = apply_corruption(dataset, part.x, corruption, torch.Generator().manual_seed(seed))
    changed: dict[str, Any] = {split: Split(x, part.y)}
    dataset = replace(dataset, **changed)
    return replace(stream, tasks=tuple(replace(task, dataset=dataset) for task in stream.tasks))


def _divide_classes(
    dataset: Dataset, tasks: int, generator: torch.Generator, class_order: Sequence[int] | None, shuffle: bool
) -> list[tuple[int, ...]]:
    """Return the classes of each task of a split stream."""
    everything = list(range(dataset.classes))
    if tasks > dataset.classes:
        raise UserError(
            f"the number of tasks is {tasks}: a split stream has at most one per class, and {dataset.name} has "
            f"{dataset.classes} classes."
        )
    if class_order is not None and shuffle:
        raise UserError("--class-order and --shuffle-classes both set the order of classes: choose one of them.")
    if class_order is not None and sorted(class_order) != everything:
        raise UserError(
            f"{','.join(map(str, class_order))} is not an order of the classes of {dataset.name}: list every class "
            f"from 0 to {dataset.classes - 1} once."
        )
    for name in ("train", "test"):
        counts = torch.bincount(dataset.split(name).y, minlength=dataset.classes).tolist()
        absent = [str(label) for label, count in enumerate(counts) if count == 0]
        if absent:
            raise UserError(
                f"{dataset.name} has no {name} images of class {', '.join(absent)}, so its classes cannot be split "
                "into tasks. Number the classes without gaps, or use a permuted stream."
            )
    order = everything if class_order is None else list(class_order)
    if shuffle:
        order = torch.randperm(dataset.classes, generator=generator, device=generator.device).tolist()
    return [tuple(part.tolist()) for part in np.array_split(np.array(order), tasks)]


def _check_rotation(dataset: Dataset, max_degrees: float) -> None:
    if 1 in dataset.image_shape[1:]:
        raise UserError(
            f"{dataset.name} has no images to rotate (its shape is {dataset.image_shape}). Use a permuted stream."
        )
    # With 0 degrees or more than 360, two tasks could be the same.
    if not 0 < max_degrees <= 360:
        raise UserError(f"the maximum rotation is {max_degrees:g} degrees: give more than 0 and at most 360.")
