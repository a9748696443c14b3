"""A learner made of any torch module, an optimizer and, if wanted, a credit rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from plastic_cli.analysis.activity import hidden_activity, in_batches, layer_numbers, pooled
from plastic_cli.credit.parameters import named_parameters
from plastic_cli.credit.recording import Use, record
from plastic_cli.errors import UserError

if TYPE_CHECKING:
    from plastic_cli.classifier.optimizers import SeveralOptimizers
    from plastic_cli.credit.protocol import Credit

Loss = Callable[[Tensor, Tensor], Tensor]
"""Logits (batch, classes) and class numbers (batch,) to the mean loss; with a credit rule, to the losses (batch,)."""

ImageShape = tuple[int, int, int]
"""Channels, height and width."""

ONE_VALUE = "more than 1 value per channel"
"""What torch's batch normalization says of a batch of one sample."""


class ModuleLearner:
    """Trains a module by gradient descent, or by a credit rule, with an optimizer.

    network: returns logits (batch, classes). optimizer: holds the module's parameters; None for a network that is only
    evaluated. loss: None for cross-entropy. image_shape: (channels, height, width) of the images that the module takes;
    images of one channel are repeated if it takes more. None if it takes rows of pixels. credit: fills the gradients of
    the parameters; None for backpropagation. schedule: called before each epoch with the share of the epochs that are
    done, to set the learning rate, the noise and similar settings.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer | SeveralOptimizers | None = None,
        loss: Loss | None = None,
        image_shape: ImageShape | None = None,
        credit: Credit | None = None,
        schedule: Callable[[float], None] | None = None,
    ) -> None:
        self.network, self.optimizer, self.loss, self.image_shape = network, optimizer, loss, image_shape
        self.credit, self.schedule = credit, schedule

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Call the schedule."""
        if self.schedule is not None:
            self.schedule(epoch / epochs)

    def train_batch(self, x: Tensor, y: Tensor) -> Tensor:
        """Apply one step of the optimizer and return the loss before the step."""
        if self.optimizer is None:
            raise UserError("a module needs an optimizer to learn: fit(module, optimizer).")
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        with single_images_refused():
            loss = self._backward(x, y)
        self.optimizer.step()
        return loss

    def _backward(self, x: Tensor, y: Tensor) -> Tensor:
        """Fill the gradients; return the mean loss."""
        if self.credit is None:
            loss = (self.loss or nn.functional.cross_entropy)(self._logits(x), y)
            loss.backward()
            return loss.detach()
        return self.credit.backward(self.as_input(x), self.losses(y)).mean()

    def predict(self, x: Tensor) -> Tensor:
        """Return logits (batch, classes), with the module in evaluation mode."""
        self.network.eval()
        return self._logits(x)

    def activity(self, x: Tensor) -> dict[str, Tensor]:
        """Return the activity of each hidden layer by name, (batch, units, ...), in evaluation mode.

        See `plastic_cli.analysis.activity.hidden_activity`.
        """
        self.network.eval()
        return hidden_activity(self.network, self.as_input(x))

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the activity of each hidden layer, (batch, units), with positions averaged in large layers.

        See `plastic_cli.analysis.activity.pooled`. It is computed in batches that fit into the memory.
        """
        batches = [{name: pooled(layer) for name, layer in part.items()} for part in in_batches(self.activity, x)]
        return [torch.cat([part[name] for part in batches]) for name in batches[0]]

    def layer_numbers(self, x: Tensor) -> dict[str, int]:
        """Return the number of each layer of weights by name, in the order in which they are used; x: any images."""
        self.network.eval()
        return layer_numbers(self.network, self.as_input(x))

    def first_layer(self, x: Tensor) -> Tensor | None:
        """Return the weights of the layer that is used first, (units, ...); None if the module has no such layer."""
        uses = self._uses(x)
        return self.network.get_parameter(uses[0].name) if uses else None

    def readout(self, x: Tensor) -> dict[str, nn.Parameter]:
        """Return the parameters of the layer that is used last, by name; raises UserError without such a layer."""
        uses = self._uses(x)
        if not uses:
            raise UserError("the module has no layer of weights, such as nn.Linear, so it has no readout.")
        last, parameters = uses[-1], named_parameters(self.network)
        return {name: value for name, value in parameters.items() if name == last.name or value is last.product.bias}

    def train_only_readout(self, x: Tensor) -> None:
        """Fix all parameters but those of the layer that is used last. Raises UserError without such a layer."""
        learning = self.readout(x).values()
        self.network.requires_grad_(False)
        for parameter in learning:
            parameter.requires_grad_(True)

    def _uses(self, x: Tensor) -> list[Use]:
        """Return each use of a weight for x, in evaluation mode."""
        self.network.eval()
        return record(self.network, as_input(x, self.network, self.image_shape))[1]

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the module, of the optimizer and of the credit rule."""
        optimizer = {} if self.optimizer is None else self.optimizer.state_dict()
        state = {"network": self.network.state_dict(), "optimizer": optimizer}
        return state if self.credit is None else {**state, "credit": self.credit.state_dict()}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Restore the module and, if there are any, the optimizer and the credit rule."""
        self.network.load_state_dict(state["network"])
        if self.optimizer is not None and state["optimizer"]:
            self.optimizer.load_state_dict(state["optimizer"])
        if self.credit is not None and "credit" in state:
            self.credit.load_state_dict(state["credit"])

    def as_input(self, x: Tensor) -> Tensor:
        """Return rows of pixels x (batch, features) in the form and type that the module takes."""
        return as_input(x, self.network, self.image_shape)

    def losses(self, y: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the loss of a credit rule for labels y (batch,): logits to the losses (batch,)."""
        loss = self.loss or cross_entropies
        return lambda logits: loss(logits, y)

    def _logits(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(self.as_input(x))
        return logits


@contextmanager
def single_images_refused() -> Iterator[None]:
    """Raise UserError in place of torch's error where batch normalization gets one value for each channel."""
    try:
        yield
    except ValueError as error:
        if ONE_VALUE not in str(error):
            raise
        raise UserError(
            "batch normalization cannot learn from a batch of 1 image: choose a --batch-size above 1 that leaves no"
            " single image for the last batch of an epoch."
        ) from None


def as_input(x: Tensor, network: nn.Module, image_shape: ImageShape | None) -> Tensor:
    """Return rows of pixels x (batch, features) in the form and type that a module takes. image_shape: ModuleLearner's.

    Raises UserError if the images do not have the channels of `image_shape` and are not gray.
    """
    parameter = next(network.parameters(), x)
    # A module of float64 takes float64; images are float32.
    x = x.to(parameter.dtype) if parameter.is_floating_point() else x
    if image_shape is None:
        return x
    channels, height, width = image_shape
    if x.shape[1] == height * width and channels > 1:
        return as_images(x, (1, height, width)).expand(-1, channels, -1, -1)
    if x.shape[1] != prod(image_shape):
        raise UserError(f"images of {x.shape[1]} pixels do not fit a module for images of {image_shape}.")
    return as_images(x, image_shape)


def as_images(x: Tensor, image_shape: ImageShape) -> Tensor:
    """Return rows of pixels (batch, features) as images (batch, channels, height, width); images stay as they are."""
    images: Tensor = x.unflatten(1, image_shape) if x.ndim == 2 else x
    return images


def cross_entropies(logits: Tensor, y: Tensor) -> Tensor:
    """Return the cross-entropy (batch,) of each sample."""
    return nn.functional.cross_entropy(logits, y, reduction="none")
