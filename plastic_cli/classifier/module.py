"""A learner made of any torch module and an optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from plastic_cli.errors import UserError

Loss = Callable[[Tensor, Tensor], Tensor]
"""Logits (batch, classes) and class numbers (batch,) to the mean loss."""


class ModuleLearner:
    """Trains a module by gradient descent with an optimizer.

    network: returns logits (batch, classes). optimizer: holds the module's parameters; None for a network that is only
    evaluated. image_shape: (channels, height, width) if the module takes images; None if it takes rows of pixels.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        loss: Loss = nn.functional.cross_entropy,
        image_shape: tuple[int, int, int] | None = None,
    ) -> None:
        self.network, self.optimizer, self.loss, self.image_shape = network, optimizer, loss, image_shape

    def train_batch(self, x: Tensor, y: Tensor) -> Tensor:
        """Apply one step of the optimizer and return the loss before the step."""
        if self.optimizer is None:
            raise UserError("a module needs an optimizer to learn: fit(module, optimizer).")
        self.network.train()
        loss = self.loss(self._logits(x), y)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def predict(self, x: Tensor) -> Tensor:
        """Return logits (batch, classes), with the module in evaluation mode."""
        self.network.eval()
        return self._logits(x)

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the activity of each hidden layer, (batch, units): the input of every layer of weights but the first.

        Layers of weights are modules without children whose `weight` has two dimensions or more, in the order in which
        they are called.
        """
        inputs: list[Tensor] = []
        layers = [
            module
            for module in self.network.modules()
            if not list(module.children()) and getattr(getattr(module, "weight", None), "ndim", 0) >= 2
        ]
        hooks = [layer.register_forward_pre_hook(lambda _, given: inputs.append(given[0])) for layer in layers]
        try:
            self.predict(x)
        finally:
            for hook in hooks:
                hook.remove()
        return [activity.flatten(1) for activity in inputs[1:]]

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the module and of the optimizer."""
        optimizer = {} if self.optimizer is None else self.optimizer.state_dict()
        return {"network": self.network.state_dict(), "optimizer": optimizer}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Restore the module and, if there is one, the optimizer."""
        self.network.load_state_dict(state["network"])
        if self.optimizer is not None and state["optimizer"]:
            self.optimizer.load_state_dict(state["optimizer"])

    def _logits(self, x: Tensor) -> Tensor:
        parameter = next(self.network.parameters(), x)
        # A module of float64 takes float64; images are float32.
        x = x.to(parameter.dtype) if parameter.is_floating_point() else x
        logits: Tensor = self.network(x if self.image_shape is None else x.unflatten(1, self.image_shape))
        return logits
