"""Learning a stream of tasks: what a run is made of, the loop, and the accuracy matrix."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from plastic_cli import Run, RunFailed
from plastic_cli.analysis import continual
from plastic_cli.classifier.fit import raise_if_not_finite
from plastic_cli.data.datasets import Dataset, Split, load_dataset
from plastic_cli.data.streams import Stream
from plastic_cli.numerics.clock import training_clock
from plastic_selective.config import Train
from plastic_selective.continual.accuracy import Accuracies, accuracy_by_task, allowed_by_task, summary_of
from plastic_selective.continual.components import ITERATIONS_PER_ROUND, Components, make_components, rounds_of_task
from plastic_selective.continual.networks import answer
from plastic_selective.continual.replay import FirstInFirstOut, mixed_batch
from plastic_selective.continual.snapshots import artifact_name, save_eligibility, save_plasticity
from plastic_selective.optimizer.optimizer import SelectivePlasticityOptimizer

# ------------------------------------------------------------------------------------------------------------ train


def train_on_stream(config: Train, run: Run) -> None:
    """Learn the tasks of a stream one after the other and store the accuracy on each of them after each.

    Raises RunFailed, with the task, where the loss is not finite.
    """
    data = load_dataset(config.dataset, run.data_folder, validation=config.validation, device=run.device)
    parts = make_components(config, data, run)
    accuracies, order = Accuracies(parts.stream), run.generator("order")
    run.track(network=parts.network, optimizer=parts.optimizer, accuracies=accuracies, order=order)
    if parts.buffer is not None:
        run.track(buffer=parts.buffer)
    if parts.penalty is not None:
        run.track(penalty=parts.penalty)
    run.describe_data(**data.description())
    rounds, unit = rounds_of_task(config), "round" if config.iterations else "epoch"
    if run.begins(unit):
        _measure_tasks(parts, config, accuracies, run, learned=0)
        run.save_tensors(artifact_name("network", 0), {"task": 0, "network": parts.network.state_dict()})
    lesson: _Lesson | None = None
    for number in run.steps(config.tasks * rounds, unit):
        task, turn = divmod(number, rounds)
        if lesson is None or lesson.task != task:
            lesson = _lesson(parts.stream, task, config)
        began = training_clock()
        seen = _learn_round(lesson, turn, parts, config, order, run)
        run.count_samples(seen, training_clock() - began)
        if isinstance(parts.optimizer, SelectivePlasticityOptimizer):
            save_plasticity(run, parts.network, parts.optimizer, number + 1, task + 1)
        ends = turn == rounds - 1
        if ends:
            _end_task(lesson, parts)
            _save_task(lesson, parts, run)
        _measure_tasks(parts, config, accuracies, run, learned=task + 1, ended=ends)
    run.save_table("accuracy_matrix", continual.accuracy_matrix_frame(accuracies.matrices["test"]))


def learn_stream(
    config: Train, data: Dataset, run: Run, after_round: Callable[[], None] = lambda: None
) -> NDArray[np.float64]:
    """Learn a stream as `train_on_stream` does; return the accuracy matrix on the test split, (tasks + 1, tasks).

    Everything is drawn from the run's seed, and nothing is written to it. Raises what `train_on_stream` raises.
    """
    parts = make_components(config, data, run)
    order = run.generator("order")
    splits = [task.test for task in parts.stream.tasks]

    def measured(learned: int) -> list[float]:
        rows = accuracy_by_task(parts.network, splits, allowed_by_task(parts.stream, learned, config))
        return [float(row.accuracy) for row in rows]

    matrix = [measured(0)]
    for task in range(config.tasks):
        lesson = _lesson(parts.stream, task, config)
        for turn in range(rounds_of_task(config)):
            _learn_round(lesson, turn, parts, config, order, run)
            after_round()
        _end_task(lesson, parts)
        matrix.append(measured(task + 1))
    return np.array(matrix)


@dataclass(frozen=True)
class _Lesson:
    """What is learned during one task. group: the class of each image, of its task where tasks share classes.

    allowed: which outputs an answer may use, by number of the image's task, (tasks, outputs); None: all.
    """

    task: int
    x: Tensor
    y: Tensor
    group: Tensor
    allowed: Tensor | None


def _lesson(stream: Stream, task: int, config: Train) -> _Lesson:
    """Collect the training images of a task, in joint training of all tasks up to it."""
    taught = range(task + 1) if config.joint else [task]
    splits = [stream.tasks[number].train for number in taught]
    groups = [_groups(stream, number, split) for number, split in zip(taught, splits, strict=True)]
    return _Lesson(
        task,
        torch.cat([split.x for split in splits]),
        torch.cat([split.y for split in splits]),
        torch.cat(groups),
        allowed_by_task(stream, task + 1, config),
    )


def _groups(stream: Stream, number: int, split: Split) -> Tensor:
    """Number the classes of a task apart from those of the others: in a split stream they are apart already."""
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


def _learn_round(lesson: _Lesson, turn: int, parts: Components, config: Train, order: torch.Generator, run: Run) -> int:
    """Learn round `turn`, from 0, of a lesson; return how many new images were seen."""
    steps = min(ITERATIONS_PER_ROUND, config.iterations - turn * ITERATIONS_PER_ROUND) if config.iterations else 0
    try:
        return _learn(lesson, parts, config, order, run, steps)
    except FloatingPointError as error:
        raise _diverged(f"task {lesson.task + 1}: {error}", parts) from None


def _diverged(what: str, parts: Components) -> RunFailed:
    penalised = "" if parts.penalty is None else " or --penalty-strength"
    return RunFailed(f"{what}. Try a smaller learning rate{penalised}.")


def _learn(lesson: _Lesson, parts: Components, config: Train, order: torch.Generator, run: Run, steps: int) -> int:
    """Go once through the images of a lesson, or take so many steps; return how many new images were seen."""
    count, device = len(lesson.y), lesson.x.device
    wanted = steps * config.batch_size or count
    passes = [torch.randperm(count, generator=order) for _ in range(math.ceil(wanted / count))]
    chosen = torch.cat(passes)[:wanted].to(device)
    task_of_group = _task_of_group(parts.stream, device)
    losses = []
    for number, batch in enumerate(chosen.split(config.batch_size)):
        x, y, group = lesson.x[batch], lesson.y[batch], lesson.group[batch]
        mixed = mixed_batch(x, y, group, parts.buffer, config.replay_share)
        logits = parts.network(mixed.x)
        if lesson.allowed is not None:
            logits = answer(logits, lesson.allowed[task_of_group[mixed.group]])
        loss = functional.cross_entropy(logits, mixed.y)
        parts.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if parts.penalty is not None:
            parts.penalty.after_backward()
            parts.penalty.add_gradients()
        parts.optimizer.step()
        if parts.penalty is not None:
            parts.penalty.after_step()
        if parts.buffer is not None:
            # The published loop gives its first-in-first-out buffer the mixed batch, and with it what it replayed.
            parts.buffer.add(*(mixed if isinstance(parts.buffer, FirstInFirstOut) else (x, y, group)))
        losses.append(loss.detach())
        if number % 64 == 0:
            run.within_step(number * config.batch_size / wanted)
    raise_if_not_finite(torch.stack(losses), 0)
    return wanted


def _end_task(lesson: _Lesson, parts: Components) -> None:
    if parts.penalty is not None:
        allowed = None if lesson.allowed is None else lesson.allowed[lesson.task]
        parts.penalty.end_task(lesson.x, lambda x: answer(parts.network(x), allowed))


def _save_task(lesson: _Lesson, parts: Components, run: Run) -> None:
    number = lesson.task + 1
    run.save_tensors(artifact_name("network", number), {"task": number, "network": parts.network.state_dict()})
    if isinstance(parts.optimizer, SelectivePlasticityOptimizer):
        save_eligibility(run, parts.network, parts.optimizer, number)


def _measure_tasks(
    parts: Components, config: Train, accuracies: Accuracies, run: Run, *, learned: int, ended: bool = True
) -> None:
    """Log the accuracy on every task; in the middle of one only on those so far.

    Behind a task the accuracies go into the matrix, and what is computed from it becomes the run's result.
    """
    shown = len(parts.stream.tasks) if ended else learned
    allowed = allowed_by_task(parts.stream, learned, config)
    for name, matrix in accuracies.matrices.items():
        rows = accuracy_by_task(parts.network, accuracies.splits[name][:shown], allowed)
        for task, row in enumerate(rows, start=1):
            # A task to come has no loss where only outputs seen so far may answer: its labels are none of them.
            loss = {"loss": row.loss} if task <= learned else {}
            if loss and not math.isfinite(row.loss):
                raise _diverged(f"{name}/loss of task {task} became {row.loss} at step {run.step}", parts)
            run.log(name, {"task": task}, accuracy=row.accuracy, **loss)
        if not ended:
            continue
        matrix[learned, :] = [row.accuracy for row in rows]
        if learned:
            run.log(
                name, None, **summary_of(matrix, learned), loss=float(np.mean([row.loss for row in rows[:learned]]))
            )
