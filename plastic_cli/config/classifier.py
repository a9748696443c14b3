"""The options that all classifier rules share."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator

from plastic_cli.config.model import (
    AnalyzeConfig,
    Device,
    EvaluateConfig,
    OnlyWith,
    TrainConfig,
    field,
)

MOST_UNITS = 2**20


def _check_layer_sizes(sizes: tuple[int, ...]) -> tuple[int, ...]:
    if not sizes or not all(1 <= units <= MOST_UNITS for units in sizes):
        raise ValueError(f"needs at least one layer, with 1 to {MOST_UNITS} units in each")
    return sizes


LayerSizes = Annotated[tuple[int, ...], AfterValidator(_check_layer_sizes)]
"""Type of `--hidden`: the number of units in each hidden layer. `LayerSizes | None` makes the option optional."""


class ClassifierTrainConfig(TrainConfig):
    """Options for training a classifier of images."""

    dataset: str = field(
        "digits",
        "digits, mnist, fashion, kmnist, emnist, emnist-letters, emnist-digits, emnist-mnist, emnist-byclass,"
        " emnist-bymerge, cifar10, or a folder with your own data set",
        panel="Data",
        complete="dataset",
    )
    validation: int = field(
        0, "number of training images set aside for validation; the same images for every seed", ge=0, panel="Data"
    )


class ClassifierEvaluateConfig(EvaluateConfig):
    """Evaluate a trained classifier on a data set, split and corruption."""

    dataset: str | None = field(None, "data set (default: the one it was trained on)", panel="Data", complete="dataset")
    split: Literal["test", "train", "validation"] = field("test", "split of the data set", panel="Data")
    corruption: tuple[str, ...] = field(
        (),
        "KIND:STRENGTH, separated by commas; KIND is gaussian-noise (after normalization), pixel-noise (before"
        " normalization), rotation (random, up to STRENGTH degrees) or fixed-rotation",
        panel="Data",
    )


class ClassifierAnalyzeConfig(AnalyzeConfig):
    """Analyze a trained classifier. Without an option: accuracy by class, confusion matrix and sparsity."""

    panel: ClassVar[str] = "Analyses"

    confusion: bool = field(False, "accuracy by class and confusion matrix")
    sparsity: bool = field(False, "sparsity of the activity of each layer")
    probe: bool = field(False, "linear probe of each layer, and of the untrained network")
    robustness: bool = field(False, "accuracy under noise and rotation")
    cka: bool = field(False, "similarity (linear CKA) to the untrained network, or to the run given by --other")
    other: str | None = field(None, "run to compare with", complete="run")

    only_with: ClassVar[OnlyWith] = (("cka", (True,), ("other",)),)


class FitConfig(ClassifierTrainConfig):
    """The options of `plastic.fit` that a run stores, in addition to the settings of the user."""

    device: Device = field("cpu", "where to compute", panel="Run")
    epochs: int = field(10, "passes over the training images", ge=1)
    batch_size: int = field(64, "images per step", ge=1)
    images: bool = field(False, "a module takes images (batch, channels, height, width), not rows of pixels")
