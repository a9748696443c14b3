"""The verbs eval, analyze and render of any rule that classifies, given a function that builds its learner."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from plastic_cli.analysis import figures
from plastic_cli.analysis.cka import cka_matrix
from plastic_cli.analysis.classification import accuracy_by_class, confusion_matrix
from plastic_cli.analysis.frames import weight_frames
from plastic_cli.analysis.probe import linear_probe, probe_layers
from plastic_cli.analysis.robustness import robustness
from plastic_cli.analysis.sparsity import sparsity
from plastic_cli.data.corruptions import parse_corruption
from plastic_cli.data.datasets import Dataset, load_dataset
from plastic_cli.data.images import PixelRange, in_other_units
from plastic_cli.errors import UserError
from plastic_cli.learning.fit import features, predict, stratified_sample
from plastic_cli.learning.learner import Learner
from plastic_cli.runs.run import Run, open_run
from plastic_cli.runs.store import RunStore

if TYPE_CHECKING:
    from plastic_cli.config import ClassifierAnalyzeConfig, ClassifierEvaluateConfig

SNAPSHOT_UNITS = 64
SNAPSHOTS = 60
CKA_IMAGES = 2000


class Build(Protocol):
    """Makes a run's learner, as it was before training or with what it has learned."""

    def __call__(self, run: Run, data: Dataset, *, trained: bool = True) -> Learner:
        """Return the learner."""


Networks = Callable[[], Mapping[str, Learner]]
"""Makes further networks, by name, when an analysis wants to show them beside the run's own."""


# ------------------------------------------------------------------------------------------------------------- eval


def evaluate_classifier(
    config: ClassifierEvaluateConfig, run: Run, build: Build, *, controls: Networks | None = None
) -> None:
    """Measure accuracy and cross-entropy on a split, clean or under each corruption that is asked for.

    controls: networks that are measured beside, trained on the run's data set.
    Raises UserError where the data set does not fit the network.
    """
    corruptions = [parse_corruption(text) for text in config.corruption]
    data = data_for(run, config.dataset, validation=config.split == "validation")
    its_own = config.dataset in (None, run.record.dataset)
    learner = build(run, data if its_own else trained_on(run), trained=True)
    labels = {} if its_own else {"dataset": data.name}
    clean, *corrupted = robustness(learner.predict, data, corruptions, run.seed, split=config.split)
    if not corrupted:
        run.log(config.split, labels, accuracy=clean.accuracy, loss=clean.loss)
        run.results |= {f"{config.split}/accuracy": clean.accuracy, f"{config.split}/loss": clean.loss}
    for corruption, row in zip(corruptions, corrupted, strict=True):
        run.log(config.split, {**labels, "corruption": str(corruption)}, accuracy=row.accuracy, loss=row.loss)
        name = config.split if len(corrupted) == 1 else f"{config.split}+{corruption}"
        run.results |= {f"{name}/accuracy": row.accuracy, f"{name}/loss": row.loss}
    for network, control in (controls() if controls else {}).items():
        rows = robustness(control.predict, data, corruptions, run.seed, split=config.split)
        conditions = [(str(corruption), row) for corruption, row in zip(corruptions, rows[1:], strict=True)]
        for condition, row in conditions or [("", rows[0])]:
            under = {"corruption": condition} if condition else {}
            run.log(config.split, {**labels, **under, "network": network}, accuracy=row.accuracy, loss=row.loss)
            run.results["/".join(part for part in (network, condition, "accuracy") if part)] = row.accuracy


# ---------------------------------------------------------------------------------------------------------- analyze


