"""The networks of `--model`: four with a name, and any torch module that the user names."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from plastic_cli.classifier.baselines import ReluNetwork
from plastic_cli.classifier.module import ImageShape, as_images, as_input
from plastic_cli.config.classifier import MODELS
from plastic_cli.errors import UserError, with_article
from plastic_cli.runs.checkpoint import random_states, restore_random_states
from plastic_cli.runs.own_modules import import_own

if TYPE_CHECKING:
    from plastic_cli.data.datasets import Dataset

LENET_SIDE = 32
"""Height and width of the images of LeNet-5."""


class BuiltNetwork(NamedTuple):
    """A network with its initial weights.

    image_shape: the images (channels, height, width) that it takes; None for one that takes rows of pixels.
    """

    module: nn.Module
    image_shape: ImageShape | None


def build_network(name: str, data: Dataset, hidden: Sequence[int], generator: torch.Generator) -> BuiltNetwork:
    """Return the network that `--model` names, for the images and classes of `data`, on the CPU.

    hidden: units of the hidden layers of mlp, or channels of the convolutions of cnn. generator: draws the initial
    weights; its seed becomes that of the global random numbers while a network draws from those.

    The four networks with a name take rows of pixels (batch, features) and images (batch, channels, height, width).

    Raises UserError if the images are too small for the network, and if a network of the user's own cannot be made or
    does not take the images.
    """
    return network_for(name, data.image_shape, data.classes, hidden, generator)


def network_for(
    name: str, shape: ImageShape, classes: int, hidden: Sequence[int], generator: torch.Generator
) -> BuiltNetwork:
    """Return the same as `build_network`, for images of a shape (channels, height, width) and a number of classes."""
    if name == "mlp":
        return BuiltNetwork(multilayer_perceptron([prod(shape), *hidden, classes], generator), None)
    if name not in MODELS:
        return _own_network(name, shape, classes, generator.initial_seed())
    with seeded(generator.initial_seed()):
        if name == "cnn":
            return BuiltNetwork(ConvolutionalNetwork(shape, hidden, classes), None)
        if name == "lenet":
            return BuiltNetwork(LeNet(shape, classes), None)
        # Importing torchvision takes a second.
        from plastic_cli.classifier.resnet import SmallResNet18

        return BuiltNetwork(SmallResNet18(shape, classes), None)


def existing_network(module: nn.Module, data: Dataset) -> BuiltNetwork:
    """Return a module that exists, and the form in which it takes the images of `data`.

    Raises UserError if it takes neither images nor rows of pixels.
    """
    return _with_input_form(lambda: module, data.image_shape, data.classes, 0, f"the module {type(module).__name__}")


def takes_only_images(module: nn.Module, data: Dataset) -> bool:
    """Return whether a module takes images (batch, channels, height, width) of `data` and fails with rows of pixels."""
    taken = []
    for image_shape in (data.image_shape, None):
        with seeded(0):
            try:
                _try_blank_images(module, data.image_shape, data.classes, image_shape)
            except UserError:
                taken.append(False)
            else:
                taken.append(True)
    return taken == [True, False]


def multilayer_perceptron(sizes: Sequence[int], generator: torch.Generator) -> ReluNetwork:
    """Return a ReLU network of the sizes d_0, ..., d_L with He's normal initialization and biases 0."""
    layers = []
    for inputs, outputs in pairwise(sizes):
        # Without torch's own initialization, which draws from the global random numbers.
        layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
        nn.init.zeros_(layer.bias)
        layers.append(layer)
    return ReluNetwork(layers)


def mlp(num_classes: int) -> nn.Module:
    """Return a ReLU network with 256 and 128 hidden units, whose first layer takes the size of its first input.

    It is the same network for every rule: `--model plastic_cli.classifier.networks:mlp`. Some rules have another
    network as `mlp`.
    """
    return nn.Sequential(
        nn.Flatten(), nn.LazyLinear(256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, num_classes)
    )


class _HeLinear(nn.LazyLinear):
    """A linear layer that takes the size of its first input, with He's normal initialization and biases 0."""

    def reset_parameters(self) -> None:
        if self.in_features > 0:
            nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
            nn.init.zeros_(self.bias)


