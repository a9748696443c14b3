"""The options of GRLU's commands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import model_validator

from plastic_cli import ClassifierAnalyzeConfig, ClassifierTrainConfig, OnlyWith, RenderConfig, field


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
