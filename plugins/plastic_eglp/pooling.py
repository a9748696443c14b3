"""Pooling of the published network of SoftHebb, and the sizes of its maps, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from plastic_eglp.config import KERNELS


class Pooling(NamedTuple):
    """Pooling after a layer: the largest value, or the mean, of windows of `size` pixels at each `stride`."""

    largest: bool
    size: int
    stride: int
    padding: int

    def side(self, side: int) -> int:
        """Return the height of maps of height `side` after pooling."""
        return max(0, (side + 2 * self.padding - self.size) // self.stride + 1)


def pooling_of(depth: int) -> tuple[Pooling, ...]:
    """Return the published pooling of each of `depth` layers; from three layers on, all but the last are equal."""
    largest, wide_mean, mean = Pooling(True, 4, 2, 1), Pooling(False, 4, 2, 1), Pooling(False, 2, 2, 0)
    return (wide_mean, largest)[:depth] if depth < 3 else (*[largest] * (depth - 1), mean)


def map_sizes(image_shape: Sequence[int], filters: Sequence[int]) -> list[tuple[int, int, int]]:
    """Return (channels, height, width) of the input of each layer, and of the readout's input.

    Raises ValueError if the images are too small.
    """
    channels, height, width = (int(size) for size in image_shape)
    sizes = [(channels, height, width)]
    for number, (units, pooling) in enumerate(zip(filters, pooling_of(len(filters)), strict=True)):
        # Reflect padding needs a pixel that is not at the edge; windows of pooling must fit.
        if min(height, width) <= KERNELS[min(number, 1)] // 2 or not (pooling.side(height) and pooling.side(width)):
            raise ValueError(f"maps of {height} x {width} pixels are too small for layer {number + 1}")
        height, width = pooling.side(height), pooling.side(width)
        sizes.append((units, height, width))
    return sizes
