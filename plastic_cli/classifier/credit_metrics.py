"""What a run of a credit rule on a module measures after each epoch: its cost, and its angle to the gradient."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from plastic_cli.analysis.cost import StepCost, step_cost
from plastic_cli.analysis.gradient_angles import WHOLE, gradient_angles
from plastic_cli.classifier.fit import stratified_sample
from plastic_cli.classifier.module import as_input, cross_entropies
from plastic_cli.credit.gradient import Gradient
from plastic_cli.credit.protocol import Loss

if TYPE_CHECKING:
    from plastic_cli.classifier.module import ModuleLearner
    from plastic_cli.data.datasets import Dataset
    from plastic_cli.runs.run import Run

MOST_TRIES = 64
"""Number of batches, in each epoch, among which one with an event and one without are searched."""


class CreditMetrics:
    """Measures a learner with training images, without any effect on it or its run.

    Its state is a part of the checkpoint of the run, as "credit_metrics".
    """

    def __init__(self, learner: ModuleLearner, run: Run, data: Dataset, batch_size: int) -> None:
        self.learner, self.run, self.data = learner, run, data
        self.batch_size = min(batch_size, len(data.train))
        self._costs: dict[bool, StepCost] = {}
        run.track(credit_metrics=self)

    def log(self, epoch: int) -> None:
        """Log the cost of the run up to `epoch`, and the angle of one update to the gradient, as training metrics.

        The cost is that of a batch, times the number of batches. For a rule with events, which counts them as `events`,
        batches with and without an event have their own cost. The angle is that of all parameters that the rule
        teaches, for a batch of images of all classes, the same in each epoch; the angle of each weight (two dimensions
        or more) has the label "layer". The gradient has no angle.
        """
        self.learner.network.train()
        self._log_cost(epoch)
        if self.learner.credit is not None:
            self._log_angles()

    def state_dict(self) -> dict[str, Any]:
        """Return the costs."""
        return {"costs": {had_event: (cost.forward, cost.learning) for had_event, cost in self._costs.items()}}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Restore the costs."""
        self._costs = {bool(had_event): StepCost(*cost) for had_event, cost in state["costs"].items()}

    def _log_cost(self, epoch: int) -> None:
        events = getattr(self.learner.credit, "events", 0)
        steps = epoch * len(self.data.train) / self.batch_size
        share = events / steps if isinstance(events, int) and steps else 0.0
        self._find_costs(share if steps else None)
        first = next(iter(self._costs.values()))
        without, having = (self._costs.get(had_event, first) for had_event in (False, True))
        learning = (1 - share) * without.learning + share * having.learning
        self.run.log("train", forward_flops=first.forward * steps, learning_flops=learning * steps)

    def _find_costs(self, share: float | None) -> None:
        """Count the cost of a batch without and with an event, if the rule has both and the cost is not known yet.

        share: of batches with an event so far; None before the first batch.
        """
        train, network = self.data.train, self.learner.network
        credit = self.learner.credit or Gradient(network)
        # A rule without any event, or with an event at every batch, has one cost.
        kinds = 2 if share is not None and 0 < share < 1 else 1
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0)).to(train.x.device)
        whole = min(MOST_TRIES, len(train) // self.batch_size)
        for batch in order.split(self.batch_size)[:whole]:
            if len(self._costs) >= kinds:
                break
            inputs = as_input(train.x[batch], network, self.learner.image_shape)
            cost = step_cost(credit, network, inputs, self._loss(train.y[batch]))
            self._costs.setdefault(cost.events > 0, cost)

    def _loss(self, y: Tensor) -> Loss:
        """Return the losses (batch,) of the labels y as a function of the logits."""
        own = self.learner.loss if self.learner.credit is not None else None
        return lambda logits: (own or cross_entropies)(logits, y)

    def _log_angles(self) -> None:
        credit, network = self.learner.credit, self.learner.network
        assert credit is not None
        batch = stratified_sample(self.data.train, self.batch_size)
        inputs = as_input(batch.x, network, self.learner.image_shape)
        measured = gradient_angles(credit, network, inputs, self._loss(batch.y))
        for name, parameter in credit.parameters.items():
            if parameter.ndim > 1 and math.isfinite(measured[name].angle):
                self.run.log("train", {"layer": name.removesuffix(".weight")}, angle=measured[name].angle)
        if math.isfinite(measured[WHOLE].angle):
            self.run.log("train", angle=measured[WHOLE].angle)
