"""Training on a stream of tasks, one task after the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from plastic_cli import Run, RunFailed
from plastic_cli.analysis import continual
from plastic_cli.classifier.fit import raise_if_not_finite
from plastic_cli.classifier.module import single_images_refused
from plastic_cli.classifier.module_run import note_own_module
from plastic_cli.classifier.networks import seeded
from plastic_cli.data.datasets import Dataset, Split, load_dataset
from plastic_cli.data.streams import Stream
from plastic_cli.numerics.clock import training_clock
from plastic_cli.numerics.seeds import derived_seed
from plastic_selective.config import Train
from plastic_selective.continual.accuracy import Accuracies, accuracy_by_task, allowed_by_task, summary_of
from plastic_selective.continual.components import ITERATIONS_PER_ROUND, Components, make_components, rounds_of_task
from plastic_selective.continual.networks import ModuleNetwork, logits_of, mask_logits
from plastic_selective.continual.replay import FirstInFirstOut, mixed_batch
from plastic_selective.continual.snapshots import artifact_name, save_eligibility, save_plasticity
from plastic_selective.optimizer.optimizer import SelectivePlasticityOptimizer


def train_on_stream(config: Train, run: Run) -> None:
    """Train on the tasks of a stream one after the other, and store the accuracy on all tasks after each of them.

    The global random numbers, from which dropout draws, get a seed of the run and are restored at the end.
    Raises RunFailed, with the task, if the loss is not finite.
    """
    with seeded(derived_seed(run.seed, "global")):
        _train_on_stream(config, run)


def _train_on_stream(config: Train, run: Run) -> None:
    data = load_dataset(config.dataset, run.data_folder, validation=config.validation, device=run.device)
    components = make_components(config, data, run)
    if isinstance(components.network, ModuleNetwork):
        note_own_module(run, config.model, components.network.image_shape, data)
    accuracies, order = Accuracies(components.stream), run.generator("order")
    run.track(network=components.network, optimizer=components.optimizer, accuracies=accuracies, order=order)
    if components.buffer is not None:
        run.track(buffer=components.buffer)
    if components.penalty is not None:
        run.track(penalty=components.penalty)
    run.describe_data(**data.description())
    unit = "round" if config.iterations else "epoch"
    if run.begins(unit):
        _measure_tasks(components, config, accuracies, run, learned=0)
        _save_network(components, run, 0)
    numbers = run.steps(config.tasks * rounds_of_task(config), unit)
    for completed in _train_rounds(numbers, components, config, order, run):
        run.count_samples(completed.samples, completed.seconds)
        learned = completed.task + 1
        if isinstance(components.optimizer, SelectivePlasticityOptimizer):
            save_plasticity(run, components.network, components.optimizer, completed.number + 1, learned)
            if completed.ends_task:
                save_eligibility(run, components.network, components.optimizer, learned)
        if completed.ends_task:
            _save_network(components, run, learned)
        _measure_tasks(components, config, accuracies, run, learned=learned, ended=completed.ends_task)
    run.save_table("accuracy_matrix", continual.accuracy_matrix_frame(accuracies.matrices["test"]))


def train_unlogged(
    config: Train, data: Dataset, run: Run, after_round: Callable[[], None] = lambda: None
) -> NDArray[np.float64]:
    """Train like `train_on_stream`, but write nothing. Return the test accuracy matrix, (tasks + 1, tasks).

    All random numbers come from the run's seed. Raises RunFailed, with the task, if the loss is not finite.
    """
    with seeded(derived_seed(run.seed, "global")):
        return _accuracies_of_training(config, data, run, after_round)


def _accuracies_of_training(
    config: Train, data: Dataset, run: Run, after_round: Callable[[], None]
) -> NDArray[np.float64]:
    components = make_components(config, data, run)
    splits = [task.test for task in components.stream.tasks]

    def accuracies(learned: int) -> list[float]:
        allowed = allowed_by_task(components.stream, learned, config)
        return [float(row.accuracy) for row in accuracy_by_task(components.network, splits, allowed)]

    matrix = [accuracies(0)]
    numbers = range(config.tasks * rounds_of_task(config))
    for completed in _train_rounds(numbers, components, config, run.generator("order"), run):
        after_round()
        if completed.ends_task:
            matrix.append(accuracies(completed.task + 1))
    return np.array(matrix)


# -------------------------------------------------------------------------------------------------------- one round


@dataclass(frozen=True)
class TaskData:
    """The training data of one task.

    x: images (n, features). y: labels (n,). group: the class of each image (n,), numbered separately for each task if
    tasks share classes. allowed: which outputs an answer may use, by the image's task, (tasks, outputs); None: all.
    """

    task: int
    x: Tensor
    y: Tensor
    group: Tensor
    allowed: Tensor | None


@dataclass(frozen=True)
class Round:
    """A round of training that is done. number: of the stream, from 0. samples: number of new images. seconds: time."""

    number: int
    task: int
    ends_task: bool
    samples: int
    seconds: float


def _train_rounds(
    numbers: Iterable[int], components: Components, config: Train, order: torch.Generator, run: Run
) -> Iterator[Round]:
    """Train the rounds with these numbers. The penalty is updated after the last round of each task."""
    rounds = rounds_of_task(config)
    data: TaskData | None = None
    for number in numbers:
        task, number_in_task = divmod(number, rounds)
        if data is None or data.task != task:
            data = task_data(components.stream, task, config)
        began = training_clock()
        try:
            with single_images_refused():
                samples = _train_round(data, number_in_task, components, config, order, run)
        except FloatingPointError as error:
            raise _diverged(f"task {task + 1}: {error}", components) from None
        seconds = training_clock() - began
        ends_task = number_in_task == rounds - 1
        if ends_task and components.penalty is not None:
            allowed = None if data.allowed is None else data.allowed[task]
            components.penalty.end_task(data.x, logits_of(components.network, allowed))
        yield Round(number, task, ends_task, samples, seconds)


def task_data(stream: Stream, task: int, config: Train) -> TaskData:
    """Return the training data of a task; for joint training those of all tasks up to it."""
    included = range(task + 1) if config.joint else [task]
    splits = [stream.tasks[number].train for number in included]
    groups = [_groups(stream, number, split) for number, split in zip(included, splits, strict=True)]
    return TaskData(
        task,
        torch.cat([split.x for split in splits]),
        torch.cat([split.y for split in splits]),
        torch.cat(groups),
        allowed_by_task(stream, task + 1, config),
    )


def _groups(stream: Stream, number: int, split: Split) -> Tensor:
    """Return the group (n,) of each image of a task. Tasks of a split stream share no classes, others share all."""
    task = stream.tasks[number]
    classes = torch.empty(stream.units, dtype=torch.int64, device=split.y.device)
    classes[list(task.outputs)] = torch.tensor(task.classes, device=split.y.device)
    shared = stream.kind != "split"
    return classes[split.y] + (number * task.dataset.classes if shared else 0)


def _task_of_group(stream: Stream, device: torch.device) -> Tensor:
    classes = stream.tasks[0].dataset.classes
    if stream.kind != "split":
        return torch.arange(len(stream.tasks), device=device).repeat_interleave(classes)
    owner = torch.zeros(classes, dtype=torch.int64, device=device)
    for task in stream.tasks:
        owner[list(task.classes)] = task.number
    return owner


def _train_round(
    data: TaskData, number: int, components: Components, config: Train, order: torch.Generator, run: Run
) -> int:
    """Train round `number`, from 0, of a task. Return the number of new images.

    Raises FloatingPointError if the loss is not finite.
    """
    count, device, penalty, buffer = len(data.y), data.x.device, components.penalty, components.buffer
    steps = min(ITERATIONS_PER_ROUND, config.iterations - number * ITERATIONS_PER_ROUND) if config.iterations else 0
    images = steps * config.batch_size or count
    passes = [torch.randperm(count, generator=order) for _ in range(math.ceil(images / count))]
    chosen = torch.cat(passes)[:images].to(device)
    task_of_group = _task_of_group(components.stream, device)
    losses = []
    components.network.train()
    for step, batch in enumerate(chosen.split(config.batch_size)):
        x, y, group = data.x[batch], data.y[batch], data.group[batch]
        mixed = mixed_batch(x, y, group, buffer, config.replay_share)
        logits = components.network(mixed.x)
        if data.allowed is not None:
            logits = mask_logits(logits, data.allowed[task_of_group[mixed.group]])
        loss = functional.cross_entropy(logits, mixed.y)
        components.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if penalty is not None:
            penalty.after_backward()
            penalty.add_gradients()
        components.optimizer.step()
        if penalty is not None:
            penalty.after_step()
        if buffer is not None:
            # The published loop adds the mixed batch to its first-in-first-out buffer, with the replayed images.
            buffer.add(*(mixed if isinstance(buffer, FirstInFirstOut) else (x, y, group)))
        losses.append(loss.detach())
        if step % 64 == 0:
            run.within_step(step * config.batch_size / images)
    steps_before = number * (ITERATIONS_PER_ROUND if config.iterations else len(losses))
    raise_if_not_finite(torch.stack(losses), steps_before)
    return images


def _diverged(problem: str, components: Components) -> RunFailed:
    or_penalty = "" if components.penalty is None else " or --penalty-strength"
    return RunFailed(f"{problem}. Try a smaller learning rate{or_penalty}.")


# ---------------------------------------------------------------------------------------------------------- records


def _save_network(components: Components, run: Run, learned: int) -> None:
    network = components.network.state_dict()
    run.save_tensors(artifact_name("network", learned), {"task": learned, "network": network})


def _measure_tasks(
    components: Components, config: Train, accuracies: Accuracies, run: Run, *, learned: int, ended: bool = True
) -> None:
    """Log the accuracy on every task; within a task (`ended` is False) only on the tasks so far.

    At the end of a task, the accuracies become a row of the matrix, and its summary is logged.
    """
    measured = len(components.stream.tasks) if ended else learned
    allowed = allowed_by_task(components.stream, learned, config)
    for name, matrix in accuracies.matrices.items():
        rows = accuracy_by_task(components.network, accuracies.splits[name][:measured], allowed)
        for task, row in enumerate(rows, start=1):
            # A later task has no loss if only the outputs seen so far may answer: none of them is its label.
            loss = {"loss": row.loss} if task <= learned else {}
            if loss and not math.isfinite(row.loss):
                raise _diverged(f"{name}/loss of task {task} became {row.loss} at step {run.step}", components)
            run.log(name, {"task": task}, accuracy=row.accuracy, **loss)
        if not ended:
            continue
        matrix[learned, :] = [row.accuracy for row in rows]
        if learned:
            mean_loss = float(np.mean([row.loss for row in rows[:learned]]))
            run.log(name, None, **summary_of(matrix, learned), loss=mean_loss)
