"""What robustness is measured with: noise and rotation of images, (n, features), with explicit random numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from plastic_cli.data.datasets import Dataset
from plastic_cli.errors import UserError, did_you_mean

# Rotating samples every image at once: a slice at a time keeps the sampling grid small beside the data.
_IMAGES_AT_ONCE = 8192


def gaussian_noise(x: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Return x plus Gaussian noise of standard deviation sigma, added AFTER normalisation and not clipped.

    x: any shape, normalised. sigma is in units of the normalised data: on MNIST .3 is .3 * .3081 = .092 of the range
    from black to white. Numbers are drawn on the generator's device, so that a CPU generator gives the same noise for
    data on any device.
    """
    return x + sigma * _normal_like(x, generator)


def pixel_gaussian_noise(pixels: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Return pixels plus Gaussian noise of standard deviation sigma, clipped to [0, 1].

    pixels: any shape, BEFORE normalisation, in [0, 1]; sigma is in the same units.
    """
    return (pixels + sigma * _normal_like(pixels, generator)).clamp(0, 1)


def rotate(
    x: Tensor, image_shape: tuple[int, int, int], degrees: Tensor, background: tuple[float, ...] | float = 0.0
) -> Tensor:
    """Return each image turned about its centre by its own angle, counter-clockwise as one looks at it.

    x: (n, channels * height * width). image_shape: (channels, height, width). degrees: (n,). Sampling is bilinear; what
    comes from outside the image is `background`, one value or one per channel (`Dataset.black` for normalised data).
    """
    channels, height, width = image_shape
    radians = torch.deg2rad(degrees.to(x.device, torch.float64))
    cosine, sine = radians.cos(), radians.sin()
    zero = torch.zeros_like(cosine)
    # affine_grid measures both axes from -1 to 1, so an angle in pixels is sheared where height and width differ.
    rows = [cosine, -sine * height / width, zero, sine * width / height, cosine, zero]
    transforms = torch.stack(rows, dim=1).view(-1, 2, 3).to(x.dtype)
    fill = torch.as_tensor(background, dtype=x.dtype, device=x.device).reshape(-1, 1, 1)
    turned = []
    images = x.reshape(-1, channels, height, width)
    for part, transform in zip(
        torch.split(images, _IMAGES_AT_ONCE), torch.split(transforms, _IMAGES_AT_ONCE), strict=True
    ):
        grid = affine_grid(transform, list(part.shape), align_corners=False)
        # Outside the image grid_sample has zeros, which stand for the background once it is taken off.
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
    """Return each image turned by an angle drawn uniformly from -max_degrees to max_degrees. See `rotate`."""
    uniform = torch.rand(len(x), generator=generator, device=generator.device, dtype=torch.float64)
    return rotate(x, image_shape, max_degrees * (2 * uniform - 1), background)


@dataclass(frozen=True)
class Corruption:
    """A kind of corruption and how strong it is.

    gaussian-noise: standard deviation, added after normalisation. pixel-noise: standard deviation, added to pixels in
    [0, 1], clipped. rotation: degrees, every image by its own uniform angle between minus and plus that.
    fixed-rotation: degrees counter-clockwise, all images alike.

    Raises UserError for an unknown kind and for a strength that makes no sense.
    """

    kind: str
    strength: float

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise UserError(
                f"unknown corruption '{self.kind}'.{did_you_mean(self.kind, _KINDS)} There are {', '.join(_KINDS)}."
            )
        if not math.isfinite(self.strength) or (self.strength < 0 and self.kind != "fixed-rotation"):
            allowed = "finite number" if self.kind == "fixed-rotation" else "finite number of 0 or more"
            raise UserError(f"the strength of {self.kind} is {self.strength}: give a {allowed}.")

    def __str__(self) -> str:
        return f"{self.kind}:{self.strength:g}"


def corruption_names() -> list[str]:
    """Return the kinds of corruption."""
    return list(_KINDS)


def parse_corruption(text: str) -> Corruption:
    """Read a corruption written as KIND:STRENGTH, such as gaussian-noise:0.3. Raises UserError where it is not one."""
    kind, _, number = text.strip().partition(":")
    if kind not in _KINDS:
        return Corruption(kind, 0.0)
    try:
        strength = float(number)
    except ValueError:
        raise UserError(f"'{text}' has no strength: write KIND:STRENGTH, such as {_KINDS[kind].example}.") from None
    return Corruption(kind, strength)


def apply_corruption(dataset: Dataset, x: Tensor, corruption: Corruption, generator: torch.Generator) -> Tensor:
    """Return images of `dataset`, (n, features) normalised, after a corruption; x itself is left as it is.

    Raises UserError for pixel noise on a set whose pixels are not in [0, 1], and for rotation of what is no image.
    """
    if corruption.kind in ("rotation", "fixed-rotation") and 1 in dataset.image_shape[1:]:
        raise UserError(f"{dataset.name} has no images to turn (its shape is {dataset.image_shape}). Use noise.")
    return _KINDS[corruption.kind].apply(dataset, x, corruption.strength, generator)


def _normal_like(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(x.shape, generator=generator, device=generator.device, dtype=x.dtype).to(x.device)


def _apply_gaussian_noise(_dataset: Dataset, x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    return gaussian_noise(x, strength, generator)


def _apply_pixel_noise(dataset: Dataset, x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    pixels = dataset.to_pixels(x)
    tolerance = 1e-3
    if len(x) and (pixels.min() < -tolerance or pixels.max() > 1 + tolerance):
        raise UserError(
            f"pixel-noise clips to [0, 1] and the pixels of {dataset.name} go from {pixels.min():.3g} to "
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


_KINDS = {
    "gaussian-noise": _Kind(_apply_gaussian_noise, "gaussian-noise:0.3"),
    "pixel-noise": _Kind(_apply_pixel_noise, "pixel-noise:0.1"),
    "rotation": _Kind(_apply_rotation, "rotation:30"),
    "fixed-rotation": _Kind(_apply_fixed_rotation, "fixed-rotation:-15"),
}