def analyze_classifier(
    config: ClassifierAnalyzeConfig,
    run: Run,
    build: Build,
    *,
    others_chosen: bool = False,
    controls: Networks | None = None,
    twins: Networks | None = None,
) -> bool:
    """Carry out the analyses that are asked for, and those that are cheap where none is.

    Tables go into the run's `tables/`, figures into `figures/`, headline numbers into its metrics. controls: networks
    that robustness is measured of too. twins: networks that are probed too, the first of which CKA compares with
    instead of the untrained network. Returns whether nothing was asked for, so that a rule can add its own cheap
    analyses.
    """
    chosen = [config.confusion, config.sparsity, config.probe, config.robustness, config.cka, others_chosen]
    nothing_chosen = not any(chosen)
    if config.other is not None:
        check_other_run(run, config.other)
    data = data_for(run, None)
    learner = build(run, data, trained=True)
    others = twins() if twins and (config.probe or (config.cka and config.other is None)) else {}
    if config.confusion or nothing_chosen:
        _analyze_confusion(run, data, learner)
    if config.sparsity or nothing_chosen:
        _analyze_sparsity(run, data, learner)
    if config.probe:
        _analyze_probe(run, data, learner, build(run, data, trained=False), others)
    if config.robustness:
        _analyze_robustness(run, data, learner, controls() if controls else {})
    if config.cka:
        _analyze_cka(run, data, learner, build, config.other, others)
    return nothing_chosen


def _analyze_confusion(run: Run, data: Dataset, learner: Learner) -> None:
    predictions = predict(learner.predict, data.test.x).argmax(1)
    confusion = confusion_matrix(predictions, data.test.y, data.classes)
    by_class = accuracy_by_class(confusion)
    run.log("test", accuracy=(predictions == data.test.y).double().mean())
    names = list(data.class_names)
    run.save_table(
        "confusion", pd.DataFrame(confusion.cpu().numpy(), index=names, columns=names).reset_index(names="true")
    )
    frame = pd.DataFrame({"class": names, "accuracy": by_class.cpu().numpy(), "images": confusion.sum(1).cpu().numpy()})
    run.save_table("accuracy_by_class", frame)
    run.save_figure("confusion", figures.confusion_matrix_figure(confusion.cpu(), names))
    run.save_figure("accuracy_by_class", figures.class_accuracy_figure(by_class.cpu(), names))


def _analyze_sparsity(run: Run, data: Dataset, learner: Learner) -> None:
    rows = []
    for number, activity in enumerate(features(learner, data.test.x), start=1):
        measured = sparsity(activity)
        rows.append({"layer": number, **vars(measured)})
        run.log("test", {"layer": number}, **vars(measured))
        run.results |= {f"layer {number}/silent": measured.silent, f"layer {number}/dead": measured.dead}
    run.save_table("sparsity", pd.DataFrame(rows))


def _analyze_probe(run: Run, data: Dataset, trained: Learner, untrained: Learner, twins: Mapping[str, Learner]) -> None:
    networks = {"trained": trained, "untrained": untrained, **twins}
    probes = probe_layers({name: network.features for name, network in networks.items()}, data, seed=run.seed)
    rows: list[dict[str, Any]] = [{**vars(probe), "layer": probe.layer + 1} for probe in probes]
    for row in rows:
        run.log("probe", {"layer": row["layer"], "network": row["network"]}, accuracy=row["accuracy"])
        run.results[f"probe/layer {row['layer']} {row['network']}"] = row["accuracy"]
    figure = figures.probe_figure(pd.DataFrame(rows))
    pixels = linear_probe(data.train.x, data.train.y, data.test.x, data.test.y, seed=run.seed)
    rows.append({"layer": 0, "network": "pixels", **vars(pixels)})
    run.log("probe", {"layer": 0, "network": "pixels"}, accuracy=pixels.accuracy)
    run.results["probe/pixels"] = pixels.accuracy
    run.save_table("probe", pd.DataFrame(rows))
    run.save_figure("probe", figure)


def _analyze_robustness(run: Run, data: Dataset, learner: Learner, controls: Mapping[str, Learner]) -> None:
    rows = []
    for network, subject in {"": learner, **controls}.items():
        for row in robustness(subject.predict, data, seed=run.seed):
            condition = f"{row.kind}:{row.strength:g}"
            labels = {"corruption": condition, **({"network": network} if network else {})}
            run.log("test", labels, accuracy=row.accuracy, loss=row.loss)
            run.results["/".join(part for part in (network, condition, "accuracy") if part)] = row.accuracy
            rows.append({**({"label": network or run.record.rule} if controls else {}), **vars(row)})
    frame = pd.DataFrame(rows)
    run.save_table("robustness", frame)
    run.save_figure("robustness", figures.robustness_figure(frame))


