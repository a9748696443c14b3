"""The weights of the first layer that a run stores during training, for its film and its analyses."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from plastic_cli.classifier.data import image_shape_of
from plastic_cli.config.classifier import MODELS
from plastic_cli.errors import UserError
from plastic_cli.runs.run import Run

SNAPSHOT_UNITS = 64
"""Number of units, at most, whose weights are stored."""

SNAPSHOTS = 60
"""Number of epochs, about, whose weights are stored."""


def snapshot_weights(run: Run, epoch: int, epochs: int, weights: Tensor) -> None:
    """Store the weights (units, inputs) of the first units after an epoch, for `render`.

    Those of a convolution, (units, channels, height, width), are stored with the shape of a kernel.
    A run of up to `SNAPSHOTS` epochs stores every epoch; a longer one stores evenly spaced epochs and the last.
    """
    if epoch % math.ceil(epochs / SNAPSHOTS) == 0 or epoch == epochs:
        kept = weights[:SNAPSHOT_UNITS].detach().to("cpu", torch.float16).flatten(1).clone()
        kernel = {"kernel": list(weights.shape[1:])} if weights.ndim == 4 else {}
        run.save_tensors(f"weights-{epoch:06d}", {"epoch": epoch, "weights": kept, **kernel})


def stored_weights(run: Run, units: int) -> dict[int, Tensor]:
    """Return the stored weights (units, inputs) of the first `units` units by epoch, in order.

    Raises UserError if the run has none.
    """
    snapshots = [run.load_tensors(name) for name in run.stored_tensors("weights-")]
    if not snapshots:
        without = (
            "" if run.config.get("model", "mlp") in MODELS else ", with a network that has layers such as nn.Linear"
        )
        raise UserError(f"run {run.id} has no stored weights to render. Train it for at least one epoch{without}.")
    return {int(snapshot["epoch"]): snapshot["weights"][:units].float() for snapshot in snapshots}


def stored_shape(run: Run, inputs: int) -> tuple[int, int, int] | None:
    """Return the shape of the stored weights of a unit, a kernel or an image; None if they are not to be seen as one.

    inputs: number of weights of a unit.
    """
    names = run.stored_tensors("weights-")
    kernel = run.load_tensors(names[0]).get("kernel") if names else None
    return _as_picture(image_shape_of(run, inputs) if kernel is None else kernel)


def shape_of_units(run: Run, weights: Tensor) -> tuple[int, int, int] | None:
    """Return the shape of the weights (units, ...) of a unit of the first layer, as `stored_shape` does."""
    return _as_picture(weights.shape[1:] if weights.ndim == 4 else image_shape_of(run, weights[0].numel()))


def _as_picture(shape: Sequence[int] | None) -> tuple[int, int, int] | None:
    # One channel is drawn in two colors, three as red, green and blue.
    return None if shape is None or shape[0] not in (1, 3) else (int(shape[0]), int(shape[1]), int(shape[2]))
