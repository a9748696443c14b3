"""The options of EGLP, one model for each command."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, model_validator

from plastic_cli import ClassifierAnalyzeConfig, ClassifierEvaluateConfig, FilmConfig, OnlyWith, field
from plastic_cli.config.classifier import (
    DECAY,
    MODEL_HELP,
    MODELS,
    MOMENTUM,
    LayerSizes,
    ModuleTrainConfig,
    Optimizer,
    check_drops,
    check_model,
)

LOCAL = "Local learning"
EVENTS = "Events"
WITHOUT_LABELS = "Hidden layers without labels (--model softhebb and softhebb-mlp)"
LOSSES = ("predsim", "pred", "sim")
"""The local rules that are losses of a layer."""
OWN_MODELS = ("mlp", "cnn")
"""The networks of the published rule, whose layers learn by themselves."""
RATE_FACTOR = 0.25
"""Factor of the learning rates at each of --rate-drops."""
KERNELS = (5, 3)
"""Kernel size of the first convolution of cnn, and of all others."""
SOFTHEBB, SOFTHEBB_MLP = "softhebb", "softhebb-mlp"
SOFTHEBB_MODELS = (SOFTHEBB, SOFTHEBB_MLP)
"""The networks whose hidden layers learn without labels before the readout begins: convolutions, or fully connected."""


def _check_model(name: str) -> str:
    return check_model(name, (*MODELS, *SOFTHEBB_MODELS))


def _check_rates(rates: tuple[float, ...]) -> tuple[float, ...]:
    if not rates or not all(isfinite(rate) and rate >= 0 for rate in rates):
        raise ValueError("needs finite numbers of 0 or more, such as 0.08,0.005,0.01")
    return rates


def _check_positive(numbers: tuple[float, ...]) -> tuple[float, ...]:
    if not numbers or not all(isfinite(number) and number > 0 for number in numbers):
        raise ValueError("needs finite numbers above 0, such as 1,0.65,0.25")
    return numbers


def _check_powers(powers: tuple[float, ...]) -> tuple[float, ...]:
    # Higher powers of activity leave single precision.
    if not powers or not all(0 < power <= 10 for power in powers):
        raise ValueError("needs numbers above 0 and up to 10, such as 0.7,1.4,1")
    return powers


OF_HIDDEN_SOFTHEBB = (
    *("unsupervised_epochs", "unsupervised_images", "unsupervised_batch_size"),
    *("layer_rates", "layer_inverse_temperatures", "initial_filters"),
)
"""Options of the hidden layers of SOFTHEBB_MODELS, which learn without labels."""
OF_SOFTHEBB = (*OF_HIDDEN_SOFTHEBB, "labeled_images", "layer_powers", "initial_radius", "readout_dropout")
"""Options that no other network has."""
NOT_OF_SOFTHEBB = (
    *("activation", "batch_norm", "dropout", "shift", "flip", "initial_weights", "readout", "rate_drops"),
    *("local_learning_rate", "optimizer", "momentum", "weight_decay", "inverse_temperature", "similarity_weight"),
    *("event_scope", "event_signal", "event_strength", "event_uniform", "event_rate", "event_budget"),
    *("threshold_factor", "event_batch_size", "event_warmup"),
)
"""Options of the other networks that they do not have."""

EachLayerRate = Annotated[tuple[float, ...], AfterValidator(_check_rates)]
EachLayer = Annotated[tuple[float, ...], AfterValidator(_check_positive)]
EachLayerPower = Annotated[tuple[float, ...], AfterValidator(_check_powers)]


class Train(ModuleTrainConfig):
    """Train a network whose hidden layers learn locally, and only during events.

    The readout learns from every image. By default, images with unusually high loss (about a tenth) are collected into
    batches, and the hidden layers learn only from those. The error reaches the hidden layers through fixed random
    weights. With another --model or --optimizer than those of the published rule, such images learn at once, with the
    other images of their batch.
    """

    hidden: LayerSizes = field(
        (256, 128),
        "units of each hidden layer; with --model cnn and softhebb, channels of each convolution",
        panel="Network",
    )
    model: Annotated[str, AfterValidator(_check_model)] = field(
        "mlp",
        f"{MODEL_HELP}; cnn, each convolution followed by pooling that halves the image, implies --hidden 32,128"
        " --activation triangle --local-rule softhebb --feedback none --events always --local-learning-rate 0.08"
        " --learning-rate 0.0003 --batch-size 64 --epochs 5; softhebb, convolutions that learn without labels, then a"
        " readout of their stored activity, implies --hidden 96,384,1536 --activation triangle --local-rule softhebb"
        " --feedback none --events always --event-budget 0 --batch-size 64 --epochs 50; softhebb-mlp, the same"
        " for fully connected layers, implies --hidden 2000 --layer-rates 0.045 --layer-inverse-temperatures 12"
        " --initial-radius 35 --readout-dropout 0 --unsupervised-batch-size 32 --batch-size 64 --epochs 10",
        panel="Network",
    )
    activation: Literal["tanh", "relu", "linear", "triangle", "leaky-relu"] = field(
        "tanh",
        "activation function of the hidden layers: tanh, relu, linear, triangle (positive part of the difference from"
        " the mean over units) or leaky-relu (slope 0.01 below 0)",
        panel="Network",
    )
    batch_norm: bool = field(
        False,
        "batch normalization of each hidden layer of mlp, before its activation function",
        panel="Network",
    )
    dropout: float = field(0.0, "probability of dropout after each hidden layer of mlp", ge=0, lt=1, panel="Network")
    shift: int = field(
        0, "shift each training image at random, by up to N pixels in each direction", ge=0, le=64, panel="Data"
    )
    flip: bool = field(False, "flip each training image from left to right with probability 0.5", panel="Data")
    initial_weights: Literal["uniform", "xavier"] = field(
        "uniform",
        "initial hidden weights; uniform: within 1 / sqrt(inputs), biases too; xavier: within"
        " sqrt(6 / (inputs + units)), biases 0, as in the published program",
        panel="Network",
    )
    epochs: int = field(
        20,
        "passes over the training images; with --model softhebb and softhebb-mlp, of the readout",
        ge=1,
        panel="Learning",
    )
    batch_size: int = field(128, "images per step", ge=1, panel="Learning")
    readout: Literal["supervised", "local"] = field(
        "supervised",
        "supervised: learns from every batch by gradient descent (Adam); local: one more local layer, which learns"
        " during events only",
        panel="Learning",
    )
    learning_rate: float = field(
        0.001,
        "learning rate of the supervised readout (Adam); with --update backprop, of all layers",
        gt=0,
        panel="Learning",
    )
    anneal: bool = field(True, "decrease the learning rates linearly over the epochs", panel="Learning")
    rate_drops: Annotated[tuple[float, ...], AfterValidator(check_drops)] = field(
        (),
        "divide the learning rates by 4 after these shares of the epochs, such as 0.5,0.75 (implies --no-anneal)",
        panel="Learning",
    )
    update: Literal["local", "backprop"] = field(
        "local",
        "local: hidden layers learn locally; backprop: all layers learn by backpropagation (Adam), the upper bound",
    )
    control: bool = field(True, "after training, train the same network without events, for comparison")
    feedback: Literal["none", "direct"] = field(
        "direct",
        "direct: the error reaches each hidden layer through fixed random weights; none: each layer learns by"
        " --local-rule (implies --local-learning-rate 0.01)",
        panel=LOCAL,
    )
    local_rule: Literal["oja", "hebb", "anti-oja", "bcm", "softhebb", "predsim", "pred", "sim"] = field(
        "oja",
        "rule of the hidden layers with --feedback none: oja, hebb, anti-oja, bcm or softhebb; or a loss of each layer:"
        " pred (cross-entropy of a local classifier), sim (similarity matching) or predsim (both). A loss implies"
        " --feedback none --optimizer adam --local-learning-rate 0.0005 --learning-rate 0.0005 --events always"
        " --rate-drops 0.5,0.75,0.89,0.94; with mlp also --activation leaky-relu --batch-norm --dropout 0.1",
        panel=LOCAL,
    )
    similarity_weight: float = field(
        0.99,
        "weight of the similarity loss in predsim; 1 - weight is that of the prediction loss",
        ge=0,
        le=1,
        panel=LOCAL,
    )
    optimizer: Optimizer = field(
        "sgd",
        "optimizer of the hidden layers: sgd (the published rule), momentum (SGD with --momentum), adam, adamw, or"
        " selective (selective plasticity: Adam with a gate for each synapse); the readout learns by Adam",
        panel=LOCAL,
    )
    local_learning_rate: float = field(
        0.05,
        "learning rate of the hidden layers (default with --optimizer momentum: 0.005; with adam, adamw and selective:"
        " 0.001; with another --model: 0.001, momentum 0.0001, adam, adamw and selective 0.0003)",
        ge=0,
        panel=LOCAL,
        search=(1e-4, 1.0, "log"),
    )
    momentum: float = field(
        0.0,
        f"momentum of --optimizer sgd or momentum (default with momentum: {MOMENTUM})",
        ge=0,
        lt=1,
        panel=LOCAL,
    )
    weight_decay: float = field(
        0.0, f"weight decay of the hidden layers, at events (default with adamw: {DECAY})", ge=0, panel=LOCAL
    )
    inverse_temperature: float = field(
        1.0, "inverse temperature of softhebb's softmax; larger: stronger competition", gt=0, panel=LOCAL
    )
    events: Literal["triggered", "sampled", "fixed", "always", "never"] = field(
        "triggered",
        "triggered: when the signal is high; sampled: single images at random, with a probability that rises with the"
        " signal (implies --event-signal error --event-strength normalized); fixed: at random with probability"
        " --event-rate; always: every batch; never: no event, the control",
        panel=EVENTS,
    )
    event_scope: Literal["stimulus", "batch"] = field(
        "stimulus",
        "what can trigger an event; stimulus: single images, collected until there are --event-batch-size; batch: the"
        " mean of a batch",
        panel=EVENTS,
    )
    event_signal: Literal["loss", "error", "margin", "novelty", "uncertainty"] = field(
        "loss",
        "signal that triggers events; loss: cross-entropy; error: 1 - probability of the label; margin: largest other"
        " logit - the label's logit; novelty: distance of the last hidden activity from its running mean; uncertainty:"
        " 1 - largest probability; the last two need no label",
        panel=EVENTS,
    )
    event_strength: Literal["binary", "surprise", "importance", "normalized"] = field(
        "binary",
        "strength of an event; binary: 1; surprise: how many standard deviations the signal is above its running mean,"
        " at most 3; with --events sampled importance: --event-rate / probability of the event, so that the expected"
        " change does not depend on the signal; normalized: the same, with --events triggered 1, divided by the mean of"
        " the recent signals",
        panel=EVENTS,
    )
    event_uniform: float = field(
        0.1,
        "share of the probability of an event that is the same for all images, with --events sampled; 1: random events",
        ge=0,
        le=1,
        panel=EVENTS,
    )
    event_rate: float = field(
        0.1,
        "fraction of batches with an event, with --events triggered, sampled or fixed; with --event-scope stimulus and"
        " with sampled, fraction of images",
        ge=0,
        le=1,
        panel=EVENTS,
    )
    event_budget: int = field(
        1000,
        "maximum number of events in the run, 0 for no limit; an event of less than a batch counts as a fraction",
        ge=0,
        panel=EVENTS,
    )
    threshold_factor: float = field(
        0.0,
        "fixed threshold, as a multiple of the signal's running mean (published: 2; implies --event-warmup 0); 0: adapt"
        " the threshold to --event-rate",
        ge=0,
        panel=EVENTS,
    )
    event_batch_size: int = field(0, "number of surprising images per event; 0: --batch-size", ge=0, panel=EVENTS)
    event_warmup: int = field(40, "treat the first N batches as events", ge=0, panel=EVENTS)

    unsupervised_epochs: int = field(
        1, "passes over the images from which the hidden layers learn without labels", ge=0, panel=WITHOUT_LABELS
    )
    unsupervised_images: int = field(
        0,
        "number of images in such a pass, drawn at random; 0, or more than there are: all",
        ge=0,
        panel=WITHOUT_LABELS,
    )
    unsupervised_batch_size: int = field(10, "images per step of the hidden layers", ge=1, panel=WITHOUT_LABELS)
    labeled_images: int = field(
        0,
        "number of images, drawn at random, from which the readout learns; 0, or more than there are: all; the hidden"
        " layers also learn from the others",
        ge=0,
        panel=WITHOUT_LABELS,
    )
    layer_rates: EachLayerRate = field(
        (0.08, 0.005, 0.01),
        "learning rate of each hidden layer; with fewer layers the first numbers apply, and further layers have the"
        " last one",
        panel=WITHOUT_LABELS,
    )
    layer_inverse_temperatures: EachLayer = field(
        (1.0, 0.65, 0.25), "inverse temperature of each hidden layer's softmax, as --layer-rates", panel=WITHOUT_LABELS
    )
    layer_powers: EachLayerPower = field(
        (0.7, 1.4, 1.0),
        "power of the triangle function after each convolution, up to 10, as --layer-rates",
        panel=WITHOUT_LABELS,
    )
    initial_filters: Literal["normal", "patches"] = field(
        "normal",
        "initial filters; normal: random numbers; patches: random patches of each layer's input, without their mean",
        panel=WITHOUT_LABELS,
    )
    initial_radius: float = field(
        25.0,
        "norm of the initial weights of a unit or filter (default with --update backprop: 1); learning takes it to 1",
        gt=0,
        panel=WITHOUT_LABELS,
        search=(0.01, 100.0, "log"),
    )
    readout_dropout: float = field(0.5, "probability of dropout before the readout", ge=0, lt=1, panel=WITHOUT_LABELS)

    controls: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "no events": {"events": "never"},
        "backpropagation": {"update": "backprop"},
    }
    rates: ClassVar[Mapping[str, float]] = {}
    local_rates: ClassVar[Mapping[str, float]] = {"momentum": 0.005, "adam": 0.001, "adamw": 0.001, "selective": 0.001}
    """Default learning rate of the hidden layers for each optimizer but SGD, for the rule's own networks."""
    other_rates: ClassVar[Mapping[str, float]] = {
        "sgd": 0.001,
        "momentum": 0.0001,
        **dict.fromkeys(("adam", "adamw", "selective"), 0.0003),
    }
    """The same for other networks. Most have ReLU units, of which higher rates silence many."""
    renamed: ClassVar[Mapping[str, str]] = {
        "readout_lr": "learning_rate",
        "local_lr": "local_learning_rate",
        "gather": "event_batch_size",
    }
    added: ClassVar[Mapping[str, Any]] = {
        "optimizer": "sgd",
        "momentum": 0.0,
        "weight_decay": 0.0,
        "initial_weights": "uniform",
        "event_uniform": 0.1,
        "batch_norm": False,
        "dropout": 0.0,
        "rate_drops": [],
        "shift": 0,
        "flip": False,
        "similarity_weight": 0.99,
        "unsupervised_epochs": 1,
        "unsupervised_images": 0,
        "unsupervised_batch_size": 10,
        "labeled_images": 0,
        "layer_rates": [0.08, 0.005, 0.01],
        "layer_inverse_temperatures": [1.0, 0.65, 0.25],
        "layer_powers": [0.7, 1.4, 1.0],
        "initial_filters": "normal",
        "initial_radius": 25.0,
        "readout_dropout": 0.5,
    }
    published_names: ClassVar[Mapping[str, str]] = {"backprop_lr": "learning_rate", "hidden_dims": "hidden"}
    only_with: ClassVar[OnlyWith] = (
        (
            "update",
            ("local",),
            (
                *("feedback", "local_rule", "local_learning_rate", "inverse_temperature", "control"),
                *("optimizer", "momentum", "weight_decay", "similarity_weight"),
            ),
        ),
        ("model", OWN_MODELS, ("activation", "initial_weights", "readout", "event_batch_size")),
        ("model", ("mlp",), ("batch_norm", "dropout")),
        ("model", SOFTHEBB_MODELS, OF_SOFTHEBB),
        ("model", (SOFTHEBB,), ("layer_powers", "initial_filters")),
        ("update", ("local",), OF_HIDDEN_SOFTHEBB),
        ("events", ("always",), ("layer_rates", "layer_inverse_temperatures")),
        ("optimizer", ("sgd",), ("readout", "event_batch_size")),
        ("feedback", ("none",), ("local_rule", "inverse_temperature", "similarity_weight")),
        ("local_rule", ("predsim",), ("similarity_weight",)),
        ("anneal", (False,), ("rate_drops",)),
        ("local_rule", ("softhebb",), ("inverse_temperature",)),
        ("local_rule", ("oja", "hebb", "anti-oja", "bcm"), ("initial_weights",)),
        (
            "events",
            ("triggered",),
            ("event_scope", "threshold_factor", "event_batch_size"),
        ),
        ("events", ("triggered", "sampled"), ("event_signal", "event_strength")),
        ("events", ("sampled",), ("event_uniform",)),
        ("events", ("triggered", "fixed"), ("event_warmup",)),
        ("events", ("triggered", "sampled", "fixed"), ("event_rate",)),
        (
            "events",
            ("triggered", "sampled", "fixed", "always"),
            ("event_budget", "local_learning_rate", "feedback", "local_rule", "similarity_weight", "control"),
        ),
        ("event_scope", ("stimulus",), ("event_batch_size",)),
        # With a fixed threshold the rate is an outcome.
        ("threshold_factor", (0,), ("event_rate",)),
        ("readout", ("supervised",), ("learning_rate",)),
    )
    _implied: ClassVar[dict[tuple[str, Any], dict[str, Any]]] = {
        ("feedback", "none"): {"local_learning_rate": 0.01},
        ("events", "always"): {"event_budget": 0},
        ("events", "sampled"): {"event_signal": "error", "event_strength": "normalized"},
        ("update", "backprop"): {"events": "always", "event_budget": 0},
        ("model", SOFTHEBB): {
            "hidden": (96, 384, 1536),
            "activation": "triangle",
            "local_rule": "softhebb",
            "feedback": "none",
            "events": "always",
            "event_budget": 0,
            "batch_size": 64,
            "epochs": 50,
        },
        ("model", SOFTHEBB_MLP): {
            "hidden": (2000,),
            "local_rule": "softhebb",
            "feedback": "none",
            "events": "always",
            "event_budget": 0,
            "batch_size": 64,
            "epochs": 10,
            "unsupervised_batch_size": 32,
            "layer_rates": (0.045,),
            "layer_inverse_temperatures": (12.0,),
            "initial_radius": 35.0,
            "readout_dropout": 0.0,
        },
        ("model", "cnn"): {
            "hidden": (32, 128),
            "activation": "triangle",
            "local_rule": "softhebb",
            "feedback": "none",
            "events": "always",
            "event_budget": 1000,
            "local_learning_rate": 0.08,
            "learning_rate": 0.0003,
            "batch_size": 64,
            "epochs": 5,
        },
    }

    @classmethod
    def implied(cls, typed: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values that `typed` implies for other options."""
        found = super().implied(typed)
        for (name, value), meaning in cls._implied.items():
            if typed.get(name) == value:
                found |= meaning
        if typed.get("local_rule") in LOSSES:
            found |= cls._implied_by_loss(typed)
        if typed.get("rate_drops"):
            found["anneal"] = False
        if typed.get("threshold_factor") or typed.get("event_rate") == 0:
            # The published threshold, and a rate of 0, apply from the first batch.
            found["event_warmup"] = 0
        rates = cls.local_rates if typed.get("model", "mlp") in OWN_MODELS else cls.other_rates
        loss = typed.get("local_rule") in LOSSES
        optimizer = typed.get("optimizer", "adam" if loss else "sgd")
        if optimizer in rates and not (optimizer == "adam" and loss):
            found["local_learning_rate"] = rates[optimizer]
        if typed.get("model") in SOFTHEBB_MODELS and typed.get("update") == "backprop":
            found["initial_radius"] = 1.0
        return found

    @classmethod
    def unused_options(cls, chosen: Mapping[str, Any]) -> dict[str, str]:
        """Return the options that have no effect given `chosen`, with the reason."""
        found = super().unused_options(chosen)
        if (model := chosen.get("model")) in SOFTHEBB_MODELS:
            # Of the other networks that `hidden` is not for, these have it.
            found.pop("hidden", None)
            found = {**dict.fromkeys(NOT_OF_SOFTHEBB, f"with --model {model}"), **found}
        return found

    @classmethod
    def _implied_by_loss(cls, typed: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a local loss implies: the settings of the published program, as far as the network has them."""
        found: dict[str, Any] = {
            "feedback": "none",
            "optimizer": "adam",
            "local_learning_rate": 0.0005,
            "learning_rate": 0.0005,
        }
        if typed.get("events", "always") == "always":
            found |= {"events": "always", "event_budget": 0}
        if not typed.get("anneal"):
            found |= {"anneal": False, "rate_drops": (0.5, 0.75, 0.89, 0.94)}
        model = typed.get("model", "mlp")
        if model in OWN_MODELS:
            found["activation"] = "leaky-relu"
        if model == "mlp":
            found |= {"batch_norm": True, "dropout": 0.1}
        return found

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.model in SOFTHEBB_MODELS and self.update == "local":
            if self.local_rule != "softhebb" or self.feedback != "none":
                raise ValueError(
                    f"--model {self.model} learns by --local-rule softhebb --feedback none: leave both out"
                )
            if self.events not in ("always", "never"):
                raise ValueError(f"--model {self.model} learns before there is a signal: use --events always or never")
        compete = self.model in SOFTHEBB_MODELS or (self.model in OWN_MODELS and self.activation == "triangle")
        if compete and min(self.hidden, default=2) < 2:
            raise ValueError(
                "--hidden needs at least 2 units in each layer: the activity of one that competes is constant"
            )
        if self.threshold_factor and self.event_signal == "margin":
            raise ValueError("--threshold-factor needs a positive signal, and --event-signal margin can be negative")
        strengths = {
            "sampled": ("binary", "importance", "normalized"),
            "triggered": ("binary", "surprise", "normalized"),
        }
        known = strengths.get(self.events, (self.event_strength,))
        if self.event_strength not in known:
            named = f"{', '.join(known[:-1])} or {known[-1]}"
            raise ValueError(f"--event-strength {self.event_strength} is not for --events {self.events}: use {named}")
        if self.event_signal == "margin" and (self.events == "sampled" or self.event_strength == "normalized"):
            own = "--events sampled" if self.events == "sampled" else "--event-strength normalized"
            raise ValueError(f"{own} needs a signal of 0 or more, and --event-signal margin can be negative")
        if self.update == "backprop" and self.events != "always":
            raise ValueError("--update backprop learns from every batch: use --events always")
        if self.update == "backprop" and self.readout == "local":
            raise ValueError("--update backprop trains the readout too: use --readout supervised")
        if self.model in OWN_MODELS and self.optimizer == "sgd" and not self.is_plain:
            own = "--readout local" if self.readout == "local" else "--event-batch-size"
            if self.readout == "local" or self.event_batch_size:
                others = " and ".join(self._not_plain())
                raise ValueError(f"{own} does not go together with {others}")
        if (self.batch_norm or self.dropout) and self.initial_weights != "uniform":
            raise ValueError("--initial-weights xavier does not go together with --batch-norm and --dropout")
        return self

    def _not_plain(self) -> list[str]:
        """Return the options, as they are typed, that the published rule on its own networks does not have."""
        if self.momentum or self.weight_decay:
            return ["--momentum", "--weight-decay"]
        own = {
            "--batch-norm": self.batch_norm,
            "--dropout": self.dropout,
            "--rate-drops": self.rate_drops,
            "--shift": self.shift,
            "--flip": self.flip,
            f"--local-rule {self.local_rule}": self.local_rule in LOSSES,
        }
        return [name for name, used in own.items() if used]

    @property
    def is_plain(self) -> bool:
        """Whether this is the published rule on its own networks, whose layers learn by themselves."""
        return self.model in OWN_MODELS and self.optimizer == "sgd" and not self._not_plain()


class Evaluate(ClassifierEvaluateConfig):
    """Evaluate a trained network and its zero-event control."""


class Analyze(ClassifierAnalyzeConfig):
    """Analyze a trained network. Without an option, run the analyses that need no training.

    --probe and --cka compare the network with the same network trained by backprop, and train it for this purpose.
    """

    cka: bool = field(
        False, "similarity (linear CKA) to the same network trained by backprop, or to the run given by --other"
    )
    sensitivity: bool = field(
        False, "accuracy without learning in one hidden layer at a time; trains one network for each"
    )
    event_rates: bool = field(
        False, "accuracy as a function of the event rate, triggered and random; trains two networks for each of --rates"
    )
    only_with: ClassVar[OnlyWith] = (("event_rates", (True,), ("rates",)),)
    rates: tuple[float, ...] = field((0.01, 0.03, 0.1, 0.3, 1.0), "event rates for --event-rates, in addition to 0")
    features: bool = field(False, "receptive fields of the first layer, before and after training")
    events: bool = field(False, "raster plot of the events over batches and epochs")
    event_images: bool = field(
        False,
        "which images have events: the share of doubtful ones, of those that had one in the epoch before, and of the"
        " most frequent class; trains the network again, and two by backpropagation, on half of the images each",
    )

    @model_validator(mode="after")
    def _rates_are_rates(self) -> Self:
        if not self.rates or not all(0 < rate <= 1 for rate in self.rates):
            raise ValueError("--rates: give rates above 0 and up to 1")
        return self


class Render(FilmConfig):
    """Render receptive fields, events and accuracy over training as a film."""
