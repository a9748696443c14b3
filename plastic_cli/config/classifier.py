"""The options that all classifier rules share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, model_validator

from plastic_cli.config.describe import is_switch
from plastic_cli.config.model import (
    AnalyzeConfig,
    Device,
    EvaluateConfig,
    OnlyWith,
    TrainConfig,
    field,
)
from plastic_cli.config.unused import matches
from plastic_cli.errors import OptionError, did_you_mean, match_choice

MOST_UNITS = 2**20


def _check_layer_sizes(sizes: tuple[int, ...]) -> tuple[int, ...]:
    if not sizes or not all(1 <= units <= MOST_UNITS for units in sizes):
        raise ValueError(f"needs at least one layer, with 1 to {MOST_UNITS} units in each")
    return sizes


LayerSizes = Annotated[tuple[int, ...], AfterValidator(_check_layer_sizes)]
"""Type of `--hidden`: the number of units in each hidden layer. `LayerSizes | None` makes the option optional."""


def _expand_ranges(classes: Any) -> Any:
    """Return a list of class numbers in which `3-6` stands for 3, 4, 5, 6."""
    if not isinstance(classes, list | tuple):
        return classes
    expanded: list[Any] = []
    for entry in classes:
        first, hyphen, last = str(entry).partition("-")
        if not hyphen or not (first.strip().isdigit() and last.strip().isdigit()):
            expanded.append(entry)
        elif int(last) < int(first) or int(last) > MOST_UNITS:
            raise ValueError("needs ranges from a lower to a higher class, such as 0-4")
        else:
            expanded += range(int(first), int(last) + 1)
    return expanded


def _check_classes(classes: tuple[int, ...]) -> tuple[int, ...]:
    if classes and (len(set(classes)) < 2 or min(classes) < 0):
        raise ValueError("needs at least two classes, each a number from 0, such as 0-4 or 0,2,7")
    return tuple(sorted(set(classes)))


Classes = Annotated[tuple[int, ...], BeforeValidator(_expand_ranges), AfterValidator(_check_classes)]
"""Type of `--classes`: class numbers, sorted; a text may have ranges, such as `0-4,7`."""


def _check_shots(shots: tuple[int, ...]) -> tuple[int, ...]:
    if not shots or min(shots) < 1:
        raise ValueError("needs one or more numbers of examples, such as 1,5")
    return tuple(sorted(set(shots)))


Shots = Annotated[tuple[int, ...], AfterValidator(_check_shots)]
"""Type of `--shots`: numbers of examples of each class, sorted."""


MODELS = ("mlp", "cnn", "lenet", "resnet18")
"""The networks with a name of their own."""


def check_model(name: str, models: Sequence[str] = MODELS) -> str:
    """Return a value of `--model`; raises ValueError if it is none. models: the networks with a name of their own."""
    known = match_choice(name, models)
    module, colon, factory = name.strip().partition(":")
    if known in models:
        return known
    if not colon or not module or not factory:
        known_or_own = f"must be {', '.join(models)}, or MODULE:FACTORY such as torchvision.models:resnet18"
        if colon and not module.strip():
            raise ValueError(f"{known_or_own}. The module is missing")
        if colon or _is_module(name.strip()):
            raise ValueError(f"{known_or_own}. The function or class is missing, as in {module.strip()}:Net")
        guess = did_you_mean(name.strip(), models)
        raise ValueError(f"{known_or_own}.{guess}" if guess else known_or_own)
    return name.strip()


def _is_module(name: str) -> bool:
    """Return whether a module of this name can be imported, from the present folder too; nothing is imported."""
    if not name.isidentifier():
        return False
    if Path(f"{name}.py").is_file() or Path(name, "__init__.py").is_file():
        return True
    with suppress(ValueError):
        return find_spec(name) is not None
    return False


Model = Annotated[str, AfterValidator(check_model)]
"""Type of `--model`: one of MODELS, or MODULE:FACTORY for a function or class that makes a torch module."""

MOMENTUM = 0.9
"""Default momentum of `--optimizer momentum`."""
DECAY = 0.01
"""Default weight decay of `--optimizer adamw`."""
DECAY_HELP = (
    "weight decay; adamw and selective apply it next to their step, the others add it to the gradient (default with"
    f" adamw: {DECAY})"
)
CHANNELS = (32, 64)
"""Default channels of `--model cnn`."""

Optimizer = Literal["sgd", "momentum", "adam", "adamw", "selective"]
"""Type of `--optimizer`."""

MODEL_HELP = (
    "network: mlp (fully connected), cnn (small convolutional network), lenet (LeNet-5; images are resized to 32 x 32),"
    " resnet18 (ResNet-18 for small images: first convolution 3 x 3, no max pooling), or MODULE:FACTORY, a function or"
    " class that makes a torch module, such as torchvision.models:resnet18"
)
OPTIMIZER_HELP = (
    "optimizer that applies the update: sgd, momentum (SGD with --momentum), adam, adamw, or selective (selective"
    " plasticity: Adam with a gate for each synapse)"
)


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


class ModuleTrainConfig(ClassifierTrainConfig):
    """Options for training any network with any optimizer; a rule overrides their defaults."""

    classes: Classes = field(
        (),
        "train on images of these classes only, such as 0-4 or 0,2,7; the others are held out, for `analyze --few-shot`"
        " and --incremental (default: all classes)",
        panel="Data",
    )
    model: Model = field("mlp", MODEL_HELP, panel="Network")
    hidden: LayerSizes = field(
        (256,), "units of each hidden layer of mlp; with --model cnn, channels of each convolution", panel="Network"
    )
    optimizer: Optimizer = field("sgd", OPTIMIZER_HELP, panel="Learning")
    learning_rate: float = field(0.1, "learning rate", gt=0, search=(1e-4, 1.0, "log"), panel="Learning")
    momentum: float = field(
        0.0,
        f"momentum of --optimizer sgd or momentum (default with momentum: {MOMENTUM})",
        ge=0,
        lt=1,
        panel="Learning",
    )
    weight_decay: float = field(0.0, DECAY_HELP, ge=0, panel="Learning")
    batch_size: int = field(64, "images per step", ge=1, panel="Learning")
    epochs: int = field(10, "passes over the training images", ge=1, panel="Learning")

    added: ClassVar[Mapping[str, Any]] = {"classes": []}
    rates: ClassVar[Mapping[str, float]] = {"momentum": 0.01, "adam": 0.001, "adamw": 0.001, "selective": 0.001}
    """Default learning rate of each optimizer for which it differs from that of the field `learning_rate`."""
    only_with: ClassVar[OnlyWith] = (
        ("optimizer", ("sgd", "momentum"), ("momentum",)),
        ("model", ("mlp", "cnn"), ("hidden",)),
    )

    @classmethod
    def implied(cls, typed: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values that an optimizer and a model imply: learning rate, weight decay, channels."""
        optimizer = typed.get("optimizer", cls.model_fields["optimizer"].default)
        found: dict[str, Any] = {}
        if optimizer in cls.rates:
            found["learning_rate"] = cls.rates[optimizer]
        if optimizer == "adamw":
            found["weight_decay"] = DECAY
        if optimizer == "momentum":
            found["momentum"] = MOMENTUM
        if typed.get("model") == "cnn":
            found["hidden"] = CHANNELS
        return found


