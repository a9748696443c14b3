"""The data set on which a trained classifier is evaluated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from plastic_cli.data.datasets import Dataset, Split, load_dataset
from plastic_cli.data.images import PixelRange, in_other_units
from plastic_cli.errors import UserError
from plastic_cli.runs.run import Run

if TYPE_CHECKING:
    from plastic_cli.config.classifier import ModuleTrainConfig


def image_shape_of(run: Run, inputs: int) -> tuple[int, int, int] | None:
    """Return the shape of the images that the first layer receives, or None if its input is not an image."""
    stored = run.record.data.get("image_shape")
    if stored is not None and int(np.prod(stored)) == inputs:
        channels, height, width = stored
        return int(channels), int(height), int(width)
    return None


def load_training_data(config: ModuleTrainConfig, run: Run) -> Dataset:
    """Load the images that a run learns from, and is validated and tested on."""
    return load_dataset(
        config.dataset, run.data_folder, validation=config.validation, classes=config.classes, device=run.device
    )


def data_for(run: Run, dataset: str | None, *, validation: bool = False) -> Dataset:
    """Load the data set of an evaluation, with its own normalization; raises UserError if it does not fit the run."""
    name = dataset or run.record.dataset
    if name is None:
        raise UserError(f"run {run.id} has no data set. Choose one with --dataset.")
    held_out = int(run.config.get("validation", 0))
    if validation and not held_out:
        raise UserError(f"run {run.id} was trained without a validation split. Choose --split test or train.")
    own = name == run.record.dataset
    data = load_dataset(
        name,
        run.data_folder,
        validation=held_out if own else 0,
        classes=trained_classes(run) if own else (),
        device=run.device,
    )
    stored = run.record.data
    if name != run.record.dataset:
        _check_fit(run, data)
    elif stored.get("checksum") not in (None, data.checksum):
        run.console.warning(
            f"the data set {name} differs from the one that run {run.id} was trained on (other checksum)"
        )
    return data


def trained_classes(run: Run) -> tuple[int, ...]:
    """Return the classes of `--classes` that a run was trained on; empty for all."""
    return tuple(run.config.get("classes") or ())


def trained_on(run: Run) -> Dataset:
    """Load the data set that a run was trained on, with the same classes and validation split."""
    return load_dataset(
        str(run.record.dataset),
        run.data_folder,
        validation=int(run.config.get("validation", 0)),
        classes=trained_classes(run),
        device=run.device,
    )


def described_data(run: Run) -> Dataset:
    """Return the data set of a run as its record describes it: enough to build its network without its images.

    Each split has one image of zeros for each class. A run whose record lacks the description needs the data set.
    """
    stored = run.record.data
    if not {"image_shape", "classes", "class_names", "mean", "std"} <= stored.keys():
        return trained_on(run)
    channels, height, width = (int(size) for size in stored["image_shape"])
    classes = int(stored["classes"])
    blank = Split(
        torch.zeros(classes, channels * height * width, device=run.device), torch.arange(classes, device=run.device)
    )
    return Dataset(
        name=str(stored.get("name", run.record.dataset)),
        train=blank,
        test=blank,
        validation=None,
        classes=classes,
        class_names=tuple(stored["class_names"]),
        image_shape=(channels, height, width),
        mean=tuple(stored["mean"]),
        std=tuple(stored["std"]),
        checksum=str(stored.get("checksum", "")),
        note=str(stored.get("note", "")),
        pixels=PixelRange.from_stored(stored.get("pixels")),
    )


def _check_fit(run: Run, data: Dataset) -> None:
    """Raise UserError if a data set has other image shapes, pixel units or classes than the run's own."""
    stored, option = run.record.data, f"--dataset {data.name}"
    trained = f"run {run.id} was trained on"
    shape, classes = stored.get("image_shape"), stored.get("classes")
    if shape is not None and list(shape) != list(data.image_shape):
        raise UserError(
            f"{option}: its images are {_by(data.image_shape)}, {trained} {_by(shape)} ({run.record.dataset})."
        )
    if classes is not None and int(classes) < data.classes:
        raise UserError(f"{option}: it has {data.classes} classes, {trained} {classes} classes.")
    for number, (own, other) in enumerate(zip(stored.get("class_names") or (), data.class_names, strict=False)):
        # A class whose name is its number can be any class.
        if own != other and str(number) not in (own, other):
            raise UserError(
                f"{option}: its class {number} is {other}, {trained} {own} as class {number}. Store labels with the "
                "class numbers of the run."
            )
    pixels = PixelRange.from_stored(stored.get("pixels"))
    if data.pixels is not None and pixels is not None and in_other_units(pixels, data.pixels):
        raise UserError(
            f"{option}: its pixels are {data.pixels}, {trained} pixels {pixels}. Store both in the same units."
        )


def _by(shape: Any) -> str:
    return " x ".join(str(size) for size in shape)
