"""The four verbs of the controls."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import model_validator

from plastic_cli import (
    ClassifierAnalyzeConfig,
    ClassifierEvaluateConfig,
    ClassifierTrainConfig,
    OnlyWith,
    RenderConfig,
    Run,
    field,
)

if TYPE_CHECKING:
    from plastic_cli.classifier.baselines import BackpropLearner
    from plastic_cli.data.datasets import Dataset


class Train(ClassifierTrainConfig):
    """Train a ReLU network by backpropagation, the control of every comparison."""

    hidden: tuple[int, ...] = field((256,), "units of each hidden layer")
    trained: Literal["all", "readout"] = field("all", "layers that learn; 'readout' leaves random features below it")
    optimizer: Literal["adam", "sgd"] = field("adam", "how the gradient becomes a step")
    learning_rate: float = field(0.001, "learning rate", gt=0, search=(1e-4, 0.1, "log"))
    momentum: float = field(0.0, "momentum of sgd", ge=0, lt=1)
    batch_size: int = field(64, "images per step", ge=1)
    epochs: int = field(10, "passes over the training images", ge=1)

    only_with: ClassVar[OnlyWith] = (("optimizer", ("sgd",), ("momentum",)),)

    @model_validator(mode="after")
    def _layers_have_units(self) -> Self:
        if not self.hidden or not all(1 <= units <= 2**20 for units in self.hidden):
            raise ValueError("--hidden: name at least one layer, of 1 to 1048576 units each")
        return self


def train(config: Train, run: Run) -> None:
    """Train the control."""
    from plastic_cli.classifier.fit import fit
    from plastic_cli.classifier.render import snapshot_weights
    from plastic_cli.data.datasets import load_dataset

    data = load_dataset(config.dataset, run.data_folder, validation=config.validation, device=run.device)
    learner = make_learner(config, data, run)
    fit(
        learner,
        data,
        run,
        epochs=config.epochs,
        batch_size=config.batch_size,
        after_epoch=lambda epoch: snapshot_weights(run, epoch, config.epochs, learner.first_weights),
    )


def evaluate(config: ClassifierEvaluateConfig, run: Run) -> None:
    """Measure a trained network."""
    from plastic_cli.classifier.evaluate import evaluate_classifier

    evaluate_classifier(config, run, build)


def analyze(config: ClassifierAnalyzeConfig, run: Run) -> None:
    """Look inside a trained network."""
    from plastic_cli.classifier.analyze import analyze_classifier

    analyze_classifier(config, run, build)


def render(config: RenderConfig, run: Run) -> None:  # noqa: ARG001
    """Show the first layer's weights as they learn."""
    from plastic_cli.classifier.render import render_weights

    render_weights(run)


def build(run: Run, data: Dataset, *, trained: bool = True) -> BackpropLearner:
    """Make the network of a run, as it was before training or with what it has learned."""
    learner = make_learner(Train.from_values(run.config, source=f"run {run.id}"), data, run)
    if trained:
        run.restore("learner", learner)
    return learner


def make_learner(config: Train, data: Dataset, run: Run) -> BackpropLearner:
    """Make the network that a configuration describes, its weights drawn from the run's seed."""
    from plastic_cli.classifier.baselines import BackpropLearner

    return BackpropLearner(
        [data.train.x.shape[1], *config.hidden, data.classes],
        run.generator("weights"),
        learning_rate=config.learning_rate,
        optimizer=config.optimizer,
        momentum=config.momentum,
        trained=config.trained,
        device=run.device,
    )
