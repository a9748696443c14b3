"""The options of backpropagation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from plastic_cli import FilmConfig, field
from plastic_cli.config.classifier import OPTIMIZER_HELP, Optimizer, SteppedRateConfig

MODULE_RATE = 0.1
"""Default learning rate of SGD on another network than mlp."""


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
        f"learning rate (default with momentum: 0.01; with sgd and another --model than mlp: {MODULE_RATE})",
        gt=0,
        search=(1e-4, 0.1, "log"),
        panel="Learning",
    )

    controls: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "random features": {"trained": "readout"},
        "deep supervision": {"trained": "deep-supervision"},
    }
    controls_all_rules: ClassVar[bool] = True
    added: ClassVar[Mapping[str, Any]] = {"model": "mlp", "weight_decay": 0.0, "rate_drops": []}
    rates: ClassVar[Mapping[str, float]] = {"momentum": 0.01}

    @classmethod
    def implied(cls, typed: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values that an optimizer and a model imply."""
        found = super().implied(typed)
        if typed.get("optimizer") == "sgd" and typed.get("model", "mlp") != "mlp":
            found["learning_rate"] = MODULE_RATE
        return found


class Render(FilmConfig):
    """Render the weights of the first layer and the accuracy over training as a film."""

    units: int = field(36, "number of hidden units to show", ge=1, panel="Film")
