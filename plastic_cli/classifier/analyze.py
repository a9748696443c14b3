"""`plastic analyze` of a classifier: confusion matrix, sparsity, linear probe, robustness and CKA."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from torch import Tensor

from plastic_cli.analysis.cka import cka_matrix
from plastic_cli.analysis.classification import accuracy_by_class, confusion_matrix
from plastic_cli.analysis.probe import linear_probe, probe_layers
from plastic_cli.analysis.robustness import robustness
from plastic_cli.analysis.sparsity import sparsity
from plastic_cli.classifier.fit import features, predict, stratified_sample
from plastic_cli.classifier.learner import Learner
from plastic_cli.data.datasets import Dataset
from plastic_cli.errors import UserError
from plastic_cli.figures import measures as figures
from plastic_cli.runs.folder import open_run
from plastic_cli.runs.run import Run
from plastic_cli.runs.store import RunStore

if TYPE_CHECKING:
    from plastic_cli.config.classifier import ClassifierAnalyzeConfig
from plastic_cli.classifier.data import data_for
from plastic_cli.classifier.learner import Build, Networks

CKA_IMAGES = 2000


def analyze_classifier(
    config: ClassifierAnalyzeConfig,
    run: Run,
    build: Build,
    *,
    others_chosen: bool = False,
    controls: Networks | None = None,
    baselines: Networks | None = None,
) -> bool:
    """Run the analyses that `config` selects; if it selects none, run the confusion matrix and the sparsity.

    Tables are written to the run's `tables/`, figures to `figures/`, and the main numbers to its metrics.
    others_chosen: whether the rule's own analyses are selected. controls: further networks whose robustness is
    measured. baselines: further networks to probe; CKA compares with the first of them instead of the untrained
    network. Returns whether no analysis was selected, so that a rule can add its own.
    """
    chosen = [config.confusion, config.sparsity, config.probe, config.robustness, config.cka, others_chosen]
    nothing_chosen = not any(chosen)
    if config.other is not None:
        check_other_run(run, config.other)
    data = data_for(run, None)
    learner = build(run, data, trained=True)
    others = baselines() if baselines and (config.probe or (config.cka and config.other is None)) else {}
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
    run.images["test"] = len(data.test)
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


def _analyze_probe(
    run: Run, data: Dataset, trained: Learner, untrained: Learner, baselines: Mapping[str, Learner]
) -> None:
    networks = {"trained": trained, "untrained": untrained, **baselines}
    probes = probe_layers({name: network.features for name, network in networks.items()}, data, seed=run.seed)
    rows: list[dict[str, Any]] = [{**vars(probe), "layer": probe.layer + 1} for probe in probes]
    for row in rows:
        run.log("probe", {"layer": row["layer"], "network": row["network"]}, accuracy=row["accuracy"])
        run.results[f"probe/layer {row['layer']} {row['network']}"] = row["accuracy"]
    pixels = linear_probe(data.train.x, data.train.y, data.test.x, data.test.y, seed=run.seed)
    rows.append({"layer": 0, "network": figures.PIXELS, **vars(pixels)})
    run.log("probe", {"layer": 0, "network": figures.PIXELS}, accuracy=pixels.accuracy)
    run.results["probe/pixels"] = pixels.accuracy
    run.save_table("probe", pd.DataFrame(rows))
    run.save_figure("probe", figures.probe_figure(pd.DataFrame(rows)))


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
    run: Run, data: Dataset, learner: Learner, build: Build, other: str | None, baselines: Mapping[str, Learner]
) -> None:
    images = stratified_sample(data.test, CKA_IMAGES).x
    against: Learner
    if other is not None:
        against, name = _learner_of_other_run(run, other, data), f"run {other}"
    elif baselines:
        (baseline, against), *_ = baselines.items()
        # The name is stored with the values, so it keeps its first wording.
        name = f"the {baseline} twin"
    else:
        against, name = build(run, data, trained=False), "the untrained network"
    mine, theirs = features(learner, images), features(against, images)
    matrix = cka_matrix(mine, theirs, debiased=True).cpu()
    rows = _cka_rows(run, matrix, {"other": name}, "cka")
    if baselines and other is None:
        # The similarity of the baseline to the untrained network is the reference for the similarity above.
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
            rows="Layer 1 of this run" if matrix.numel() == 1 else "Layer of this run",
            columns=f"{'Layer 1' if matrix.numel() == 1 else 'Layer'} of {name.replace(' twin', ' network')}",
            debiased=True,
        ),
    )


def _cka_rows(run: Run, matrix: Tensor, labels: dict[str, str], prefix: str) -> list[dict[str, Any]]:
    """Log the CKA of each layer with each layer of the other network, and return the rows of the table."""
    rows: list[dict[str, Any]] = []
    for (row, column), value in np.ndenumerate(matrix.numpy()):
        of_layers = {"layer": row + 1, "other layer": column + 1, **labels}
        run.log("test", of_layers, cka=float(value))
        run.results[f"{prefix}/{row + 1}-{column + 1}"] = float(value)
        rows.append({**of_layers, "cka": float(value)})
    return rows


def check_other_run(run: Run, other: str) -> tuple[Run, Build]:
    """Return the run of `--other` and the function that builds its learner; raises UserError if it cannot be used."""
    from plastic_cli.plugins.discovery import find_rule

    folder = RunStore(run.folder.parent).find(other)
    second = open_run(folder, stage="analyze", data_folder=run.data_folder, device=str(run.device))
    build: Build | None = find_rule(second.record.rule).member("build")
    if build is None:
        raise UserError(
            f"--other {other}: the rule '{second.record.rule}' does not support --other. Choose a run of another rule."
        )
    if second.record.dataset != run.record.dataset:
        raise UserError(
            f"--other {other}: it was trained on {second.record.dataset}, this run on {run.record.dataset}."
        )
    return second, build


def _learner_of_other_run(run: Run, other: str, data: Dataset) -> Learner:
    """Build the learner of another run, which may be of another rule, with that rule's `build`."""
    second, build = check_other_run(run, other)
    return build(second, data, trained=True)