def check_drops(shares: tuple[float, ...]) -> tuple[float, ...]:
    """Return shares of the epochs; raises ValueError if they do not lie between 0 and 1."""
    if not all(0 < share < 1 for share in shares):
        raise ValueError("needs shares of the epochs above 0 and below 1, such as 0.5,0.75")
    return shares


class SteppedRateConfig(ModuleTrainConfig):
    """Options of rules whose learning rate stays constant, or is divided by 10 at chosen epochs."""

    rate_drops: Annotated[tuple[float, ...], AfterValidator(check_drops)] = field(
        (), "divide the learning rate by 10 after these shares of the epochs, such as 0.5,0.75", panel="Learning"
    )

    def refuse_unused(self) -> None:
        """Raise OptionError if an option has no effect; such is a share of the epochs after the last one begins."""
        super().refuse_unused()
        last = (self.epochs - 1) / self.epochs
        late = [share for share in self.rate_drops if share > last]
        if late:
            raise OptionError(
                f"--rate-drops {late[0]:g} does nothing with --epochs {self.epochs}: no epoch begins after this share."
                f" Choose shares up to {math.floor(1000 * last) / 1000:g}, or leave it out."
                if last
                else "--rate-drops does nothing with --epochs 1: the rate changes between epochs. Leave it out.",
                "rate_drops",
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


class MeasuresConfig(AnalyzeConfig):
    """Which measures of a network that classifies images are taken."""

    panel: ClassVar[str] = "Analyses"

    confusion: bool = field(False, "accuracy by class and confusion matrix")
    sparsity: bool = field(False, "sparsity of the activity of each layer")
    probe: bool = field(False, "linear probe of each layer, and of the untrained network")
    robustness: bool = field(False, "accuracy under noise and rotation")
    cka: bool = field(False, "similarity (linear CKA) to the untrained network, or to that of --other")


class ClassifierAnalyzeConfig(MeasuresConfig):
    """Analyze a trained classifier. Without an option: accuracy by class, confusion matrix and sparsity."""

    other: str | None = field(None, "run to compare with", complete="run")
    angles: bool = field(
        False, "angle between the update of a credit rule and the gradient, and signal-to-noise ratio, by layer"
    )
    images: int | None = field(
        None,
        "number of training images for --angles (default: 20, or 4 batches of the run if these are more images)",
        ge=2,
        panel="Settings",
    )
    samples: int = field(16, "updates per batch for --angles, each from new noise", ge=2, panel="Settings")
    few_shot: bool = field(
        False,
        "accuracy on held-out classes (--classes of train) after a few examples of each: Hebbian memories, nearest"
        " class mean and fine-tuning; intervals are over episodes of one network",
    )
    incremental: bool = field(
        False,
        "accuracy on held-out classes that come one after another: Hebbian memories, and a readout trained by SGD",
    )
    ways: int = field(5, "classes of an episode of --few-shot", ge=2, panel="Settings")
    shots: Shots = field((1, 5), "examples of each class in an episode of --few-shot", panel="Settings")
    queries: int = field(15, "test images of each class in an episode of --few-shot", ge=1, panel="Settings")
    episodes: int = field(100, "episodes of --few-shot for each number of examples", ge=1, panel="Settings")
    images_per_class: int = field(
        100, "training images of each class for --incremental, each of which is learned once", ge=1, panel="Settings"
    )

    only_with: ClassVar[OnlyWith] = (
        ("cka", (True,), ("other",)),
        ("few_shot", (True,), ("ways", "shots", "queries", "episodes")),
        ("incremental", (True,), ("images_per_class",)),
    )
    angles_by_default: ClassVar[bool] = False
    """Whether the angles are also measured if no analysis is chosen."""

    @classmethod
    def unused_options(cls, chosen: Mapping[str, Any]) -> dict[str, str]:
        """Return the options that have no effect: also those of --angles without it."""
        found = super().unused_options(chosen)
        switches = [name for name, info in cls.model_fields.items() if is_switch(info)]
        is_any_chosen = any(matches(chosen.get(name, False), True) for name in switches)
        measured = matches(chosen.get("angles", True), True) or (cls.angles_by_default and not is_any_chosen)
        return found if measured else {**dict.fromkeys(("images", "samples"), "without --angles"), **found}


class OwnNetworkConfig(AnalyzeConfig):
    """A trained network that belongs to no run, and the images that it was trained with."""

    model: Model | None = field(
        None,
        "network without a rule: MODULE:FACTORY, a function or class that makes a torch module, such as"
        " torchvision.models:resnet18 or my_file:Net; or mlp, cnn, lenet, resnet18",
        panel="A network of your own",
    )
    weights: Path | None = field(
        None,
        "its trained weights: torch.save(model.state_dict(), FILE), or a .safetensors file",
        panel="A network of your own",
    )
    hidden: LayerSizes = field(
        (256,), "units of each hidden layer of mlp, or channels of cnn", panel="A network of your own"
    )
    mean: tuple[float, ...] = field(
        (),
        "mean of the pixels (0 to 1) by channel that the network was trained with (default: that of the data set)",
        panel="A network of your own",
    )
    std: tuple[float, ...] = field(
        (), "their standard deviation by channel (default: that of the data set)", panel="A network of your own"
    )
    image_size: int | None = field(
        None,
        "height and width to which images are resized, bilinear (default: as the data set has them)",
        ge=1,
        le=4096,
        panel="A network of your own",
    )
    dataset: str | None = field(None, "data set on which it is analyzed", panel="Data", complete="dataset")
    seed: int = field(0, "seed of the untrained network, of probes and of corruptions", ge=0, le=2**63 - 1, panel="Run")

    only_with: ClassVar[OnlyWith] = (("model", ("mlp", "cnn"), ("hidden",)),)

    @model_validator(mode="after")
    def _check_normalization(self) -> Self:
        if bool(self.mean) != bool(self.std) or len(self.mean) != len(self.std):
            raise ValueError("--mean and --std belong together: give both, with one number for each channel")
        if not all(deviation > 0 for deviation in self.std):
            raise ValueError("--std needs numbers above 0")
        return self


class NetworkAnalyzeConfig(MeasuresConfig, OwnNetworkConfig):
    """Analyze a trained network of your own. Without an option: accuracy by class, confusion matrix and sparsity."""

    other: Path | None = field(None, "file with other weights of the same network, for --cka")

    only_with: ClassVar[OnlyWith] = (("cka", (True,), ("other",)),)


class FitConfig(ClassifierTrainConfig):
    """The options of `plastic.fit` that a run stores, in addition to the settings of the user."""

    device: Device = field("cpu", "where to compute", panel="Run")
    epochs: int = field(10, "passes over the training images", ge=1)
    batch_size: int = field(64, "images per step", ge=1)
    images: bool = field(False, "a module takes images (batch, channels, height, width), not rows of pixels")