class _Standardize(nn.Module):
    """Layer normalization without scale and shift, for rows of any length."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:])


def normalized_mlp(num_classes: int) -> nn.Module:
    """Return a ReLU network with 256 and 64 hidden units that standardizes the input of each of its layers.

    It is the network of `train grlu --hidden 256,64`, for the other rules:
    `--model plastic_cli.classifier.networks:normalized_mlp`.
    """
    layers: list[nn.Module] = [nn.Flatten()]
    for units in (256, 64):
        layers += [_Standardize(), _HeLinear(units), nn.ReLU()]
    return nn.Sequential(*layers, _Standardize(), _HeLinear(num_classes))


def recurrent(num_classes: int) -> nn.Module:
    """Return an Elman network with 128 tanh units that reads an image row by row, from top to bottom.

    The same weights are used at every row: `--model plastic_cli.classifier.networks:recurrent`.
    """
    return ElmanNetwork(128, num_classes)


def recurrent_2_rows(num_classes: int) -> nn.Module:
    """Return the network of `recurrent` for two rows at each step: half as many steps, and the same image."""
    return ElmanNetwork(128, num_classes, rows=2)


def recurrent_4_rows(num_classes: int) -> nn.Module:
    """Return the network of `recurrent` for four rows at each step."""
    return ElmanNetwork(128, num_classes, rows=4)


def recurrent_28_rows(num_classes: int) -> nn.Module:
    """Return the network of `recurrent` for 28 rows at each step: one step for an image of MNIST."""
    return ElmanNetwork(128, num_classes, rows=28)


class ElmanNetwork(nn.Module):
    """A recurrent layer over the rows of an image, h_t = tanh(W [x_t, h_{t-1}] + b), and a readout of its last state.

    x_t: `rows` rows of all channels (batch, rows * channels * width), from top to bottom. The height of the image must
    be a multiple of `rows`. The layer takes its size from its first input.
    """

    def __init__(self, units: int, classes: int, rows: int = 1) -> None:
        super().__init__()
        self.units, self.rows = units, rows
        self.cell = nn.LazyLinear(units)
        self.readout = nn.Linear(units, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (batch, classes) of images (batch, channels, height, width)."""
        parts = images.transpose(1, 2).unflatten(1, (-1, self.rows)).flatten(2)
        h = images.new_zeros(len(images), self.units)
        for x in parts.unbind(1):
            h = torch.tanh(self.cell(torch.cat([x, h], dim=1)))
        logits: Tensor = self.readout(h)
        return logits


