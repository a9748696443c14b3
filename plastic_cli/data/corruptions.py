"""Corruptions of images, (n, features), to measure robustness: noise and rotation, with explicit generators."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from plastic_cli.data.datasets import Dataset
from plastic_cli.errors import UserError, did_you_mean

# Rotation in blocks keeps the sampling grid small compared with the data.
_IMAGES_AT_ONCE = 8192


def gaussian_noise(x: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Return x plus Gaussian noise of standard deviation sigma, added AFTER normalization and not clipped.

    x: any shape, normalized. sigma: in units of the normalized data; on MNIST, .3 is .3 * .3081 = .092 of the range
    from black to white. The noise is drawn on the device of the generator: a CPU generator gives the same noise for
    data on any device.
    """
    return x + sigma * _normal_like(x, generator)


def pixel_gaussian_noise(pixels: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Return pixels plus Gaussian noise of standard deviation sigma, clipped to [0, 1].

    pixels: any shape, BEFORE normalization, in [0, 1]. sigma: in the same units.
    """
    return (pixels + sigma * _normal_like(pixels, generator)).clamp(0, 1)


def rotate(
    x: Tensor, image_shape: tuple[int, int, int], degrees: Tensor, background: tuple[float, ...] | float = 0.0
) -> Tensor:
    """Return each image rotated about its center by its own angle, counter-clockwise.

    x: (n, channels * height * width). image_shape: (channels, height, width). degrees: (n,). Sampling is bilinear.
    background: the value outside the image, one or one per channel (`Dataset.black` for normalized data).
    """
    channels, height, width = image_shape
    radians = torch.deg2rad(degrees.to(x.device, torch.float64))
    cosine, sine = radians.cos(), radians.sin()
    zero = torch.zeros_like(cosine)
    # affine_grid scales both axes to -1 to 1: the factors keep angles if height and width differ.
    rows = [cosine, -sine * height / width, zero, sine * width / height, cosine, zero]
    transforms = torch.stack(rows, dim=1).view(-1, 2, 3).to(x.dtype)
    fill = torch.as_tensor(background, dtype=x.dtype, device=x.device).reshape(-1, 1, 1)
    turned = []
    images = x.reshape(-1, channels, height, width)
    for part, transform in zip(
        torch.split(images, _IMAGES_AT_ONCE), torch.split(transforms, _IMAGES_AT_ONCE), strict=True
    ):
        grid = affine_grid(transform, list(part.shape), align_corners=False)
        # grid_sample pads with zeros: the background is subtracted before and added after.
        sampled = grid_sample(part - fill, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        turned.append((sampled + fill).flatten(1))
    return torch.cat(turned) if turned else x


def random_rotation(
    x: Tensor,
    image_shape: tuple[int, int, int],
    max_degrees: float,
    generator: torch.Generator,
    background: tuple[float, ...] | float = 0.0,
) -> Tensor:
    """Return each image rotated by an angle drawn uniformly from -max_degrees to max_degrees. See `rotate`."""
    uniform = torch.rand(len(x), generator=generator, device=generator.device, dtype=torch.float64)
    return rotate(x, image_shape, max_degrees * (2 * uniform - 1), background)


@dataclass(frozen=True)
class Corruption:
    """A kind of corruption and its strength.

    gaussian-noise: standard deviation, added after normalization. pixel-noise: standard deviation, added to pixels in
    [0, 1], which are then clipped. rotation: maximum angle in degrees; the angle of each image is uniform, in either
    direction. fixed-rotation: degrees counter-clockwise, the same for all images.

    Raises UserError for an unknown kind and for an invalid strength.
    """

    kind: str
    strength: float

    def __post_init__(self) -> None:
        if self.kind not in CORRUPTIONS:
            raise UserError(
                f"unknown corruption '{self.kind}'.{did_you_mean(self.kind, CORRUPTIONS)} "
                f"The kinds are {', '.join(CORRUPTIONS)}."
            )
        if not math.isfinite(self.strength) or (self.strength < 0 and self.kind != "fixed-rotation"):
            allowed = "finite number" if self.kind == "fixed-rotation" else "finite number of 0 or more"
            raise UserError(f"the strength of {self.kind} is {self.strength}: give a {allowed}.")

    def __str__(self) -> str:
        return f"{self.kind}:{self.strength:g}"


def parse_corruption(text: str) -> Corruption:
    """Read a corruption written as KIND:STRENGTH, such as gaussian-noise:0.3. Raises UserError for anything else."""
    kind, _, number = text.strip().partition(":")
    if kind not in CORRUPTIONS:
        return Corruption(kind, 0.0)
    try:
        strength = float(number)
    except ValueError:
        raise UserError(
            f"'{text}' has no strength: write KIND:STRENGTH, such as {CORRUPTIONS[kind].example}."
        ) from None
    return Corruption(kind, strength)


def apply_corruption(dataset: Dataset, x: Tensor, corruption: Corruption, generator: torch.Generator) -> Tensor:
    """Return images of `dataset`, x (n, features) normalized, after a corruption; x is not changed.

    Raises UserError for pixel noise if pixels are not in [0, 1], and for rotation if the inputs are not images.
    """
    if corruption.kind in ("rotation", "fixed-rotation") and 1 in dataset.image_shape[1:]:
        raise UserError(f"{dataset.name} has no images to rotate (its shape is {dataset.image_shape}). Use noise.")
    return CORRUPTIONS[corruption.kind].apply(dataset, x, corruption.strength, generator)


def _normal_like(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(x.shape, generator=generator, device=generator.device, dtype=x.dtype).to(x.device)


def _apply_gaussian_noise(_dataset: Dataset, x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    return gaussian_noise(x, strength, generator)


def _apply_pixel_noise(dataset: Dataset, x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    pixels = dataset.to_pixels(x)
    tolerance = 1e-3
    if len(x) and (pixels.min() < -tolerance or pixels.max() > 1 + tolerance):
        raise UserError(
            f"pixel-noise clips to [0, 1] and the pixels of {dataset.name} range from {pixels.min():.3g} to "
            f"{pixels.max():.3g}. Use gaussian-noise, or store the images as uint8."
        )
    return dataset.from_pixels(pixel_gaussian_noise(pixels, strength, generator))


def _apply_rotation(dataset: Dataset, x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    return random_rotation(x, dataset.image_shape, strength, generator, dataset.black)


def _apply_fixed_rotation(dataset: Dataset, x: Tensor, strength: float, _generator: torch.Generator) -> Tensor:
    return rotate(x, dataset.image_shape, torch.full((len(x),), strength), dataset.black)


@dataclass(frozen=True)
class _Kind:
    apply: Callable[[Dataset, Tensor, float, torch.Generator], Tensor]
    example: str


CORRUPTIONS = {
    "gaussian-noise": _Kind(_apply_gaussian_noise, "gaussian-noise:0.3"),
    "pixel-noise": _Kind(_apply_pixel_noise, "pixel-noise:0.1"),
    "rotation": _Kind(_apply_rotation, "rotation:30"),
    "fixed-rotation": _Kind(_apply_fixed_rotation, "fixed-rotation:-15"),
}
