"""Penalties that keep parameters near their values for earlier tasks: online EWC and synaptic intelligence.

Both add a quadratic term for each parameter to the loss, around its value at the end of the last task. The calls in a
training step:

    loss.backward()
    penalty.after_backward()
    penalty.add_gradients()
    optimizer.step()
    penalty.after_step()
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from plastic_cli.errors import UserError
from plastic_selective.continual.fisher import Logits, diagonal_fisher


class Penalty(Protocol):
    """The methods that the training loop calls."""

    def after_backward(self) -> None:
        """Read the gradients of the task's loss, before the gradient of the penalty is added."""

    def add_gradients(self) -> None:
        """Add the gradient of the penalty to the parameters' gradients."""

    def after_step(self) -> None:
        """Read the parameters after the optimizer's step."""

    def end_task(self, x: Tensor, logits: Logits, /) -> None:
        """Update the importance of the parameters after a task with images x (n, features)."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state that later steps depend on."""

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Restore the state that `state_dict` returned."""


class QuadraticPenalty:
    """The penalty factor * sum_i importance_i (theta_i - anchor_i)^2 over parameters that require a gradient.

    The importance is 0 until the first task has ended. The first anchor is the parameters at construction.
    """

    def __init__(self, model: nn.Module, factor: float) -> None:
        named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self._names = list(named)
        self._parameters: list[Tensor] = list(named.values())
        self._factor = factor
        self._importance = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._anchor = [parameter.detach().clone() for parameter in self._parameters]
        self.tasks = 0

    @torch.no_grad()
    def add_gradients(self) -> None:
        """Add 2 * factor * importance * (theta - anchor) to the gradients; nothing in the first task."""
        if not self.tasks:
            return
        for parameter in self._parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        moved = torch._foreach_sub(self._parameters, self._anchor)
        torch._foreach_addcmul_(self._gradients(), self._importance, moved, value=2 * self._factor)

    def _gradients(self) -> list[Tensor]:
        """Return the gradients of the parameters, zeros for parameters that the loss does not depend on."""
        return [torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters]

    @torch.no_grad()
    def _fix_anchor(self) -> None:
        torch._foreach_copy_(self._anchor, self._parameters)
        self.tasks += 1

    def _by_name(self, tensors: list[Tensor]) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in zip(self._names, tensors, strict=True)}

    def _restore(self, tensors: list[Tensor], stored: dict[str, Tensor]) -> None:
        for name, tensor in zip(self._names, tensors, strict=True):
            tensor.copy_(stored[name])

    def state_dict(self) -> dict[str, Any]:
        """Return the number of tasks, and the importance and the anchor of each parameter by its name."""
        return {
            "tasks": self.tasks,
            "importance": self._by_name(self._importance),
            "anchor": self._by_name(self._anchor),
        }

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Restore the state that `state_dict` returned."""
        self.tasks = int(state["tasks"])
        self._restore(self._importance, state["importance"])
        self._restore(self._anchor, state["anchor"])


class OnlineEWC(QuadraticPenalty):
    """Elastic weight consolidation: lambda / 2 sum_i F_i (theta_i - theta*_i)^2 (Kirkpatrick et al. 2017).

    This is the online variant of Schwarz et al. 2018: theta* are the parameters after the latest task, and after every
    task F <- gamma F + F_task. Schwarz et al. also multiply the penalty by gamma; here lambda includes that factor.

    strength: lambda. decay: gamma; 1 keeps all old importance. samples: number of images, drawn at random from a task,
    for F_task (`diagonal_fisher`). Move the model to its device first.

    Raises UserError if a value is out of range.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        strength: float,
        decay: float,
        samples: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__(model, _checked("strength", strength) / 2)
        if not 0 <= decay <= 1:
            raise UserError(
                f"decay is {decay:g}: it must be from 0 (only the last task counts) to 1 (all tasks count)."
            )
        if samples < 1:
            raise UserError(f"samples is {samples}: it must be at least 1.")
        self._model = model
        self._decay = decay
        self._samples = samples
        self._generator = generator

    def after_backward(self) -> None:
        """Do nothing."""

    def after_step(self) -> None:
        """Do nothing."""

    def end_task(self, x: Tensor, logits: Logits, /) -> None:
        """Add the Fisher information of the task with images x (n, features), and set the anchor.

        logits: maps images to logits as in training, with the same mask.
        """
        if len(x) > self._samples:
            x = x[torch.randperm(len(x), generator=self._generator)[: self._samples].to(x.device)]
        fisher = diagonal_fisher(self._model, x, logits)
        torch._foreach_mul_(self._importance, self._decay)
        torch._foreach_add_(self._importance, [fisher[name] for name in self._names])
        self._fix_anchor()

    def state_dict(self) -> dict[str, Any]:
        """Return the number of tasks, Fisher information, anchors and the state of the generator."""
        return {**super().state_dict(), "generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Restore the state that `state_dict` returned."""
        super().load_state_dict(state)
        self._generator.set_state(state["generator"].cpu())


