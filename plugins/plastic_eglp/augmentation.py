"""Training images that are shifted and flipped at random, new in each epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from plastic_cli.classifier.module import ModuleLearner


class Augmentation:
    """Shifts images by up to `shift` pixels in each direction, and flips them from left to right with probability .5.

    Each image has its own shift, uniform over all positions, as in the published program of local losses. background:
    the value of pixels that come from outside, by channel. generator: random generator (CPU).
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        background: Sequence[float],
        generator: torch.Generator,
        *,
        shift: int = 0,
        flip: bool = False,
    ) -> None:
        channels, height, width = image_shape
        if len(background) != channels:
            raise ValueError(f"background has {len(background)} numbers: give one for each of {channels} channels")
        self.shift, self.flip, self.generator = shift, flip, generator
        self._shape = (channels, height, width)
        self._padded = (height + 2 * shift, width + 2 * shift)
        self._background = torch.tensor(tuple(background))[:, None, None]

    def __call__(self, x: Tensor) -> Tensor:
        """Return other images, in the shape of x: rows (n, pixels)."""
        channels, height, width = self._shape
        images = x.view(-1, *self._shape)
        padded = self._background.to(x).expand(len(x), channels, *self._padded).clone()
        inside = slice(self.shift, self.shift + height), slice(self.shift, self.shift + width)
        padded[:, :, inside[0], inside[1]] = images
        offsets = torch.randint(2 * self.shift + 1, (2, len(x), 1), generator=self.generator)
        rows, columns = offsets[0] + torch.arange(height), offsets[1] + torch.arange(width)
        if self.flip:
            flipped = torch.rand(len(x), 1, generator=self.generator) < 0.5
            columns = torch.where(flipped, columns.flip(1), columns)
        positions = (rows[:, :, None] * self._padded[1] + columns[:, None, :]).view(len(x), 1, -1).to(x.device)
        return padded.flatten(2).gather(2, positions.expand(-1, channels, -1)).view_as(x)


class AugmentedLearner(ModuleLearner):
    """A learner of any network that learns from images after an augmentation."""

    augmentation: Augmentation

    def train_batch(self, x: Tensor, y: Tensor) -> Tensor:
        """Apply one step of the optimizer and return the loss before the step."""
        return super().train_batch(self.augmentation(x), y)

    def state_dict(self) -> dict[str, Any]:
        """Return the state, with that of the random generator."""
        return {**super().state_dict(), "augmentation": self.augmentation.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self.augmentation.generator.set_state(state["augmentation"].cpu())
