"""The four verbs of GRLU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

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
    import pandas as pd
    from plotnine import ggplot

    from plastic_cli.data.datasets import Dataset
    from plastic_grlu.learner import GRLULearner


class Train(ClassifierTrainConfig):
    """Train a network with GRLU: each layer learns from its own noise and one scalar reward, no backward pass."""

    device: Literal["auto", "cpu", "cuda"] = field(
        "cpu",
        "where to compute; image by image the compiled path of the cpu is fastest; cuda takes the plain one",
        panel="Run",
    )
    perturbations: int = field(16, "antithetic pairs of noise per image", ge=1)
    hidden: tuple[int, ...] = field((256,), "units of each hidden layer, as in 256 or 256,256")
    skip: bool = field(False, "add a hidden layer's input to its output where the widths agree")
    activation: Literal["relu", "top-k"] = field(
        "relu", "hidden activation; top-k keeps a random fraction --k of units"
    )
    k: float | None = field(None, "fraction of hidden units that top-k keeps; implies --activation top-k", gt=0, le=1)
    credit: Literal["output", "preactivation"] = field(
        "output",
        "where the noise goes: 'output' is the published rule, noise behind the non-linearity, so that silent units"
        " learn too; 'preactivation' is true node perturbation, noise before it, along the gradient on average",
    )
    update: Literal["grlu", "backprop"] = field(
        "grlu", "'backprop' is the control: the true gradient on the same network with the step lr * noise^2"
    )
    batch_size: int = field(1, "images per step; their updates are summed", ge=1)
    epochs: int = field(10, "passes over the training images", ge=1)
    noise_max: float = field(
        0.1, "standard deviation of the noise at the start of its half cosine", gt=0, search=(0.01, 1.0, "log")
    )
    noise_min: float = field(0.0, "standard deviation of the noise at its end", ge=0)
    lr_max: float = field(0.1, "learning rate at the start of its half cosine", ge=0, search=(0.001, 1.0, "log"))
    lr_min: float = field(0.0, "learning rate at its end", ge=0)
    backbone: Literal["none", "autoencoder"] = field(
        "none", "'autoencoder' trains one by backpropagation first, freezes it, and GRLU learns from its code"
    )
    latent: int = field(128, "size of the autoencoder's code", ge=1)
    backbone_epochs: int = field(5, "passes of the autoencoder over the training images", ge=1)

    only_with: ClassVar[OnlyWith] = (
        ("update", ("grlu",), ("perturbations", "credit")),
        ("backbone", ("autoencoder",), ("latent", "backbone_epochs")),
    )

    @classmethod
    def implied(cls, typed: Mapping[str, Any]) -> dict[str, Any]:
        """A fraction means top-k, top-k without a fraction means a half, and ReLU means none."""
        if typed.get("k") is not None and "activation" not in typed:
            return {"activation": "top-k"}
        if "k" not in typed and typed.get("activation") in ("relu", "top-k"):
            return {"k": 0.5 if typed["activation"] == "top-k" else None}
        return {}

    @model_validator(mode="after")
    def _k_belongs_to_top_k(self) -> Self:
        if self.k is not None and self.activation != "top-k":
            raise ValueError("--k goes with --activation top-k, not with relu")
        if not self.hidden or not all(1 <= units <= 2**20 for units in self.hidden):
            raise ValueError("--hidden: name at least one layer, of 1 to 1048576 units each")
        if self.noise_min > self.noise_max or self.lr_min > self.lr_max:
            raise ValueError(
                "--noise-min and --lr-min are the ends of the schedules: not above --noise-max and --lr-max"
            )
        return self


class Analyze(ClassifierAnalyzeConfig):
    """Look inside a trained network. Without an option: accuracy by class, confusion matrix, angles and sparsity."""

    angles: bool = field(
        False,
        "angle between the update and the true gradient, and signal to noise, by layer and number of perturbations",
    )
    weights: bool = field(False, "the first layer's weights as images")
    images: int = field(20, "training images over which --angles measures updates", ge=2, panel="How")
    samples: int = field(16, "draws of the noise for each of these images", ge=2, panel="How")


class Render(RenderConfig):
    """Show the hidden units' weights and the accuracy as they learn: a GIF, and its last frame as a still."""

    units: int = field(36, "hidden units to show", ge=1)
    frame_seconds: float = field(0.35, "seconds per frame", ge=0.02, le=60)


