"""Images in the form that a network of another program was trained with: its size and its normalization."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from plastic_cli.classifier.module import ImageShape, ModuleLearner
from plastic_cli.data.datasets import Dataset
from plastic_cli.errors import UserError


@dataclass(frozen=True)
class Preparation:
    """What happens to the images of a data set before a network receives them.

    mean, std: of the pixels by channel; empty for the normalization of the data set. With more channels than the data
    set has, its gray channel is repeated. side: height and width to which images are resized; None for their own.
    """

    data: Dataset
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    side: int | None = None

    def __post_init__(self) -> None:
        channels = self.data.image_shape[0]
        if self.mean and len(self.mean) != channels and channels > 1:
            raise UserError(
                f"--mean and --std have {len(self.mean)} numbers, but the images of {self.data.name} have {channels}"
                " channels. Give one number for each channel."
            )

    @property
    def image_shape(self) -> ImageShape:
        """The images (channels, height, width) that the network receives."""
        channels, height, width = self.data.image_shape
        return max(channels, len(self.mean)), self.side or height, self.side or width

    def described(self) -> Dataset:
        """Return the data set as its prepared images describe it, for the building of a network."""
        return replace(self.data, image_shape=self.image_shape)

    def __str__(self) -> str:
        """Return how pixels become the input of the network, in words."""
        center, spread = (
            ", ".join(f"{number:.4g}" for number in part)
            for part in (self.mean or self.data.mean, self.std or self.data.std)
        )
        size = "" if self.side is None else f", resized to {self.side} x {self.side}"
        return f"the pixels from 0 to 1, minus {center}, divided by {spread}{size}"

    def prepare(self, x: Tensor) -> Tensor:
        """Return images (batch, features), normalized as in the data set, in the form of the network."""
        if self.mean:
            center, spread = (
                torch.tensor(part, dtype=x.dtype, device=x.device)[:, None] for part in (self.mean, self.std)
            )
            pixels = self.data.to_pixels(x).unflatten(1, (self.data.image_shape[0], -1))
            x = ((pixels - center) / spread).flatten(1)
        if self.side is not None:
            images = x.unflatten(1, (-1, *self.data.image_shape[1:]))
            size = (self.side, self.side)
            x = functional.interpolate(images, size, mode="bilinear", antialias=True).flatten(1)
        return x


class PreparedLearner(ModuleLearner):
    """A network that receives prepared images; it is analyzed and does not learn."""

    def __init__(self, network: nn.Module, image_shape: ImageShape | None, preparation: Preparation) -> None:
        super().__init__(network, image_shape=image_shape)
        self.preparation = preparation

    def as_input(self, x: Tensor) -> Tensor:
        """Return images (batch, features) of the data set in the form and type that the module takes."""
        return super().as_input(self.preparation.prepare(x))