def _analyze_cka(
    run: Run, data: Dataset, learner: Learner, build: Build, other: str | None, twins: Mapping[str, Learner]
) -> None:
    images = stratified_sample(data.test, CKA_IMAGES).x
    against: Learner
    if other is not None:
        against, name = _learner_of_other_run(run, other, data), f"run {other}"
    elif twins:
        (twin, against), *_ = twins.items()
        name = f"the {twin} twin"
    else:
        against, name = build(run, data, trained=False), "the untrained network"
    mine, theirs = features(learner, images), features(against, images)
    matrix = cka_matrix(mine, theirs, debiased=True).cpu()
    rows = _cka_rows(run, matrix, {"other": name}, "cka")
    if twins and other is None:
        # How alike the twin is to what nothing was learned in says what the likeness is worth.
        untrained = features(build(run, data, trained=False), images)
        rows += _cka_rows(
            run,
            cka_matrix(untrained, theirs, debiased=True).cpu(),
            {"other": name, "network": "untrained"},
            "cka of the untrained",
        )
    run.save_table("cka", pd.DataFrame(rows))
    run.save_figure(
        "cka",
        figures.cka_figure(
            matrix,
            [str(number + 1) for number in range(len(mine))],
            [str(number + 1) for number in range(len(theirs))],
            rows="Layer of this run",
            columns=f"Layer of {name}",
            debiased=True,
        ),
    )


def _cka_rows(run: Run, matrix: Tensor, labels: dict[str, str], prefix: str) -> list[dict[str, Any]]:
    """Log the CKA of each layer with each of the other network's, and return the rows of the table."""
    rows: list[dict[str, Any]] = []
    for (row, column), value in np.ndenumerate(matrix.numpy()):
        of_layers = {"layer": row + 1, "other layer": column + 1, **labels}
        run.log("test", of_layers, cka=float(value))
        run.results[f"{prefix}/{row + 1}-{column + 1}"] = float(value)
        rows.append({**of_layers, "cka": float(value)})
    return rows


def check_other_run(run: Run, other: str) -> tuple[Run, Build]:
    """Return the run of `--other` and what builds its learner; raises UserError where they cannot be compared."""
    from plastic_cli.plugins import find_rule

    folder = RunStore(run.folder.parent).find(other)
    second = open_run(folder, stage="analyze", data_folder=run.data_folder, device=str(run.device))
    build: Build | None = getattr(find_rule(second.record.rule).load(), "build", None)
    if build is None:
        raise UserError(f"--other {other}: the rule '{second.record.rule}' offers no network to compare with.")
    if second.record.dataset != run.record.dataset:
        raise UserError(
            f"--other {other}: it learned from {second.record.dataset}, this run from {run.record.dataset}."
        )
    return second, build


def _learner_of_other_run(run: Run, other: str, data: Dataset) -> Learner:
    """Build the learner of another run, which may be of another rule, through that rule's own `build`."""
    second, build = check_other_run(run, other)
    return build(second, data, trained=True)


# ----------------------------------------------------------------------------------------------------------- render


def snapshot_weights(run: Run, epoch: int, epochs: int, weights: Tensor) -> None:
    """Keep the first units' weights of an epoch, for `render`; every epoch of a short run, some sixty of a long one."""
    if epoch % math.ceil(epochs / SNAPSHOTS) == 0 or epoch == epochs:
        kept = weights[:SNAPSHOT_UNITS].detach().to("cpu", torch.float16).clone()
        run.save_tensors(f"weights-{epoch:06d}", {"epoch": epoch, "weights": kept})


