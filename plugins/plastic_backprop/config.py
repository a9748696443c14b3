"""The options of backpropagation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from plastic_cli import FilmConfig, field
from plastic_cli.config.classifier import OPTIMIZER_HELP, Optimizer, SteppedRateConfig


class Train(SteppedRateConfig):
    """Train a network by backpropagation, the control for all rules."""

    trained: Literal["all", "readout", "deep-supervision"] = field(
        "all",
        "layers that learn; readout: only the last layer, on fixed random features; deep-supervision: each layer learns"
        " from a readout of its own, without errors from other layers",
        panel="Learning",
    )
    optimizer: Optimizer = field("adam", OPTIMIZER_HELP, panel="Learning")
    learning_rate: float = field(
        0.001,
        "learning rate (default with momentum: 0.01)",
        gt=0,
        search=(1e-4, 0.1, "log"),
        panel="Learning",
    )

    added: ClassVar[Mapping[str, Any]] = {"model": "mlp", "weight_decay": 0.0, "rate_drops": []}
    rates: ClassVar[Mapping[str, float]] = {"momentum": 0.01}


class Render(FilmConfig):
    """Render the weights of the first layer and the accuracy over training as a film."""

    units: int = field(36, "number of hidden units to show", ge=1, panel="Film")
