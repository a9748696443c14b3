"""`plastic eval` of a classifier: accuracy and cross-entropy, clean or under corruptions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plastic_cli.analysis.robustness import robustness
from plastic_cli.data.corruptions import parse_corruption
from plastic_cli.runs.run import Run

if TYPE_CHECKING:
    from plastic_cli.config.classifier import ClassifierEvaluateConfig
from plastic_cli.classifier.data import data_for, trained_on
from plastic_cli.classifier.learner import Build, Networks


def evaluate_classifier(
    config: ClassifierEvaluateConfig, run: Run, build: Build, *, controls: Networks | None = None
) -> None:
    """Measure accuracy and cross-entropy on a split, clean or under each selected corruption.

    controls: further networks to evaluate, trained on the run's data set.
    Raises UserError if the data set does not fit the network.
    """
    corruptions = [parse_corruption(text) for text in config.corruption]
    data = data_for(run, config.dataset, validation=config.split == "validation")
    same_dataset = config.dataset in (None, run.record.dataset)
    learner = build(run, data if same_dataset else trained_on(run), trained=True)
    labels = {} if same_dataset else {"dataset": data.name}
    run.images[config.split] = len(data.split(config.split))
    clean, *corrupted = robustness(learner.predict, data, corruptions, run.seed, split=config.split)
    if not corrupted:
        run.log(config.split, labels, accuracy=clean.accuracy, loss=clean.loss)
        run.results |= {f"{config.split}/accuracy": clean.accuracy, f"{config.split}/loss": clean.loss}
    if len(corrupted) == 1:
        run.conditions[config.split] = str(corruptions[0])
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
