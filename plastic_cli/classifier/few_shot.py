"""`plastic analyze --few-shot` and `--incremental`: how well new classes are learned on the features of a network."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from plastic_cli.analysis.few_shot import (
    FewShotTask,
    IncrementalTask,
    few_shot_accuracies,
    incremental_accuracies,
    readers,
)
from plastic_cli.classifier.data import trained_classes
from plastic_cli.classifier.fit import features, predict
from plastic_cli.classifier.learner import EncodingLearner, Learner
from plastic_cli.classifier.module import ModuleLearner
from plastic_cli.data.datasets import Dataset, Split, load_dataset
from plastic_cli.errors import UserError
from plastic_cli.figures import few_shot as figures
from plastic_cli.figures.measures import PIXELS
from plastic_cli.numerics.seeds import derived_seed, torch_generator
from plastic_cli.plugins.discovery import discover, find_rule
from plastic_cli.runs.run import Run
from plastic_cli.statistics.intervals import mean_interval

if TYPE_CHECKING:
    from plastic_cli.config.classifier import ClassifierAnalyzeConfig

FINE_TUNING = "fine-tuning"
FINE_TUNING_RATE = 0.001
"""Learning rate of Adam, which fine-tunes the network on all images of an episode at once."""
FINE_TUNING_STEPS = 10
READOUT_RATE, MIXED_READOUT_RATE = 1e-5, 0.003
"""Learning rates at batch size 1 of the readout that learns classes one after another, and mixed.

Of 1e-5 to 0.003, each is the best for its order: large steps forget, and small ones learn little.
"""
CODE = "code"
"""The name of the features that an encoder gives to the first layer that learns."""

Features = Callable[[Tensor], Tensor]


def analyze_held_out(
    config: ClassifierAnalyzeConfig, run: Run, learner: Learner, untrained: Callable[[], Learner]
) -> None:
    """Run the analyses of held-out classes that `config` selects.

    Raises UserError if the run was trained on all classes.
    """
    option = "--few-shot" if config.few_shot else "--incremental"
    if len(trained_classes(run)) in (0, _classes_of(run)):
        raise UserError(
            f"{option}: run {run.id} was trained on all classes, and this analysis needs classes that it has not seen."
            " Train a run with, for example, --classes 0-4."
        )
    data = held_out_data(run)
    if len(data.only_classes) < 2:
        raise UserError(f"{option}: run {run.id} holds out one class only. Train on fewer --classes.")
    of_networks = {
        name: Split(_applied(function, data.test.x), data.test.y)
        for name, function in _feature_functions(learner, untrained).items()
    }
    if config.few_shot:
        _analyze_few_shot(config, run, learner, data, of_networks)
    if config.incremental:
        _analyze_incremental(config, run, learner, data, of_networks)


def held_out_data(run: Run) -> Dataset:
    """Return the images of the classes that a run was not trained on, without a validation split."""
    whole = load_dataset(str(run.record.dataset), run.data_folder, device=run.device)
    return whole.of_classes(sorted(set(range(whole.classes)) - set(trained_classes(run))))


def _classes_of(run: Run) -> int:
    return int(run.record.data["classes"])


def _feature_functions(learner: Learner, untrained: Callable[[], Learner]) -> dict[str, Features]:
    """Return the features to compare: the pixels, an encoder's code, and the last hidden layer before and after."""
    before = untrained()
    found: dict[str, Features] = {PIXELS: lambda x: x}
    if isinstance(learner, EncodingLearner) and learner.encoder is not None:
        found[CODE] = learner.encode
    return {
        **found,
        "untrained": lambda x: _last_layer(before, x),
        "trained": lambda x: _last_layer(learner, x),
    }


def _last_layer(learner: Learner, x: Tensor) -> Tensor:
    layers = features(learner, x)
    if not layers:
        raise UserError("the network has no hidden layer, whose activity --few-shot and --incremental need.")
    return layers[-1].flatten(1)


def _applied(function: Features, x: Tensor) -> Tensor:
    return predict(function, x).cpu().float()