def render_weights(run: Run, units: int = 36, seconds_per_frame: float = 0.35) -> None:
    """Write a GIF of the first layer's weights beside the accuracy as they learn, and its last frame as a still.

    Raises UserError where the run kept no weights or where its inputs are no images.
    """
    names = run.stored_tensors("weights-")
    if not names:
        raise UserError(f"run {run.id} kept no weights to show: train it again with this version.")
    snapshots = [run.load_tensors(name) for name in names]
    store = RunStore(run.folder.parent)
    metrics = store.metrics(runs=[run.id], stage="train")
    curves = metrics[(metrics["metric"] == "accuracy") & metrics["split"].isin(["train", "test", "validation"])]
    frames = weight_frames(
        [snapshot["weights"][:units].float() for snapshot in snapshots],
        [int(snapshot["epoch"]) for snapshot in snapshots],
        image_shape_of(run, snapshots[0]["weights"].shape[1]),
        curves,
        title=f"{run.record.rule} on {run.record.dataset}, seed {run.seed}",
    )
    run.save_video("weights", [*frames, *[frames[-1]] * 5], seconds_per_frame)
    run.save_image("weights", frames[-1])


def image_shape_of(run: Run, inputs: int) -> tuple[int, int, int] | None:
    """Return the shape of the images that the first layer sees, or None where it sees a code that is no image."""
    stored = run.record.data.get("image_shape")
    if stored is not None and int(np.prod(stored)) == inputs:
        channels, height, width = stored
        return int(channels), int(height), int(width)
    return None


# -------------------------------------------------------------------------------------------------------------- data


def data_for(run: Run, dataset: str | None, *, validation: bool = False) -> Dataset:
    """Load the data set of an evaluation, in its own normalization; raises UserError where it does not fit the run."""
    name = dataset or run.record.dataset
    if name is None:
        raise UserError(f"run {run.id} has no data set of its own: name one with --dataset.")
    held_out = int(run.config.get("validation", 0))
    if validation and not held_out:
        raise UserError(f"run {run.id} was trained without a validation split. Choose --split test or train.")
    data = load_dataset(
        name, run.data_folder, validation=held_out if name == run.record.dataset else 0, device=run.device
    )
    stored = run.record.data
    if name != run.record.dataset:
        _check_fit(run, data)
    elif stored.get("checksum") not in (None, data.checksum):
        run.console.warning(f"the data set {name} here is not the one that run {run.id} learned from (other checksum)")
    return data


def trained_on(run: Run) -> Dataset:
    """Load the data set that a run was trained on, with the same validation split set aside."""
    return load_dataset(
        str(run.record.dataset), run.data_folder, validation=int(run.config.get("validation", 0)), device=run.device
    )


def _check_fit(run: Run, data: Dataset) -> None:
    """Raise UserError where another data set than the run's own has other images, units, or classes."""
    stored, option = run.record.data, f"--dataset {data.name}"
    learned = f"run {run.id} learned from"
    shape, classes = stored.get("image_shape"), stored.get("classes")
    if shape is not None and list(shape) != list(data.image_shape):
        raise UserError(
            f"{option}: its images are {_by(data.image_shape)}, {learned} {_by(shape)} ({run.record.dataset})."
        )
    if classes is not None and int(classes) < data.classes:
        raise UserError(f"{option}: it has {data.classes} classes, run {run.id} answers with {classes}.")
    for number, (own, other) in enumerate(zip(stored.get("class_names") or (), data.class_names, strict=False)):
        # A class whose name is its number may be any class.
        if own != other and str(number) not in (own, other):
            raise UserError(
                f"{option}: its class {number} is {other}, {learned} {own} as class {number}. Store the numbers of the "
                "run's classes as labels."
            )
    pixels = PixelRange.from_stored(stored.get("pixels"))
    if data.pixels is not None and pixels is not None and in_other_units(pixels, data.pixels):
        raise UserError(
            f"{option}: its pixels go {data.pixels}, {learned} pixels {pixels}. Store both in the same units."
        )


def _by(shape: Any) -> str:
    return " x ".join(str(size) for size in shape)