def train(config: Train, run: Run) -> None:
    """Train a network; the run's headline is `test/accuracy`."""
    from plastic_cli.classifier.fit import fit
    from plastic_cli.classifier.render import snapshot_weights
    from plastic_cli.data.datasets import load_dataset
    from plastic_grlu.backbone import train_autoencoder

    data = load_dataset(config.dataset, run.data_folder, validation=config.validation, device=run.device)
    learner, autoencoder = _parts(config, data, run)
    if autoencoder is not None:
        train_autoencoder(autoencoder, data, run, config.backbone_epochs)
    seconds = learner.prepare(data.train.x, data.train.y)
    if seconds > 2:
        run.message(f"compiled the inner loop in {seconds:.0f} s; it is kept for the next run")
    fit(
        learner,
        data,
        run,
        epochs=config.epochs,
        batch_size=config.batch_size,
        after_epoch=lambda epoch: snapshot_weights(run, epoch, config.epochs, learner.weights[0]),
    )


def evaluate(config: ClassifierEvaluateConfig, run: Run) -> None:
    """Measure a trained network on any data set, split and corruption."""
    from plastic_cli.classifier.evaluate import evaluate_classifier

    evaluate_classifier(config, run, build)


def analyze(config: Analyze, run: Run) -> None:
    """Look inside a trained network."""
    from plastic_cli.classifier.analyze import analyze_classifier
    from plastic_grlu.analysis import analyze_updates, show_weights

    nothing_chosen = analyze_classifier(config, run, build, others_chosen=config.angles or config.weights)
    if config.angles or nothing_chosen:
        analyze_updates(config, run, build)
    if config.weights:
        show_weights(run, build)


def render(config: Render, run: Run) -> None:
    """Show the hidden units' weights as they learn."""
    from plastic_cli.classifier.render import render_weights

    render_weights(run, units=config.units, seconds_per_frame=config.frame_seconds)


def headline_figures(runs: pd.DataFrame, metrics: pd.DataFrame) -> dict[str, ggplot]:  # noqa: ARG001
    """Return the figure that `plastic report --output` adds for this rule, from its runs."""
    from plastic_grlu.figures import perturbations_figure

    figure = perturbations_figure(runs)
    return {} if figure is None else {"perturbations": figure}


def build(run: Run, data: Dataset, *, trained: bool = True) -> GRLULearner:
    """Make the network of a run, as it was before training or with what it has learned."""
    learner, autoencoder = _parts(Train.from_values(run.config, source=f"run {run.id}"), data, run)
    if autoencoder is not None:
        # The twin without training differs in what GRLU learned, not in the backbone that was given to it.
        run.restore("autoencoder", autoencoder)
        autoencoder.requires_grad_(False)
    if trained:
        run.restore("learner", learner)
    return learner


def _parts(config: Train, data: Dataset, run: Run) -> tuple[GRLULearner, Any]:
    """Make the untrained learner and its untrained autoencoder, if it has one."""
    from plastic_cli.numerics.seeds import seed_sequence
    from plastic_grlu.backbone import make_autoencoder
    from plastic_grlu.learner import GRLULearner

    inputs = data.train.x.shape[1]
    autoencoder = None
    if config.backbone == "autoencoder":
        autoencoder = make_autoencoder(inputs, config.latent, run.generator("backbone"), run.device)
        inputs = config.latent
    learner = GRLULearner(
        [inputs, *config.hidden, data.classes],
        run.generator("weights"),
        seed_sequence(run.seed, "noise"),
        perturbations=config.perturbations,
        top_k=config.k,
        skip=config.skip,
        credit=config.credit,
        update=config.update,
        batch_size=config.batch_size,
        noise=(config.noise_max, config.noise_min),
        learning_rate=(config.lr_max, config.lr_min),
        encoder=None if autoencoder is None else dict(autoencoder.named_children())["encoder"],
        device=run.device,
    )
    return learner, autoencoder
