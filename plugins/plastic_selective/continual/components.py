"""The stream of tasks, the network, the optimizer, the buffer and the penalty, made from the options of a run."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import torch
from torch import nn

from plastic_cli import Run, UserError
from plastic_cli.classifier.networks import build_network
from plastic_cli.data.datasets import Dataset
from plastic_cli.data.streams import Stream, make_stream
from plastic_cli.numerics.seeds import torch_generator
from plastic_selective.config import Train
from plastic_selective.continual.fisher import check_layers
from plastic_selective.continual.networks import ContinualNetwork, ModuleNetwork
from plastic_selective.continual.penalties import OnlineEWC, Penalty, SynapticIntelligence
from plastic_selective.continual.replay import Buffer, make_buffer
from plastic_selective.optimizer.optimizer import SelectivePlasticityOptimizer

ITERATIONS_PER_ROUND = 250
"""Number of steps per round with --iterations; otherwise a round is an epoch. Accuracy is measured after each round."""


Network = ContinualNetwork | ModuleNetwork


@dataclass(frozen=True)
class Components:
    """A stream of tasks and everything that learns it, before training."""

    stream: Stream
    network: Network
    optimizer: torch.optim.Optimizer
    buffer: Buffer | None
    penalty: Penalty | None


def make_components(config: Train, data: Dataset, run: Run) -> Components:
    """Make the components that a configuration describes, with random numbers from the run's seed.

    Raises UserError if the data set does not have enough classes for the tasks, or the buffer is too small for them.
    """
    stream = stream_of(config, data, run.seed)
    network = make_network(config, stream, run)
    groups = len(stream.tasks) * data.classes
    if config.stream == "split":
        # Each class belongs to one task. Groups for the other tasks would stay empty and waste a share of the buffer.
        groups = data.classes
    buffer = make_buffer(
        config.replay, config.buffer_size, data.train.x.shape[1], groups, run.generator("replay"), run.device
    )
    optimizer = make_optimizer(config, network, steps_of_tasks(config, stream)[0])
    return Components(stream, network, optimizer, buffer, _make_penalty(config, network, run))


def build(run: Run, data: Dataset, *, trained: bool = True) -> Network:
    """Make the network of a run with its trained weights, or as it was before training."""
    network = make_components(Train.from_values(run.config, source=f"run {run.id}"), data, run).network
    if trained:
        run.restore("network", network)
    return network


def stream_of(config: Train, data: Dataset, seed: int) -> Stream:
    """Make the stream of a run with this seed, from its data set or another one with the same number of features."""
    return make_stream(
        data,
        config.stream,
        config.scenario,
        config.tasks,
        torch_generator(seed, "tasks"),
        class_order=config.class_order or None,
        shuffle_classes=config.shuffle_classes,
        max_degrees=config.max_degrees,
    )


def make_optimizer(config: Train, network: nn.Module, first_task: int) -> torch.optim.Optimizer:
    """Make the optimizer that a configuration names. first_task: number of steps of the first task."""
    parameters, rate, decay = network.parameters(), config.learning_rate, config.weight_decay
    betas = (0.9, config.second_moment_decay)
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=rate, weight_decay=decay)
    if config.optimizer == "momentum":
        return torch.optim.SGD(parameters, lr=rate, momentum=config.momentum, weight_decay=decay)
    if config.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=rate, betas=betas, weight_decay=decay)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=rate, betas=betas, weight_decay=decay)
    return SelectivePlasticityOptimizer(
        parameters,
        lr=rate,
        trace_decay=config.trace_decay,
        plasticity_k=config.plasticity_k,
        threshold_percentile=config.threshold_percentile,
        warmup_steps=warmup_steps(config, first_task),
        adaptive_threshold=config.adaptive_threshold,
        base=config.base,
        betas=betas,
        gating=config.gating,
        weight_decay=decay,
    )


def warmup_steps(config: Train, first_task: int) -> int:
    """Return the number of warm-up steps. first_task: number of steps of the first task."""
    return round(config.warmup_share * first_task) if config.warmup_steps is None else config.warmup_steps


def make_network(config: Train, stream: Stream, run: Run) -> Network:
    """Make the network of a run before training."""
    if config.model != "mlp":
        data = replace(stream.tasks[0].dataset, classes=stream.units)
        built = build_network(config.model, data, config.hidden, run.generator("weights"))
        return ModuleNetwork(*built).to(run.device)
    sizes = [stream.tasks[0].dataset.train.x.shape[1], *config.hidden, stream.units]
    return ContinualNetwork(sizes, run.generator("weights")).to(run.device)


def _make_penalty(config: Train, network: nn.Module, run: Run) -> Penalty | None:
    if config.penalty == "ewc":
        try:
            check_layers(network)
        except UserError as error:
            raise UserError(f"--penalty ewc: {str(error).rstrip('.')}. Use --model mlp or --penalty si.") from None
        return OnlineEWC(
            network,
            strength=config.penalty_strength,
            decay=config.ewc_decay,
            samples=config.fisher_samples,
            generator=run.generator("fisher"),
        )
    if config.penalty == "si":
        return SynapticIntelligence(network, strength=config.penalty_strength, damping=config.si_damping)
    return None


def rounds_of_task(config: Train) -> int:
    """Return the number of rounds of a task. Accuracy is measured after each round."""
    return math.ceil(config.iterations / ITERATIONS_PER_ROUND) if config.iterations else config.epochs


def steps_of_tasks(config: Train, stream: Stream) -> list[int]:
    """Return the number of steps of each task."""
    if config.iterations:
        return [config.iterations] * config.tasks
    labels = stream.tasks[0].dataset.train.y
    images = [int(torch.isin(labels, torch.tensor(task.classes, device=labels.device)).sum()) for task in stream.tasks]
    if config.joint:
        images = list(itertools.accumulate(images))
    return [config.epochs * math.ceil(count / config.batch_size) for count in images]
