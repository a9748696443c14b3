"""The options of backpropagation."""

from __future__ import annotations

from typing import ClassVar, Literal

from plastic_cli import ClassifierTrainConfig, FilmConfig, OnlyWith, field
from plastic_cli.config.classifier import LayerSizes


class Train(ClassifierTrainConfig):
    """Train a ReLU network by backpropagation, the control for all rules."""

    hidden: LayerSizes = field((256,), "units of each hidden layer", panel="Network")
    trained: Literal["all", "readout"] = field(
        "all", "layers that learn; readout: only the last layer, on fixed random features", panel="Learning"
    )
    optimizer: Literal["adam", "sgd"] = field("adam", "optimizer that applies the gradient", panel="Learning")
    learning_rate: float = field(0.001, "learning rate", gt=0, search=(1e-4, 0.1, "log"), panel="Learning")
    momentum: float = field(0.0, "momentum of --optimizer sgd", ge=0, lt=1, panel="Learning")
    batch_size: int = field(64, "images per step", ge=1, panel="Learning")
    epochs: int = field(10, "passes over the training images", ge=1, panel="Learning")

    only_with: ClassVar[OnlyWith] = (("optimizer", ("sgd",), ("momentum",)),)


class Render(FilmConfig):
    """Render the weights of the first layer and the accuracy over training as a film."""

    units: int = field(36, "number of hidden units to show", ge=1, panel="Film")
