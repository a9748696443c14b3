"""`plastic analyze` of a classifier: confusion matrix, sparsity, linear probe, robustness and CKA."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import pandas as pd
from torch import Tensor

from plastic_cli.analysis.cka import cka_matrix
from plastic_cli.analysis.classification import accuracy_by_class, confusion_matrix
from plastic_cli.analysis.probe import linear_probe, probe_layers
from plastic_cli.analysis.robustness import robustness
from plastic_cli.analysis.sparsity import BatchedSparsity
from plastic_cli.classifier.angles import analyze_angles, has_credit_rule, no_credit_rule
from plastic_cli.classifier.data import data_for
from plastic_cli.classifier.few_shot import analyze_held_out
from plastic_cli.classifier.fit import features, predict, stratified_sample
from plastic_cli.classifier.layers import HiddenLayer, NamedLayers, activity_in_batches, hidden_layers
from plastic_cli.classifier.learner import Build, Learner, Networks
from plastic_cli.classifier.module import ModuleLearner
from plastic_cli.classifier.normalization import adapt_normalization
from plastic_cli.config.classifier import MeasuresConfig
from plastic_cli.config.model import StageConfig
from plastic_cli.data.datasets import Dataset
from plastic_cli.errors import UserError
from plastic_cli.figures import measures as figures
from plastic_cli.runs.folder import open_run
from plastic_cli.runs.run import Run
from plastic_cli.runs.store import RunStore

if TYPE_CHECKING:
    from plastic_cli.config.classifier import ClassifierAnalyzeConfig

CKA_IMAGES = 2000
MODULE_PROBE_IMAGES = 10_000
"""Number of training images, at most, on which the layers of a module are probed: they are many and large."""

MOST_CKA_RESULTS = 64
"""Number of pairs of layers up to which each is a result; with more, only pairs of layers with the same number are."""

UNTRAINED = "the untrained network"


@dataclass(frozen=True)
class Subject:
    """What is analyzed, and what it is compared with.

    untrained: builds the network before training. against: builds the network that CKA compares with, and gives its
    name. baselines: further networks to probe. controls: further networks whose robustness is measured. name: what is
    analyzed, in figures.
    """

    data: Dataset
    learner: Learner
    untrained: Callable[[], Learner]
    against: Callable[[], tuple[Learner, str]]
    baselines: Mapping[str, Learner]
    controls: Networks
    name: str = "this run"


def analyze_classifier(
    config: ClassifierAnalyzeConfig,
    run: Run,
    build: Build,
    *,
    others_chosen: bool = False,
    controls: Networks | None = None,
    baselines: Networks | None = None,
    own_angles: Callable[[], None] | None = None,
) -> bool:
    """Run the analyses that `config` selects; if it selects none, run the confusion matrix and the sparsity.

    Tables are written to the run's `tables/`, figures to `figures/`, and the main numbers to its metrics.
    others_chosen: whether the rule's own analyses are selected. controls: further networks whose robustness is
    measured. baselines: further networks to probe; CKA compares with the first of them instead of the untrained
    network. own_angles: measures the angles of networks that the rule teaches without a credit rule; it is called too
    if no analysis is selected. Returns whether no analysis was selected, so that a rule can add its own.
    """
    of_held_out = config.few_shot or config.incremental
    nothing_chosen = not (measures_chosen(config) or config.angles or of_held_out or others_chosen)
    if config.other is not None:
        check_other_run(run, config.other)
    data = data_for(run, None)
    learner = build(run, data, trained=True)
    is_module = isinstance(learner, ModuleLearner)
    if config.angles and not has_credit_rule(learner) and (is_module or own_angles is None):
        raise no_credit_rule(run, learner)
    others = baselines() if baselines and (config.probe or (config.cka and config.other is None)) else {}

    def untrained() -> Learner:
        network = build(run, data, trained=False)
        adapt_normalization(network, data.train.x)
        return network

    def against() -> tuple[Learner, str]:
        if config.other is not None:
            return _learner_of_other_run(run, config.other, data), f"run {config.other}"
        for name, baseline in others.items():
            # The name is stored with the values, so it keeps its first wording.
            return baseline, f"the {name} twin"
        return untrained(), UNTRAINED

    subject = Subject(data, learner, untrained, against, others, controls or dict)
    analyze_network(config, run, subject, default=nothing_chosen)
    if of_held_out:
        analyze_held_out(config, run, learner, untrained)
    if config.angles and has_credit_rule(learner):
        # Angles are measured with the moments of each batch.
        networks = {"trained": learner, "untrained": build(run, data, trained=False)}
        taught = {name: network for name, network in networks.items() if has_credit_rule(network)}
        analyze_angles(run, data, taught, images=config.images, samples=config.samples)
    elif own_angles is not None and not is_module and (config.angles or nothing_chosen):
        own_angles()
    return nothing_chosen


def analyze_network(config: MeasuresConfig, run: Run, subject: Subject, *, default: bool) -> None:
    """Take the measures that `config` selects; default: also those that are taken without a selection.

    Raises UserError for a measure of hidden layers if the network has none.
    """
    of_layers = config.sparsity or config.probe or config.cka
    # A learner of a user can be without `features`. Then the analyses without a selection are those of its predictions.
    has_layers = of_layers or (default and hasattr(subject.learner, "features"))
    layers = hidden_layers(subject.learner, subject.data.test.x) if has_layers else []
    if of_layers and not layers:
        raise UserError("the network has no hidden layer, which sparsity, probe and CKA measure. Leave them out.")
    run.layers |= {layer.number: layer.name for layer in layers if layer.name is not None}
    if config.confusion or default:
        _analyze_confusion(run, subject.data, subject.learner)
    if config.sparsity or (default and layers):
        _analyze_sparsity(run, subject, layers)
    if config.probe:
        _analyze_probe(run, subject, layers)
    if config.robustness:
        _analyze_robustness(run, subject)
    if config.cka:
        _analyze_cka(run, subject, layers)


def measures_chosen(config: MeasuresConfig) -> bool:
    """Return whether a configuration selects a measure."""
    return any(getattr(config, name) for name in MeasuresConfig.model_fields if name not in StageConfig.model_fields)


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


def _analyze_sparsity(run: Run, subject: Subject, layers: Sequence[HiddenLayer]) -> None:
    batches = [BatchedSparsity() for _ in layers]
    for activity in activity_in_batches(subject.learner, subject.data.test.x):
        for of_layer, part in zip(batches, activity, strict=True):
            of_layer.add(part)
    rows = []
    for layer, of_layer in zip(layers, batches, strict=True):
        sparsity = of_layer.summary()
        rows.append({**layer.labels, **vars(sparsity)})
        run.log("test", layer.labels, **vars(sparsity))
        run.results |= {
            f"layer {layer.number}/silent": sparsity.silent,
            f"layer {layer.number}/dead": sparsity.dead,
        }
    run.save_table("sparsity", pd.DataFrame(rows))


def _analyze_probe(run: Run, subject: Subject, layers: Sequence[HiddenLayer]) -> None:
    data = subject.data
    networks = {"trained": subject.learner, "untrained": subject.untrained(), **subject.baselines}
    examples = MODULE_PROBE_IMAGES if isinstance(subject.learner, NamedLayers) else None
    of_networks = {name: network.features for name, network in networks.items()}
    probes = probe_layers(of_networks, data, seed=run.seed, examples=examples)
    rows: list[dict[str, Any]] = [{**vars(probe), **layers[probe.layer].labels} for probe in probes]
    for row in rows:
        name = {"name": row["name"]} if "name" in row else {}
        run.log("probe", {"layer": row["layer"], **name, "network": row["network"]}, accuracy=row["accuracy"])
        run.results[f"probe/layer {row['layer']} {row['network']}"] = row["accuracy"]
    pixels = linear_probe(data.train.x, data.train.y, data.test.x, data.test.y, seed=run.seed, examples=examples)
    rows.append({"layer": 0, "network": figures.PIXELS, **vars(pixels)})
    run.log("probe", {"layer": 0, "network": figures.PIXELS}, accuracy=pixels.accuracy)
    run.results["probe/pixels"] = pixels.accuracy
    run.save_table("probe", pd.DataFrame(rows))
    run.save_figure("probe", figures.probe_figure(pd.DataFrame(rows)))


def _analyze_robustness(run: Run, subject: Subject) -> None:
    rows = []
    controls = subject.controls()
    for network, learner in {"": subject.learner, **controls}.items():
        for row in robustness(learner.predict, subject.data, seed=run.seed):
            condition = f"{row.kind}:{row.strength:g}"
            labels = {"corruption": condition, **({"network": network} if network else {})}
            run.log("test", labels, accuracy=row.accuracy, loss=row.loss)
            run.results["/".join(part for part in (network, condition, "accuracy") if part)] = row.accuracy
            rows.append({**({"label": network or run.record.rule} if controls else {}), **vars(row)})
    frame = pd.DataFrame(rows)
    run.save_table("robustness", frame)
    run.save_figure("robustness", figures.robustness_figure(frame))


def _analyze_cka(run: Run, subject: Subject, layers: Sequence[HiddenLayer]) -> None:
    images = stratified_sample(subject.data.test, CKA_IMAGES).x
    against, name = subject.against()
    mine, theirs = features(subject.learner, images), features(against, images)
    other_layers = hidden_layers(against, images)
    matrix = cka_matrix(mine, theirs, debiased=True).cpu()
    pairs, one = list(product(layers, other_layers)), matrix.numel() == 1
    rows = _cka_rows(run, matrix, pairs, {"other": name}, "cka")
    if any(against is baseline for baseline in subject.baselines.values()):
        # The similarity of the baseline to the untrained network is the reference for the similarity above.
        untrained = features(subject.untrained(), images)
        rows += _cka_rows(
            run,
            cka_matrix(untrained, theirs, debiased=True).cpu(),
            pairs,
            {"other": name, "network": "untrained"},
            "cka of the untrained",
        )
    run.save_table("cka", pd.DataFrame(rows))
    run.save_figure(
        "cka",
        figures.cka_figure(
            matrix,
            [layer.text for layer in layers],
            [layer.text for layer in other_layers],
            rows=f"Layer {layers[0].text if one else ''}".rstrip() + f" of {subject.name}",
            columns=f"Layer {other_layers[0].text if one else ''}".rstrip()
            + f" of {name.replace(' twin', ' network')}",
            debiased=True,
        ),
    )


def _cka_rows(
    run: Run, matrix: Tensor, pairs: Sequence[tuple[HiddenLayer, HiddenLayer]], labels: dict[str, str], prefix: str
) -> list[dict[str, Any]]:
    """Log the CKA of each layer with each layer of the other network, and return the rows of the table."""
    rows: list[dict[str, Any]] = []
    for (mine, other), value in zip(pairs, matrix.flatten().tolist(), strict=True):
        named = {key: layer.name for key, layer in (("name", mine), ("other name", other)) if layer.name is not None}
        of_layers = {"layer": mine.number, "other layer": other.number, **named, **labels}
        run.log("test", of_layers, cka=value)
        if len(pairs) <= MOST_CKA_RESULTS or mine.number == other.number:
            run.results[f"{prefix}/{mine.number}-{other.number}"] = value
        rows.append({**of_layers, "cka": value})
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