def _analyze_few_shot(
    config: ClassifierAnalyzeConfig, run: Run, learner: Learner, data: Dataset, of_networks: dict[str, Split]
) -> None:
    network = _module_of(run, learner)
    rows: list[dict[str, Any]] = []
    for shots in config.shots:
        task = FewShotTask(config.ways, shots, config.queries, config.episodes, derived_seed(run.seed, "few-shot"))
        found: dict[tuple[str, str], NDArray[np.float64]] = {}
        for name, split in of_networks.items():
            y = split.y.cpu()
            for reader, function in readers().items():
                found[name, reader] = few_shot_accuracies(task, split.x, y, function)
        if network is not None:
            found["trained", FINE_TUNING] = fine_tuned_accuracies(task, data.test, network)
        for (name, reader), accuracies in found.items():
            interval = mean_interval(accuracies)
            labels = {"ways": config.ways, "shots": shots, "network": name, "reader": reader}
            run.log("few-shot", labels, accuracy=interval.mean)
            run.results[f"few-shot/{shots}-shot, {name}, {reader}"] = interval.mean
            rows.append(
                {
                    **labels,
                    "episodes": interval.n,
                    "accuracy": interval.mean,
                    "low": interval.low,
                    "high": interval.high,
                    "chance": 1 / config.ways,
                }
            )
    run.images["few-shot"] = len(data.test)
    table = pd.DataFrame(rows)
    run.save_table("few_shot", table)
    run.save_figure("few_shot", figures.few_shot_figure(table))


def _module_of(run: Run, learner: Learner) -> ModuleLearner | None:
    """Return a copy of the trained network as a module, without an optimizer; None if the rule offers none."""
    if isinstance(learner, ModuleLearner):
        return ModuleLearner(copy.deepcopy(learner.network), image_shape=learner.image_shape)
    network = find_rule(run.record.rule).member("network") if run.record.rule in discover().rules else None
    if network is None:
        run.message(f"no fine-tuning: the rule {run.record.rule} offers no network as a torch module")
        return None
    return ModuleLearner(copy.deepcopy(network(run)).to(run.device))


def fine_tuned_accuracies(
    task: FewShotTask,
    images: Split,
    learner: ModuleLearner,
    *,
    rate: float = FINE_TUNING_RATE,
    steps: int = FINE_TUNING_STEPS,
) -> NDArray[np.float64]:
    """Return the accuracy (episodes,) of a network whose layers all learn by backpropagation from the few examples.

    Its readout starts at zero, and its first units stand for the classes of the episode. Adam takes `steps` steps with
    all examples of the episode. Batch normalization and dropout are as in evaluation. The network of `learner` ends
    with the weights it has, except for its readout.
    """
    network = learner.network.requires_grad_(True)
    for parameter in learner.readout(images.x[:2]).values():
        nn.init.zeros_(parameter)
    initial = copy.deepcopy(network.state_dict())
    found = []
    for episode in task.draw(images):
        network.load_state_dict(initial)
        optimizer = torch.optim.Adam(network.parameters(), lr=rate)
        for _ in range(steps):
            logits = learner.predict(episode.x)[:, : task.ways]
            loss = nn.functional.cross_entropy(logits, episode.y)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            predicted = learner.predict(episode.query_x)[:, : task.ways].argmax(1)
        found.append(float((predicted == episode.query_y).double().mean()))
    network.load_state_dict(initial)
    return np.array(found)


def _analyze_incremental(
    config: ClassifierAnalyzeConfig, run: Run, learner: Learner, data: Dataset, of_networks: dict[str, Split]
) -> None:
    fewest = int(torch.bincount(data.train.y.cpu(), minlength=data.classes)[list(data.only_classes)].min())
    if config.images_per_class > fewest:
        raise UserError(
            f"--images-per-class {config.images_per_class}: a held-out class of {data.name} has {fewest} training"
            f" images. Choose {fewest} or fewer."
        )
    order = torch.randperm(len(data.only_classes), generator=torch_generator(run.seed, "incremental classes"))
    classes = [data.only_classes[place] for place in order.tolist()]
    test = of_networks["trained"]
    train = Split(_applied(lambda x: _last_layer(learner, x), data.train.x), data.train.y.cpu())
    found = incremental_accuracies(
        IncrementalTask(
            train,
            Split(test.x, test.y.cpu()),
            classes,
            config.images_per_class,
            READOUT_RATE,
            MIXED_READOUT_RATE,
            run.seed,
        )
    )
    rows = list(_incremental_rows(found))
    for row in rows:
        run.log("incremental", {"classes": row["classes"], "reader": row["reader"]}, accuracy=row["accuracy"])
    for reader, accuracies in found.items():
        run.results[f"incremental/{reader}"] = accuracies[-1]
    run.images["incremental"] = len(data.test)
    table = pd.DataFrame(rows)
    run.save_table("incremental", table)
    run.save_figure("incremental", figures.incremental_figure(table))


def _incremental_rows(found: dict[str, list[float]]) -> Iterator[dict[str, Any]]:
    for reader, accuracies in found.items():
        for classes, accuracy in enumerate(accuracies, start=2):
            yield {"classes": classes, "reader": reader, "accuracy": accuracy, "chance": 1 / classes}
