"""The shapes of the networks of `--model`, which are made without memory for their weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from math import prod
from typing import TYPE_CHECKING, Any

from plastic_cli.analysis.shapes import SAMPLES, NetworkShape, fully_connected, shape_of
from plastic_cli.config.classifier import MODELS
from plastic_cli.errors import UserError

if TYPE_CHECKING:
    from plastic_cli.classifier.module import ImageShape
    from plastic_cli.classifier.networks import BuiltNetwork


def image_facts(data: Mapping[str, Any]) -> tuple[ImageShape, int]:
    """Return the shape of the images and the number of classes from the data facts of a record.

    Raises UserError if the record does not have them.
    """
    shape, classes = data.get("image_shape"), data.get("classes")
    numbers = [*shape, classes] if isinstance(shape, list | tuple) and len(shape) == 3 else []
    if not numbers or not all(isinstance(number, int) and number > 0 for number in numbers):
        raise UserError("the record of the run does not describe its images, so its cost is unknown.")
    channels, height, width = numbers[:3]
    return (channels, height, width), numbers[3]


def network_shape(
    model: str, data: Mapping[str, Any], hidden: Sequence[int], outputs: int | None = None
) -> NetworkShape:
    """Return the shape of the network that `--model` names. data: the data facts of a record; hidden: of `--hidden`.

    outputs: output units; None: the number of classes. Raises UserError if the network cannot be made.
    """
    image_shape, classes = image_facts(data)
    classes = outputs or classes
    if model == "mlp":
        return fully_connected([prod(image_shape), *hidden, classes])
    return _module_shape(model, image_shape, classes, tuple(hidden))


@cache
def _module_shape(model: str, image_shape: ImageShape, classes: int, hidden: tuple[int, ...]) -> NetworkShape:
    import torch

    from plastic_cli.classifier.module import as_input

    built = made_without_memory(model, image_shape, classes, hidden)
    device = next(built.module.parameters()).device
    x = torch.zeros(SAMPLES, prod(image_shape), device=device)
    try:
        return shape_of(built.module, as_input(x, built.module, built.image_shape))
    except Exception as error:
        # A module can raise anything.
        raise UserError(f"--model {model}: its operations cannot be counted ({type(error).__name__}).") from error


def made_without_memory(model: str, image_shape: ImageShape, classes: int, hidden: Sequence[int]) -> BuiltNetwork:
    """Return the network that `--model` names on the meta device, in training mode.

    A network of the user's own that needs values is on the CPU. Raises UserError if the network cannot be made.
    """
    import torch

    from plastic_cli.classifier.networks import network_for

    def make(device: str) -> BuiltNetwork:
        with torch.device(device):
            built = network_for(model, image_shape, classes, hidden, torch.Generator("cpu").manual_seed(0))
        built.module.train()
        return built

    try:
        return make("meta")
    except Exception as error:
        # A module of the user's own can raise anything without values. A named one is too large, and would fill memory.
        if model in MODELS:
            raise UserError(f"--model {model}: it cannot be made ({type(error).__name__}).") from error
    return make("cpu")
