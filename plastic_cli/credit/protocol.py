"""The interface of a credit rule, which says how each synapse changes; an optimizer applies the change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from plastic_cli.errors import UserError

Loss = Callable[[Any], Tensor]
"""The output of a module to the losses (batch,), one for each sample."""


@runtime_checkable
class Credit(Protocol):
    """A credit rule for the parameters of one module.

    It observes the module only during `backward`. The module is not changed: it keeps its class, its layers and its
    `state_dict`.
    """

    parameters: Mapping[str, nn.Parameter]
    """The parameters that the rule teaches, by name."""

    def backward(self, inputs: Any, loss: Loss) -> Tensor:
        """Call the module, and add a descent direction on the mean loss to `.grad` of each parameter taught.

        inputs: a tensor, a tuple of positional arguments, or a dictionary of keyword arguments of the module. loss: the
        module's output to the losses (batch,). Returns the losses (batch,), without a graph.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return all state of the rule that changes or that is drawn at random, such as feedback weights."""

    def load_state_dict(self, state: dict[str, Any], /) -> Any:
        """Restore what `state_dict` returned."""

    def detach(self) -> None:
        """Release the module and everything that the rule stores about it. `backward` then raises UserError."""


def call(model: nn.Module, inputs: Any) -> Any:
    """Call a module: a tuple holds positional arguments, a dictionary keyword arguments, all else is one argument."""
    if isinstance(inputs, tuple):
        return model(*inputs)
    return model(**inputs) if isinstance(inputs, Mapping) else model(inputs)


def checked_losses(losses: Any) -> Tensor:
    """Return the losses (batch,); raises UserError if they are not one number for each sample."""
    if not isinstance(losses, Tensor) or losses.ndim != 1 or not losses.is_floating_point():
        shape = f"a tensor of shape {tuple(losses.shape)}" if isinstance(losses, Tensor) else type(losses).__name__
        raise UserError(
            f"loss returned {shape}: return losses of shape (batch,), one for each sample, for example with"
            ' cross_entropy(output, y, reduction="none").'
        )
    return losses
