"""The optimizers of `--optimizer`: those of torch, and those that plugins register."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from plastic_cli.errors import UserError
from plastic_cli.plugins.discovery import discover

if TYPE_CHECKING:
    from plastic_cli.config.classifier import ModuleTrainConfig


def make_optimizer(config: ModuleTrainConfig, parameters: Iterable[Any], **changes: float) -> torch.optim.Optimizer:
    """Return the optimizer that a configuration names.

    parameters: parameters, or groups of parameters as torch's optimizers take them. changes: other values than those
    of the configuration for `learning_rate`, `momentum` or `weight_decay`. Raises UserError for an optimizer of a
    plugin that is not installed.
    """
    rate = changes.get("learning_rate", config.learning_rate)
    momentum = changes.get("momentum", config.momentum)
    decay = changes.get("weight_decay", config.weight_decay)
    if config.optimizer in ("sgd", "momentum"):
        return torch.optim.SGD(parameters, lr=rate, momentum=momentum, weight_decay=decay)
    if config.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=rate, weight_decay=decay)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)
    return _of_plugin(config.optimizer)(parameters, lr=rate, weight_decay=decay)


class SeveralOptimizers:
    """Optimizers of different parameters that step together, as one optimizer."""

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        self.optimizers = tuple(optimizers)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all optimizers."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=set_to_none)

    def step(self) -> None:
        """Apply one step of each optimizer."""
        for optimizer in self.optimizers:
            optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of each optimizer."""
        return {"optimizers": [optimizer.state_dict() for optimizer in self.optimizers]}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Restore what `state_dict` returned."""
        for optimizer, stored in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(stored)


def _of_plugin(name: str) -> Callable[..., torch.optim.Optimizer]:
    """Return the class of an optimizer that a plugin registers."""
    for rule in discover().rules.values():
        if name in rule.optimizers:
            return rule.optimizer(name)
    raise UserError(f"--optimizer {name}: no installed plugin has it. `plastic rules` lists what is installed.")
