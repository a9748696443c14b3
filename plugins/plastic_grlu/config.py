"""The options of GRLU's commands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import model_validator

from plastic_cli import ClassifierAnalyzeConfig, FilmConfig, OnlyWith, field
from plastic_cli.config.classifier import MODEL_HELP, OPTIMIZER_HELP, LayerSizes, Model, ModuleTrainConfig, Optimizer
from plastic_cli.config.model import Device
from plastic_cli.config.parsing import as_value

MODULE_OPTIMIZER = "adam"
"""Default optimizer of another network than that of the published rule; SGD can diverge there."""
BATCH_SIZE = 64
"""Default batch size of another network or optimizer than those of the published rule."""
BACKBONE_HIDDEN = 256
"""Units of each hidden layer of the autoencoder."""
BACKBONE_BATCH = 128
"""Images for each step of the autoencoder."""
LEARNED_RATE = 0.4
"""Default learning rate of learned feedback on the rule's own network, with noise that does not decrease."""
NOISE_FORM = ("noise_units", "noise_sources", "noise_layers", "readout_noise", "decorrelation")
"""Options of the form of the noise and of the inputs, which the published rule on its own network has."""
NEEDS_RELU = ("noise_units", "decorrelation")
"""Those of them that need ReLU."""
OWN_NETWORK = tuple(name for name in NOISE_FORM if name != "noise_layers")
"""Those of them that only the rule's own network has; other networks can have noise in the readout alone."""
MODULE_RATES = {"sgd": 0.01, "adam": 0.001, "adamw": 0.001}
"""Default learning rates of optimizers on another network, where they differ from those on the rule's own."""


