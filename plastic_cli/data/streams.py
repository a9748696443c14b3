"""Streams of tasks for continual learning, made of one data set: classes split, pixels permuted or images turned.

The three scenarios are those of van de Ven, Tuytelaars & Tolias 2022, "Three types of incremental learning", Nature
Machine Intelligence 4:1185. They differ in what a network is asked. Class-incremental: which class, out of those of all
tasks. Domain-incremental: which place within the task, with the same output units for every task. Task-incremental:
which class, when the task is told; each task has output units of its own, and only those answer.
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

    number: from 0. classes: of the data set, as many as outputs and in their order. outputs: the output units of this
    task; an image of classes[i] has the label outputs[i]. permutation: (features,) int64, feature i of the task is
    feature permutation[i] of the data set; None leaves them in order. degrees: the angle by which images are turned,
    counter-clockwise.

    A split is made whenever it is asked for, so that a long stream takes the memory of one task: keep what is used
    more than once. A split that needs no change is the data set's own, so do not write into it.
    """

    number: int
    classes: tuple[int, ...]
    outputs: tuple[int, ...]
    dataset: Dataset
    permutation: Tensor | None = None
    degrees: float = 0.0

    @property
    def train(self) -> Split:
        """The training split, made anew."""
        return self.split("train")

    @property
    def test(self) -> Split:
        """The test split, made anew."""
        return self.split("test")

    @property
    def validation(self) -> Split | None:
        """The validation split, made anew; None where the data set has none."""
        return None if self.dataset.validation is None else self.split("validation")

    def split(self, name: str) -> Split:
        """Make the split called train, test or validation: images in the data set's order, y numbers output units.

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
    """Tasks in the order in which they are learned. units: how many outputs the network has."""

    kind: Kind
    scenario: Scenario
    tasks: tuple[Task, ...]
    units: int

    def allowed(self, task: int, *, trained: int | None = None) -> Tensor | None:
        """Return which output units an answer about task number `task` may use, bool (units,); None for all.

        Task-incremental: those of the task. Class-incremental: all, or those of the first `trained` tasks if that is
        given (at least 1, the task that is being learned included). Domain-incremental: all; where the classes do not
        divide evenly, a short task has no label for the last unit. The tensor lies where the data lie.
        """
        if trained is not None and not 1 <= trained <= len(self.tasks):
            raise ValueError(f"trained is {trained}; of {len(self.tasks)} tasks 1 to {len(self.tasks)} can be trained.")
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
    """Make a stream of `tasks` tasks, 2 at least.

    split: the classes, by number or in `class_order` or, with `shuffle_classes`, in an order drawn from `generator`,
    are divided over the tasks as evenly as can be; the first tasks get the classes that are left over. Every image is
    in one task. Outputs are numbered as the classes; domain-incremental by the place of the class within its task.

    permuted: every task has all images, their features in an order of the task's own, the first task's as they are
    (Goodfellow et al. 2013, arXiv 1312.6211). Normalised values are permuted across pixels and channels alike. A longer
    stream begins with the tasks of a shorter one.

    rotated: every task has all images, those of task t = 0, 1, ... turned by t / tasks * max_degrees (0 to 360 degrees,
    counter-clockwise), after Lopez-Paz & Ranzato 2017; corners are black.

    Domain-incremental permuted and rotated tasks share one output for each class; in the other two scenarios output
    task * classes + class is that of a class in a task.

    Nothing but the state of `generator` decides on the orders that are drawn: a generator on the CPU gives the same for
    data on any device, and for another data set with as many classes or features.

    Raises UserError for an unknown kind or scenario, a number of tasks that cannot be, an order of classes that is not
    one or belongs to no split stream, classes without images in a split stream, and rotation of what is no image.
    """
    for what, word, known in (("stream", kind, get_args(Kind)), ("scenario", scenario, get_args(Scenario))):
        if word not in known:
            raise UserError(f"unknown {what} '{word}'.{did_you_mean(word, known)} There are {', '.join(known)}.")
    if tasks < 2:
        raise UserError(f"the number of tasks is {tasks}: a stream has 2 or more.")
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
    """Return the stream with one split of its data set corrupted, before tasks permute or turn the images.

    The split is corrupted once for all tasks, by a generator on the CPU started at `seed`, so that an image is
    corrupted alike in every task. Raises UserError for a split that the data set lacks and a corruption that it cannot
    take.
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
            f"the number of tasks is {tasks}: a split stream has at most one for each class, and {dataset.name} has "
            f"{dataset.classes} classes."
        )
    if class_order is not None and shuffle:
        raise UserError("--class-order gives an order that --shuffle-classes would draw: choose one of them.")
    if class_order is not None and sorted(class_order) != everything:
        raise UserError(
            f"{','.join(map(str, class_order))} is not an order of the classes of {dataset.name}: name every class "
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
            f"{dataset.name} has no images to turn (its shape is {dataset.image_shape}). Use a permuted stream."
        )
    # Beyond a full turn, or without one, two tasks could be the same.
    if not 0 < max_degrees <= 360:
        raise UserError(f"tasks turn by up to {max_degrees:g} degrees: give more than 0 and at most 360.")
