"""`plastic render` of a classifier: the weights of the first layer over training."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from plastic_cli.classifier.data import image_shape_of
from plastic_cli.errors import UserError
from plastic_cli.figures.film import weight_frames
from plastic_cli.runs.run import Run
from plastic_cli.runs.store import RunStore

SNAPSHOT_UNITS = 64


SNAPSHOTS = 60


def snapshot_weights(run: Run, epoch: int, epochs: int, weights: Tensor) -> None:
    """Keep the first units' weights of an epoch, for `render`; every epoch of a short run, some sixty of a long one."""
    if epoch % math.ceil(epochs / SNAPSHOTS) == 0 or epoch == epochs:
        kept = weights[:SNAPSHOT_UNITS].detach().to("cpu", torch.float16).clone()
        run.save_tensors(f"weights-{epoch:06d}", {"epoch": epoch, "weights": kept})


def render_weights(run: Run, units: int = 36, seconds_per_frame: float = 0.35) -> None:
    """Write a GIF of the first layer's weights beside the accuracy as they learn, and its last frame as a still.

    Raises UserError where the run kept no weights or where its inputs are no images.
    """
    names = run.stored_tensors("weights-")
    if not names:
        raise UserError(f"run {run.id} kept no weights to show: train it again with this version.")
    snapshots = [run.load_tensors(name) for name in names]
    store = RunStore(run.folder.parent)
    metrics = store.metrics(runs=[run.id], stage="train")
    curves = metrics[(metrics["metric"] == "accuracy") & metrics["split"].isin(["train", "test", "validation"])]
    frames = weight_frames(
        [snapshot["weights"][:units].float() for snapshot in snapshots],
        [int(snapshot["epoch"]) for snapshot in snapshots],
        image_shape_of(run, snapshots[0]["weights"].shape[1]),
        curves,
        title=f"{run.record.rule} on {run.record.dataset}, seed {run.seed}",
    )
    run.save_video("weights", [*frames, *[frames[-1]] * 5], seconds_per_frame)
    run.save_image("weights", frames[-1])