class Train(ModuleTrainConfig):
    """Train a network with GRLU: each layer learns from its own noise and one scalar reward, with no backward pass.

    The published rule is --model mlp --optimizer sgd: the mean update is noise^2 times the gradient, and the updates of
    a batch are summed. With another --model or --optimizer the update is divided by noise^2 and averaged over the
    batch, so that a learning rate means what it means for the gradient; --batch-size is then 64 by default. Another
    --model trains with --optimizer adam by default, because SGD can diverge there.
    """

    device: Device = field(
        "cpu",
        "where to compute; cpu runs compiled code and is fastest at batch size 1, other devices run PyTorch",
        panel="Run",
    )
    perturbations: int = field(16, "noise samples per image, each used with both signs", ge=1)
    reward_groups: int = field(
        1,
        "groups of units, each perturbed alone and with a reward of its own, so that an image takes this many times as"
        " many passes; 1: one reward for all units, as published",
        ge=1,
    )
    model: Model = field(
        "mlp",
        f"{MODEL_HELP}; mlp normalizes the input of each layer, as published; the others train with --optimizer"
        f" {MODULE_OPTIMIZER} unless you choose one",
        panel="Network",
    )
    hidden: LayerSizes = field(
        (256,),
        "units of each hidden layer, for example 256 or 256,256; with --model cnn, channels of each convolution",
        panel="Network",
    )
    skip: bool = field(
        False, "add the input of a hidden layer to its output if both have the same width", panel="Network"
    )
    activation: Literal["relu", "top-k"] = field(
        "relu", "activation of hidden layers; top-k keeps a random fraction --k of the units", panel="Network"
    )
    k: float | None = field(
        None, "fraction of hidden units that top-k keeps; implies --activation top-k", gt=0, le=1, panel="Network"
    )
    credit: Literal["output", "preactivation", "learned"] = field(
        "output",
        "where noise is added; output: after the activation, as published, so that silent units learn too;"
        " preactivation: before the activation (node perturbation), so that the mean update follows the gradient;"
        " learned: in hidden layers alone, where noise teaches feedback weights that carry the error of the readout to"
        " them",
    )
    feedback: Literal["direct", "layer", "transposed", "none"] = field(
        "direct",
        "with --credit learned, what the feedback carries to a hidden layer; direct: the error of the readout; layer:"
        " the signal of the layer above; transposed: the same through the transposed weights, a control without"
        " perturbations, whose update is the gradient; none: nothing, a control in which hidden layers stay random",
    )
    feedback_rate: float = field(
        1.0,
        "with --credit learned, the rate at which the feedback learns: the share of the error of a prediction that a"
        " step removes; 0: random feedback",
        ge=0,
        lt=2,
    )
    noise_units: Literal["all", "active"] = field(
        "all", "hidden units with noise; active: only those that ReLU lets through, without the noise of silent units"
    )
    noise_sources: Literal["units", "readout"] = field(
        "units",
        "where the noise of hidden units comes from; units: each draws its own; readout: fixed random weights carry the"
        " noise of the readout to them, so that there are as many independent sources as classes",
    )
    noise_layers: Literal["all", "one", "readout"] = field(
        "all",
        "layers with noise; one: the layers take turns, one for each perturbation, so that the noise of a layer does"
        " not disturb the others; readout: the readout alone, a control in which hidden layers stay random",
    )
    readout_noise: float = field(
        1.0,
        "noise of the readout as a multiple of --noise; the mean update of the readout stays the same",
        gt=0,
    )
    decorrelation: float = field(
        0.0,
        "rate at which a matrix learns that decorrelates the inputs of each layer, from products of these inputs alone;"
        " 0: none; with many correlated inputs only small rates converge, such as 0.001",
        ge=0,
        lt=1,
    )
    update: Literal["grlu", "backprop"] = field(
        "grlu", "learning rule; backprop is a control: the true gradient with step learning rate * noise^2"
    )
    optimizer: Optimizer = field(
        "sgd", f"{OPTIMIZER_HELP}; default with another --model: {MODULE_OPTIMIZER}", panel="Learning"
    )
    batch_size: int = field(
        1,
        f"images per step; their updates are summed (default with another --model or --optimizer: {BATCH_SIZE}, and"
        " their mean is taken)",
        ge=1,
        panel="Learning",
    )
    noise: float = field(
        0.1,
        "standard deviation of the noise at the start; a cosine schedule brings it to --final-noise. The step grows"
        " with its square, also with --credit learned, but not with another --model or --optimizer",
        gt=0,
        search=(0.01, 1.0, "log"),
    )
    final_noise: float = field(
        0.0,
        "standard deviation of the noise at the end of training (default with --credit learned on the"
        " rule's own network: --noise)",
        ge=0,
    )
    learning_rate: float = field(
        0.1,
        "learning rate at the start; a cosine schedule brings it to --final-learning-rate (default with --credit"
        f" learned: {LEARNED_RATE}; with another --model: {MODULE_RATES['adam']} with adam and adamw,"
        f" {MODULE_RATES['sgd']} with sgd; otherwise with another --optimizer: 0.003)",
        ge=0,
        search=(0.001, 1.0, "log"),
        panel="Learning",
    )
    final_learning_rate: float = field(0.0, "learning rate at the end of training", ge=0, panel="Learning")
    backbone: Literal["none", "autoencoder"] = field(
        "none",
        "autoencoder: train an autoencoder by backpropagation, freeze it, and train GRLU on its code",
        panel="Network",
    )
    latent: int = field(128, "size of the autoencoder's code", ge=1, panel="Network")
    backbone_epochs: int = field(5, "passes of the autoencoder over the training images", ge=1, panel="Network")

    controls: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "the gradient": {"update": "backprop"},
        "the gradient by transposed weights": {"credit": "learned", "feedback": "transposed"},
        "random feedback": {"credit": "learned", "feedback_rate": 0.0},
        "random features": {"credit": "learned", "feedback": "none"},
        "random features, a readout that hears rewards alone": {"noise_layers": "readout"},
    }
    rates: ClassVar[Mapping[str, float]] = dict.fromkeys(("momentum", "adam", "adamw", "selective"), 0.003)
    added: ClassVar[Mapping[str, Any]] = {
        "model": "mlp",
        "optimizer": "sgd",
        "momentum": 0.0,
        "weight_decay": 0.0,
        "reward_groups": 1,
        "feedback": "direct",
        "feedback_rate": 1.0,
        "noise_units": "all",
        "noise_sources": "units",
        "noise_layers": "all",
        "readout_noise": 1.0,
        "decorrelation": 0.0,
    }
    renamed: ClassVar[Mapping[str, str]] = {
        "noise_max": "noise",
        "noise_min": "final_noise",
        "lr_max": "learning_rate",
        "lr_min": "final_learning_rate",
    }
    published_names: ClassVar[Mapping[str, str]] = {"n_perturbations": "perturbations", "layer_sizes": "hidden"}
    only_with: ClassVar[OnlyWith] = (
        ("update", ("grlu",), ("perturbations", "credit", "reward_groups", "feedback", "feedback_rate", *NOISE_FORM)),
        (
            "model",
            ("mlp",),
            ("skip", "activation", "k", "reward_groups", "backbone", "latent", "backbone_epochs", *OWN_NETWORK),
        ),
        (
            "optimizer",
            ("sgd",),
            ("activation", "k", "reward_groups", "backbone", "latent", "backbone_epochs", *OWN_NETWORK),
        ),
        ("activation", ("relu",), ("reward_groups", *NEEDS_RELU)),
        ("credit", ("output", "preactivation"), ("reward_groups", *NOISE_FORM)),
        ("noise_layers", ("all", "one"), ("noise_units", "noise_sources", "decorrelation")),
        ("credit", ("learned",), ("feedback", "feedback_rate")),
        ("feedback", ("direct", "layer"), ("feedback_rate", "perturbations")),
        ("backbone", ("autoencoder",), ("latent", "backbone_epochs")),
    )

    @classmethod
    def unused_options(cls, chosen: Mapping[str, Any]) -> dict[str, str]:
        """Return the options that have no effect given `chosen`, with the reason."""
        found = super().unused_options(chosen)
        names = ("update", "model", "optimizer", "momentum", "weight_decay")
        given = {name: as_value(name, cls.model_fields[name], chosen[name]) for name in names if name in chosen}
        plain = is_plain_choice(
            given.get("model", "mlp"), given.get("optimizer", "sgd"), given.get("momentum"), given.get("weight_decay")
        )
        if not plain and given.get("update") == "backprop":
            reason = "with --update backprop and another --model or --optimizer"
            found |= {"noise": reason, "final_noise": reason}
        return found

    @classmethod
    def implied(cls, typed: Mapping[str, Any]) -> dict[str, Any]:
        """Another network implies Adam, and it or another optimizer implies a batch size.

        Learned feedback on the rule's own network implies a learning rate, and noise that does not decrease.
        `momentum` without an optimizer means SGD with momentum on every network. `k` implies top-k; top-k alone implies
        k = 0.5.
        """
        chosen = {}
        if typed.get("model", "mlp") != "mlp" and "optimizer" not in typed and not typed.get("momentum"):
            chosen["optimizer"] = MODULE_OPTIMIZER
        typed = {**typed, **chosen}
        found = super().implied(typed) | chosen
        if not is_plain_choice(
            typed.get("model", "mlp"), typed.get("optimizer", "sgd"), typed.get("momentum"), typed.get("weight_decay")
        ):
            found["batch_size"] = BATCH_SIZE
            optimizer = typed.get("optimizer", "sgd")
            if typed.get("model", "mlp") != "mlp" and optimizer in MODULE_RATES:
                found["learning_rate"] = MODULE_RATES[optimizer]
        elif typed.get("credit") == "learned":
            found |= {
                "learning_rate": LEARNED_RATE,
                "final_noise": typed.get("noise", cls.model_fields["noise"].default),
            }
        return found | cls._implied_activation(typed)

    @staticmethod
    def _implied_activation(typed: Mapping[str, Any]) -> dict[str, Any]:
        if typed.get("k") is not None and "activation" not in typed:
            return {"activation": "top-k"}
        if "k" not in typed and typed.get("activation") in ("relu", "top-k"):
            return {"k": 0.5 if typed["activation"] == "top-k" else None}
        return {}

    @model_validator(mode="after")
    def _options_agree(self) -> Self:
        if self.k is not None and self.activation != "top-k":
            raise ValueError("--k has no effect with --activation relu: use --activation top-k, or drop --k")
        if self.final_noise > self.noise:
            raise ValueError("--final-noise must not exceed --noise")
        if self.final_learning_rate > self.learning_rate:
            raise ValueError("--final-learning-rate must not exceed --learning-rate")
        if not self.is_plain and (self.activation != "relu" or self.backbone != "none" or self.reward_groups > 1):
            raise ValueError(
                "--k, --activation, --reward-groups and --backbone need --model mlp and --optimizer sgd, without"
                " --momentum and --weight-decay"
            )
        if self.feedback == "transposed" and not self.is_plain:
            raise ValueError(
                "--feedback transposed needs --model mlp and --optimizer sgd, without --momentum and --weight-decay:"
                " use --update backprop"
            )
        if self.feedback == "none" and not self.is_plain:
            raise ValueError(
                "--feedback none needs --model mlp and --optimizer sgd, without --momentum and --weight-decay: use"
                " `plastic train backprop --trained readout`"
            )
        if self.credit == "learned" and self.reward_groups > 1:
            raise ValueError("--credit learned needs one reward: drop --reward-groups")
        formed = [f"--{name.replace('_', '-')}" for name in NOISE_FORM if getattr(self, name) != self.added[name]]
        of_own_network = [name for name in formed if name != "--noise-layers"]
        if self.noise_layers == "one":
            of_own_network.append("--noise-layers one")
        if of_own_network and not self.is_plain:
            raise ValueError(
                f"{of_own_network[0]} needs --model mlp and --optimizer sgd, without --momentum and --weight-decay"
            )
        if formed and (self.reward_groups > 1 or self.credit == "learned"):
            other = (
                "--credit output or preactivation" if self.credit == "learned" else "one reward: drop --reward-groups"
            )
            raise ValueError(f"{formed[0]} needs {other}")
        if self.activation != "relu" and (self.noise_units != "all" or self.decorrelation):
            raise ValueError(f"{'--decorrelation' if self.decorrelation else '--noise-units'} needs --activation relu")
        others = self.noise_units != "all" or self.noise_sources != "units" or self.decorrelation > 0
        if self.noise_layers == "readout" and others:
            raise ValueError(
                "--noise-layers readout leaves hidden layers as they are: drop --noise-units, --noise-sources and"
                " --decorrelation"
            )
        return self

    @property
    def is_plain(self) -> bool:
        """Whether this is the published rule on its own network, for which there are compiled kernels."""
        return is_plain_choice(self.model, self.optimizer, self.momentum, self.weight_decay)


def is_plain_choice(model: object, optimizer: object, momentum: object, weight_decay: object) -> bool:
    """Return whether these options are those of the published rule on its own network."""
    return model == "mlp" and optimizer == "sgd" and not momentum and not weight_decay


class Analyze(ClassifierAnalyzeConfig):
    """Analyze a trained network. By default: accuracy by class, confusion matrix, angles and sparsity."""

    weights: bool = field(False, "weights of the first layer as images")
    angles_by_default: ClassVar[bool] = True


class Render(FilmConfig):
    """Render the weights of hidden units and the accuracy over training, as a film and a picture of its last frame."""

    units: int = field(36, "number of hidden units to show", ge=1, panel="Film")
