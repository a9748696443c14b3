"""The options of EGLP: one model for each command."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import model_validator

from plastic_cli import ClassifierAnalyzeConfig, ClassifierEvaluateConfig, ClassifierTrainConfig, OnlyWith, field
from plastic_cli.config.classifier import LayerSizes

LOCAL = "Local learning"
EVENTS = "Events"


class Train(ClassifierTrainConfig):
    """Train hidden layers by local plasticity that a global event gates.

    The readout learns from every image. As it stands, images of unusually high loss are kept until they fill a batch,
    a tenth of all images; from those the hidden layers learn, by fixed random feedback of the error.
    """

    hidden: LayerSizes = field((256, 128), "units of each hidden layer; channels of each convolution")
    model: Literal["mlp", "cnn"] = field(
        "mlp",
        "mlp, or cnn: convolutions, each halved; implies --hidden 32,128 --activation triangle --local-rule softhebb"
        " --feedback none --events always --local-lr 0.08 --readout-lr 0.0003 --batch-size 64 --epochs 5",
    )
    activation: Literal["tanh", "relu", "linear", "triangle"] = field(
        "tanh", "tanh, relu, linear, or triangle: what exceeds the mean over units"
    )
    initial_weights: Literal["uniform", "xavier"] = field(
        "uniform",
        "how hidden weights are drawn: uniform within 1 / sqrt(inputs), biases too; xavier: uniform within"
        " sqrt(6 / (inputs + units)), biases 0, as in the published program",
    )
    epochs: int = field(20, "passes over the training images", ge=1)
    batch_size: int = field(128, "images per step", ge=1)
    readout: Literal["supervised", "local"] = field(
        "supervised", "supervised: learns from every batch (Adam); local: one more local layer, on events only"
    )
    readout_lr: float = field(0.001, "learning rate of the supervised readout, and of --update backprop", gt=0)
    anneal: bool = field(True, "let the learning rates fall linearly over the epochs")
    update: Literal["local", "backprop"] = field(
        "local", "local, or backprop: the upper bound, all layers by Adam on the gradient of every batch"
    )
    control: bool = field(True, "at the end teach the same network with zero events, to compare with")
    feedback: Literal["none", "direct"] = field(
        "direct",
        "direct: the error reaches each hidden layer through fixed random weights; none: each layer follows its own"
        " --local-rule (implies --local-lr 0.01)",
        panel=LOCAL,
    )
    local_rule: Literal["oja", "hebb", "anti-oja", "bcm", "softhebb"] = field(
        "oja", "what layers learn without feedback: oja, hebb, anti-oja, bcm or softhebb", panel=LOCAL
    )
    local_lr: float = field(0.05, "learning rate of the local rules", ge=0, panel=LOCAL, search=(1e-4, 1.0, "log"))
    inverse_temperature: float = field(1.0, "how sharp softhebb's competition is", gt=0, panel=LOCAL)
    events: Literal["triggered", "fixed", "always", "never"] = field(
        "triggered",
        "triggered by a high signal, fixed: at random at --event-rate, always, or never (the control)",
        panel=EVENTS,
    )
    event_scope: Literal["stimulus", "batch"] = field(
        "stimulus",
        "what triggers: each image on its own, kept until --gather of them make one event; or the mean of a batch",
        panel=EVENTS,
    )
    event_signal: Literal["loss", "error", "margin", "novelty"] = field(
        "loss",
        "loss, error: 1 - the label's probability, margin: of the logits, or novelty: distance of the last hidden"
        " activity from its mean",
        panel=EVENTS,
    )
    event_strength: Literal["binary", "surprise"] = field(
        "binary", "binary: 1, or surprise: standard deviations above the running mean, at most 3", panel=EVENTS
    )
    event_rate: float = field(
        0.1, "share of the batches (of the images) with an event, triggered or fixed", ge=0, le=1, panel=EVENTS
    )
    event_budget: int = field(
        1000,
        "events in the whole run at most, 0 for no limit; part of a batch counts as part of one",
        ge=0,
        panel=EVENTS,
    )
    threshold_factor: float = field(
        0.0,
        "triggered: an event above this many times the signal's running mean, as published (2; implies --event-warmup"
        " 0); 0: above what keeps to the rate",
        ge=0,
        panel=EVENTS,
    )
    gather: int = field(
        0, "surprising images that are waited for until they make one event, 0 for a batch of them", ge=0, panel=EVENTS
    )
    event_warmup: int = field(
        40, "batches at the start that are events whatever the signal, since all is new", ge=0, panel=EVENTS
    )

    only_with: ClassVar[OnlyWith] = (
        ("update", ("local",), ("feedback", "local_rule", "local_lr", "inverse_temperature", "control")),
        ("feedback", ("none",), ("local_rule", "inverse_temperature")),
        ("local_rule", ("softhebb",), ("inverse_temperature",)),
        ("local_rule", ("oja", "hebb", "anti-oja", "bcm"), ("initial_weights",)),
        ("events", ("triggered",), ("event_scope", "event_signal", "event_strength", "threshold_factor", "gather")),
        ("events", ("triggered", "fixed"), ("event_rate", "event_warmup")),
        ("events", ("triggered", "fixed", "always"), ("event_budget", "local_lr", "feedback", "local_rule", "control")),
        ("event_scope", ("stimulus",), ("gather",)),
        # A threshold says what triggers an event, and the rate follows.
        ("threshold_factor", (0,), ("event_rate",)),
        ("readout", ("supervised",), ("readout_lr",)),
    )
    _implied: ClassVar[dict[tuple[str, Any], dict[str, Any]]] = {
        ("feedback", "none"): {"local_lr": 0.01},
        ("events", "always"): {"event_budget": 0},
        ("update", "backprop"): {"events": "always", "event_budget": 0},
        ("model", "cnn"): {
            "hidden": (32, 128),
            "activation": "triangle",
            "local_rule": "softhebb",
            "feedback": "none",
            "events": "always",
            "event_budget": 1000,
            "local_lr": 0.08,
            "readout_lr": 0.0003,
            "batch_size": 64,
            "epochs": 5,
        },
    }

    @classmethod
    def implied(cls, typed: Mapping[str, Any]) -> dict[str, Any]:
        """Return what typed options mean for others."""
        found: dict[str, Any] = {}
        for (name, value), meaning in cls._implied.items():
            if typed.get(name) == value:
                found |= meaning
        if _number(typed.get("threshold_factor")) or _number(typed.get("event_rate")) == 0:
            # The threshold as published, and a rate of none, hold from the first batch on.
            found["event_warmup"] = 0
        return found

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.threshold_factor and self.event_signal == "margin":
            raise ValueError("--threshold-factor takes a signal above 0, which --event-signal margin is not")
        if self.update == "backprop" and self.events != "always":
            raise ValueError("--update backprop learns from every batch: it goes with --events always")
        if self.update == "backprop" and self.readout == "local":
            raise ValueError("--update backprop trains the readout too: it goes with --readout supervised")
        return self


class Evaluate(ClassifierEvaluateConfig):
    """Measure a network that event-gated plasticity has taught, beside its zero-event control."""


class Analyze(ClassifierAnalyzeConfig):
    """Look inside a network that event-gated plasticity has taught. Without an option: what is cheap.

    --probe and --cka compare it with the same network trained by backprop, which is trained for that.
    """

    panel: ClassVar[str] = "What to look at"

    cka: bool = field(False, "similarity (linear CKA) to the backprop twin, or to the run of --other")
    sensitivity: bool = field(False, "accuracy with learning switched off layer by layer; trains anew for each")
    event_rates: bool = field(
        False, "accuracy against the rate of events, triggered and at random; trains anew for each of --rates"
    )
    only_with: ClassVar[OnlyWith] = (("event_rates", (True,), ("rates",)),)
    rates: tuple[float, ...] = field((0.01, 0.03, 0.1, 0.3, 1.0), "rates for --event-rates, beside zero")
    features: bool = field(False, "receptive fields of the first layer, before and after learning")
    events: bool = field(False, "when events happened: the raster over batches and epochs")

    @model_validator(mode="after")
    def _rates_are_rates(self) -> Self:
        if not self.rates or not all(0 < rate <= 1 for rate in self.rates):
            raise ValueError("--rates: give rates above 0 and up to 1")
        return self


def _number(value: Any) -> float | None:
    """Return a value that may still be text as a number, None where it is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
