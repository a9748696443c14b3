"""What a run of a credit rule on a module measures after each epoch: its cost, and its angle to the gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from plastic_cli.analysis.angles import angle_degrees
from plastic_cli.analysis.cost import StepCost, step_cost, without_effect
from plastic_cli.classifier.fit import stratified_sample
from plastic_cli.credit.gradient import Gradient
from plastic_cli.credit.protocol import Credit, Loss

if TYPE_CHECKING:
    from plastic_cli.classifier.module import ModuleLearner
    from plastic_cli.data.datasets import Dataset
    from plastic_cli.runs.run import Run


def update_angles(model: nn.Module, credit: Credit, inputs: Any, loss: Loss) -> dict[str, float]:
    """Return the angles in degrees between one update of a rule and the gradient of the same batch.

    By name of each weight (two dimensions or more) that the rule changes, and "" for all these weights together.
    Dropout and batch statistics are the same for both. The step has no effect on anything.
    """
    updates = _filled(model, credit, inputs, loss)
    exact = _filled(model, Gradient(model, list(credit.parameters)), inputs, loss)
    pairs = {name: (updates[name], exact[name]) for name in updates if name in exact and updates[name].ndim > 1}
    changed = {name: pair for name, pair in pairs.items() if all(bool(each.any()) for each in pair)}
    angles = {name: angle_degrees(*pair) for name, pair in changed.items()}
    if changed:
        whole = (torch.cat([pair[place].flatten() for pair in changed.values()]) for place in (0, 1))
        angles[""] = angle_degrees(*whole)
    return angles


def _filled(model: nn.Module, credit: Credit, inputs: Any, loss: Loss) -> dict[str, Tensor]:
    """Return what a rule adds to `.grad` of each of its parameters, without any other effect."""
    with without_effect(model, credit):
        credit.backward(inputs, loss)
        return {name: each.grad for name, each in credit.parameters.items() if each.grad is not None}
