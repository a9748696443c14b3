"""The exact gradient as a credit rule.

It is the control of all other rules. Parameters that a rule does not teach can learn by it (rest="gradient").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from plastic_cli.credit.parameters import others, taught
from plastic_cli.credit.protocol import Credit, Loss, call, checked_losses
from plastic_cli.errors import UserError

Rest = Literal["none", "gradient"] | Credit
"""How parameters learn that the rule does not teach: not at all, by the gradient, or by another credit rule."""


class Gradient:
    """Backpropagation: `.grad` receives the gradient of the mean loss.

    modules: see `taught`. Raises UserError if there is nothing to teach.
    """

    def __init__(self, model: nn.Module, modules: str | Sequence[str] | None = None) -> None:
        self.model: nn.Module | None = model
        self.parameters: Mapping[str, nn.Parameter] = taught(model, modules)

    def backward(self, inputs: Any, loss: Loss) -> Tensor:
        """Add the gradient of the mean loss to `.grad`; return the losses (batch,)."""
        model = attached(self.model, self.parameters)
        with torch.enable_grad():
            losses = checked_losses(loss(call(model, inputs)))
        learning = [parameter for parameter in self.parameters.values() if parameter.requires_grad]
        if losses.requires_grad and learning:
            torch.autograd.backward(losses.mean(), inputs=learning)
        return losses.detach()

    def state_dict(self) -> dict[str, Any]:
        """Return an empty dictionary: there is no state."""
        return {}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Restore nothing: there is no state."""

    def detach(self) -> None:
        """Release the module."""
        self.model, self.parameters = None, {}


def rest_credit(model: nn.Module, parameters: Mapping[str, nn.Parameter], rest: Rest) -> Credit | None:
    """Return the credit rule of the parameters that are not among `parameters`; None if they do not learn.

    Raises UserError for another word, or for a rule that teaches some of the same parameters.
    """
    if rest == "none":
        return None
    if rest == "gradient":
        left = others(model, parameters)
        return Gradient(model, list(left)) if left else None
    if isinstance(rest, str) or not isinstance(rest, Credit):
        raise UserError(f"rest is {rest!r}: it must be 'none', 'gradient' or another credit rule.")
    mine = {id(parameter) for parameter in parameters.values()}
    twice = [name for name, parameter in rest.parameters.items() if id(parameter) in mine]
    if twice:
        raise UserError(f"rest: both rules teach '{twice[0]}'. Choose different modules for them.")
    return rest


def attached(model: nn.Module | None, parameters: Mapping[str, nn.Parameter]) -> nn.Module:
    """Return the module of a credit rule, which teaches `parameters`.

    Raises UserError after `detach`, and if the module has other parameters now than when the rule was created.
    """
    if model is None:
        raise UserError("the credit rule is detached from its module. Create a new one.")
    present = {id(parameter) for parameter in model.parameters()}
    for name, parameter in parameters.items():
        if id(parameter) not in present:
            raise UserError(
                f"'{name}' of the module was replaced after the credit rule was created. Create a new rule."
            )
    return model