class SynapticIntelligence(QuadraticPenalty):
    """Synaptic intelligence: c sum_i Omega_i (theta_i - theta~_i)^2 (Zenke, Poole and Ganguli 2017).

    During a task omega_i sums -g_i dtheta_i. g is the gradient of the task's loss without the penalty; dtheta is the
    optimizer's step, which includes the penalty. At the end of a task Omega_i <- max(0, Omega_i + omega_i /
    (Delta_i^2 + xi)), where Delta_i is the change of theta_i during the task. theta~ are the parameters at that time.

    The maximum with 0 is not in the paper, but in its authors' program. omega_i is negative if a parameter moved
    against its gradient overall. A negative Omega_i would reward moving away from theta~ without limit.

    With full gradients and small steps, the omega_i sum to the decrease of the loss. With batches the sum is larger,
    because each step follows the noise of the batch that measures it (Benzing 2022, AISTATS).

    strength: c. damping: xi. Move the model to its device first. Raises UserError if a value is out of range.
    """

    def __init__(self, model: nn.Module, *, strength: float, damping: float) -> None:
        super().__init__(model, _checked("strength", strength))
        if not 0 < damping < math.inf:
            raise UserError(f"damping is {damping:g}: it must be a number above 0.")
        self._damping = damping
        self._path = [torch.zeros_like(anchor) for anchor in self._anchor]
        self._gradient = [torch.zeros_like(anchor) for anchor in self._anchor]
        self._before = [anchor.clone() for anchor in self._anchor]
        self._in_step = False

    @torch.no_grad()
    def after_backward(self) -> None:
        """Store the gradients of the task's loss and the parameters before the step."""
        torch._foreach_copy_(self._gradient, self._gradients())
        torch._foreach_copy_(self._before, self._parameters)
        self._in_step = True

    @torch.no_grad()
    def after_step(self) -> None:
        """Add -g dtheta of this step to the path. Raises RuntimeError if `after_backward` was not called before."""
        if not self._in_step:
            raise RuntimeError("call after_backward() between loss.backward() and optimizer.step()")
        self._in_step = False
        torch._foreach_sub_(self._before, self._parameters)
        torch._foreach_addcmul_(self._path, self._gradient, self._before)

    @torch.no_grad()
    def end_task(self, _x: Tensor | None = None, _logits: Logits | None = None, /) -> None:
        """Turn the path into importance, and set the anchor. Images and logits are not used."""
        scale = torch._foreach_sub(self._parameters, self._anchor)
        torch._foreach_mul_(scale, scale)
        torch._foreach_add_(scale, self._damping)
        torch._foreach_addcdiv_(self._importance, self._path, scale)
        torch._foreach_clamp_min_(self._importance, 0.0)
        torch._foreach_zero_(self._path)
        self._fix_anchor()

    def state_dict(self) -> dict[str, Any]:
        """Return the number of tasks, and importance, anchor and path of each parameter by its name."""
        return {**super().state_dict(), "path": self._by_name(self._path)}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Restore the state that `state_dict` returned between two steps."""
        super().load_state_dict(state)
        self._restore(self._path, state["path"])
        self._in_step = False


def _checked(name: str, value: float) -> float:
    if not 0 <= value < math.inf:
        raise UserError(f"{name} is {value:g}: it must be a number of at least 0.")
    return value