class ConvolutionalNetwork(nn.Module):
    """Convolutions 3 x 3 with ReLU, each followed by max pooling that halves the image, and a linear readout."""

    def __init__(self, image_shape: ImageShape, channels: Sequence[int], classes: int) -> None:
        super().__init__()
        self.image_shape = image_shape
        inputs, height, width = image_shape
        if min(height, width) < 2 ** len(channels):
            raise UserError(
                f"--hidden {','.join(map(str, channels))}: images of {height} x {width} pixels cannot be halved"
                f" {len(channels)} times, once for each convolution. Name fewer."
            )
        self.convolutions = nn.ModuleList()
        for outputs in channels:
            self.convolutions.append(nn.Conv2d(inputs, outputs, 3, padding=1))
            inputs, height, width = outputs, height // 2, width // 2
        self.readout = nn.Linear(inputs * height * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (batch, classes)."""
        h = as_images(x, self.image_shape)
        for convolution in self.convolutions:
            h = functional.max_pool2d(torch.relu(convolution(h)), 2)
        logits: Tensor = self.readout(h.flatten(1))
        return logits


class LeNet(nn.Module):
    """LeNet-5 with ReLU and max pooling. Images of another size than 32 x 32 are resized (bilinear) first.

    Layers as in biotorch (github.com/jsalbert/biotorch, models/le_net.py): convolutions 5 x 5 with 6, 16 and 120
    channels, pooling after the first two, 84 units, and the classes.
    """

    def __init__(self, image_shape: ImageShape, classes: int) -> None:
        super().__init__()
        self.image_shape = image_shape
        self.conv1 = nn.Conv2d(image_shape[0], 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.conv3 = nn.Conv2d(16, 120, 5)
        self.fc1 = nn.Linear(120, 84)
        self.fc2 = nn.Linear(84, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (batch, classes)."""
        h = as_images(x, self.image_shape)
        if h.shape[-2:] != (LENET_SIDE, LENET_SIDE):
            h = functional.interpolate(h, (LENET_SIDE, LENET_SIDE), mode="bilinear", antialias=True)
        h = functional.max_pool2d(torch.relu(self.conv1(h)), 2)
        h = functional.max_pool2d(torch.relu(self.conv2(h)), 2)
        h = torch.relu(self.conv3(h)).flatten(1)
        logits: Tensor = self.fc2(torch.relu(self.fc1(h)))
        return logits


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global random numbers of torch, NumPy and Python, and restore them at the end."""
    before = random_states()
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  the global state is what a module draws from
    torch.manual_seed(seed)
    try:
        yield
    finally:
        restore_random_states(before, "of this program")


# ------------------------------------------------------------------------------------------- networks of the user's own


def _own_network(reference: str, shape: ImageShape, classes: int, seed: int) -> BuiltNetwork:
    """Return a network of the user's own, and the form of its input, which a blank image finds out."""
    option = f"--model {reference}"
    make = import_own(reference, option)
    if not callable(make) or isinstance(make, nn.Module):
        kind = with_article(type(make).__name__)
        raise UserError(f"{option}: it is {kind}. Name a function or class that makes a torch module.")
    return _with_input_form(lambda: _made(make, classes, option), shape, classes, seed, option)


def _with_input_form(
    make: Callable[[], nn.Module], shape: ImageShape, classes: int, seed: int, option: str
) -> BuiltNetwork:
    """Return the module that takes blank images, or rows of pixels; raises UserError if it takes neither."""
    failures: dict[str, str] = {}
    for rows in (False, True):
        # A module with lazy layers takes its form from the first input, so each attempt needs a new one.
        with seeded(seed):
            module = make()
            image_shape = None if rows else (_channels_of(module, shape[0]), *shape[1:])
            try:
                _try_blank_images(module, shape, classes, image_shape)
            except UserError as error:
                form = f"rows of {prod(shape)} pixels"
                if image_shape is not None:
                    form = f"images of {' x '.join(map(str, image_shape))}"
                failures[form] = str(error)
            else:
                return BuiltNetwork(module, image_shape)
    if len(set(failures.values())) == 1:
        raise UserError(f"{option}: it {next(iter(failures.values()))}.")
    reasons = "; ".join(f"with {form} it {failure}" for form, failure in failures.items())
    raise UserError(f"{option}: {reasons}.")


def _made(make: Callable[..., Any], classes: int, option: str) -> nn.Module:
    """Call the user's function or class, with num_classes if it takes that."""
    takes = _takes_classes(make)
    try:
        module = make(num_classes=classes) if takes else make()
    except Exception as error:
        if takes == "perhaps" and isinstance(error, TypeError) and "num_classes" in str(error):
            return _made(lambda: make(), classes, option)
        # The user's function can raise anything.
        raise UserError(f"{option}: making the module failed with {_reason(error)}.") from error
    if not isinstance(module, nn.Module):
        raise UserError(f"{option}: it returned {with_article(type(module).__name__)}, not a torch module.")
    return module


def _takes_classes(make: Callable[..., Any]) -> str:
    """Return whether a function takes num_classes: "yes", "perhaps" if it takes any keyword, or an empty text."""
    try:
        parameters = inspect.signature(make).parameters
    except ValueError:
        # Some functions that are not written in Python do not tell.
        return ""
    if "num_classes" in parameters:
        return "yes"
    kinds = {parameter.kind for parameter in parameters.values()}
    return "perhaps" if inspect.Parameter.VAR_KEYWORD in kinds else ""


def _channels_of(module: nn.Module, channels: int) -> int:
    """Return the channels of the images that a module takes: 3 for gray images if its first convolution expects 3."""
    first = next((layer for layer in module.modules() if isinstance(layer, nn.Conv2d)), None)
    return 3 if channels == 1 and first is not None and first.in_channels == 3 else channels


@torch.no_grad()
def _try_blank_images(module: nn.Module, shape: ImageShape, classes: int, image_shape: ImageShape | None) -> None:
    """Call a module with two blank images; raises UserError, without its beginning, if it does not return logits."""
    first = next(module.parameters(), None)
    if first is None:
        raise UserError("has no parameters, so there is nothing to train")
    training = module.training
    module.eval()
    try:
        logits = module(as_input(torch.zeros(2, prod(shape), device=first.device), module, image_shape))
    except Exception as error:
        # The user's module can raise anything.
        raise UserError(f"failed with {_reason(error)}") from error
    finally:
        module.train(training)
    if not isinstance(logits, Tensor):
        raise UserError(f"returned {with_article(type(logits).__name__)}, not logits (batch, classes)")
    if logits.ndim != 2 or len(logits) != 2 or logits.shape[1] < classes:
        raise UserError(f"returned {tuple(logits.shape)} for 2 images, not logits (2, {classes})")


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0].rstrip('.')}"
