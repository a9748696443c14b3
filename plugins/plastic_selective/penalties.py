"""Penalties on leaving the parameters of earlier tasks: online elastic weight consolidation, synaptic intelligence.

Both add a parabola for each parameter to the loss, around its value at the end of the last task. A training step:

    loss.backward()
    penalty.after_backward()
    penalty.add_gradients()
    optimizer.step()
    penalty.after_step()
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap

from plastic_cli.errors import UserError, did_you_mean

Labels = Literal["expected", "drawn"]
Logits = Callable[[Tensor], Tensor]
CHUNK = 2**21
"""So many squared derivatives are computed at once."""


class Penalty(Protocol):
    """What the training loop asks of a penalty."""

    def after_backward(self) -> None:
        """Look at the gradients of the task's loss, before anything is added to them."""

    def add_gradients(self) -> None:
        """Add the gradient of the penalty to the parameters' gradients."""

    def after_step(self) -> None:
        """Look at what the optimizer did to the parameters."""

    def end_task(self, x: Tensor, logits: Logits, /) -> None:
        """Take note of what matters to the task that was just learned from images x (n, features)."""

    def penalty(self) -> Tensor:
        """Return the value of the penalty, one number that can be differentiated."""

    def state_dict(self) -> dict[str, Any]:
        """Return everything that later steps depend on."""

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Take back what `state_dict` returned."""


class _Parabola:
    """The sum over parameters of factor * importance * (theta - anchor)^2, for parameters that require a gradient.

    importance is 0 until the first task has ended, and the anchor where the parameters are when this is made.
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
        """Add 2 * factor * importance * (theta - anchor) to the parameters' gradients; nothing in the first task."""
        if not self.tasks:
            return
        for parameter in self._parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        moved = torch._foreach_sub(self._parameters, self._anchor)
        torch._foreach_addcmul_(self._gradients(), self._importance, moved, value=2 * self._factor)

    def penalty(self) -> Tensor:
        """Return the value of the penalty, one number that can be differentiated."""
        return self._factor * sum(
            (
                (importance * (parameter - anchor).square()).sum()
                for importance, parameter, anchor in zip(self._importance, self._parameters, self._anchor, strict=True)
            ),
            torch.zeros(()),
        )

    def importance(self) -> dict[str, Tensor]:
        """Return how much each parameter matters to the tasks so far, by the parameter's name."""
        return dict(zip(self._names, self._importance, strict=True))

    def _gradients(self) -> list[Tensor]:
        """Return the parameters' gradients, zeros where the loss did not reach."""
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
        """Return the number of tasks, importances and anchors, by the parameters' names."""
        return {
            "tasks": self.tasks,
            "importance": self._by_name(self._importance),
            "anchor": self._by_name(self._anchor),
        }

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Take back what `state_dict` returned."""
        self.tasks = int(state["tasks"])
        self._restore(self._importance, state["importance"])
        self._restore(self._anchor, state["anchor"])


class OnlineEWC(_Parabola):
    """Elastic weight consolidation: lambda / 2 sum_i F_i (theta_i - theta*_i)^2 (Kirkpatrick et al. 2017).

    Online as in Schwarz et al. 2018: theta* are the parameters after the latest task, and after every task
    F <- gamma F + F_task. They also multiply the penalty by gamma, which here is left to lambda.

    strength: lambda. decay: gamma, 1 forgets nothing. samples: how many images of a task, chosen at random, F_task is
    estimated from (`diagonal_fisher`, where `labels` is explained). The model has to be on its device already.

    Raises UserError for impossible values.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        strength: float,
        decay: float,
        samples: int,
        generator: torch.Generator,
        labels: Labels = "expected",
    ) -> None:
        super().__init__(model, _checked("strength", strength) / 2)
        if not 0 <= decay <= 1:
            raise UserError(f"decay {decay:g} is impossible: give a number from 0 (the last task alone) to 1 (all).")
        if samples < 1:
            raise UserError(f"samples {samples} is impossible: the Fisher information needs at least 1 image.")
        self._model = model
        self._decay = decay
        self._samples = samples
        self._generator = generator
        self._labels = labels

    def after_backward(self) -> None:
        """Do nothing."""

    def after_step(self) -> None:
        """Do nothing."""

    def end_task(self, x: Tensor, logits: Logits, /) -> None:
        """Add the Fisher information of the task learned from images x (n, features), and move the anchor.

        logits: images to the logits that the task was trained with, through the model, masked as in training.
        """
        if len(x) > self._samples:
            x = x[torch.randperm(len(x), generator=self._generator)[: self._samples].to(x.device)]
        fisher = diagonal_fisher(self._model, x, logits, self._labels, self._generator)
        torch._foreach_mul_(self._importance, self._decay)
        torch._foreach_add_(self._importance, [fisher[name] for name in self._names])
        self._fix_anchor()

    def state_dict(self) -> dict[str, Any]:
        """Return the number of tasks, Fisher information, anchors, and the generator's state."""
        return {**super().state_dict(), "generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Take back what `state_dict` returned."""
        super().load_state_dict(state)
        self._generator.set_state(state["generator"].cpu())


class SynapticIntelligence(_Parabola):
    """Synaptic intelligence: c sum_i Omega_i (theta_i - theta~_i)^2 (Zenke, Poole and Ganguli 2017).

    Along a task omega_i sums -g_i dtheta_i, with g the gradient of the task's loss alone and dtheta what the optimizer
    did, the penalty included. At the task's end Omega_i <- max(0, Omega_i + omega_i / (Delta_i^2 + xi)), with
    Delta_i the way from the task's start to its end, and theta~ are the parameters there.

    The maximum is not in the paper but in its authors' program: omega_i is negative where a parameter moved against
    its gradient on balance, and a negative Omega_i would reward leaving theta~ without limit.

    With whole gradients and small steps the omega_i sum to the fall of the loss. With gradients of batches they sum to
    more, as every step follows the noise of the very batch that measures it (Benzing 2022, AISTATS).

    strength: c. damping: xi. The model has to be on its device already. Raises UserError for impossible values.
    """

    def __init__(self, model: nn.Module, *, strength: float, damping: float) -> None:
        super().__init__(model, _checked("strength", strength))
        if not 0 < damping < math.inf:
            raise UserError(f"damping {damping:g} is impossible: give a number above 0.")
        self._damping = damping
        self._path = [torch.zeros_like(anchor) for anchor in self._anchor]
        self._gradient = [torch.zeros_like(anchor) for anchor in self._anchor]
        self._before = [anchor.clone() for anchor in self._anchor]
        self._in_step = False

    @torch.no_grad()
    def after_backward(self) -> None:
        """Keep the gradients of the task's loss, and the parameters at which they were taken."""
        torch._foreach_copy_(self._gradient, self._gradients())
        torch._foreach_copy_(self._before, self._parameters)
        self._in_step = True

    @torch.no_grad()
    def after_step(self) -> None:
        """Add -g dtheta of this step to the path. Raises RuntimeError where `after_backward` was not called before."""
        if not self._in_step:
            raise RuntimeError("call after_backward() between loss.backward() and optimizer.step()")
        self._in_step = False
        torch._foreach_sub_(self._before, self._parameters)
        torch._foreach_addcmul_(self._path, self._gradient, self._before)

    @torch.no_grad()
    def end_task(self, _x: Tensor | None = None, _logits: Logits | None = None, /) -> None:
        """Turn the path into importance, and move the anchor; images and logits are not looked at."""
        scale = torch._foreach_sub(self._parameters, self._anchor)
        torch._foreach_mul_(scale, scale)
        torch._foreach_add_(scale, self._damping)
        torch._foreach_addcdiv_(self._importance, self._path, scale)
        torch._foreach_clamp_min_(self._importance, 0.0)
        torch._foreach_zero_(self._path)
        self._fix_anchor()

    def state_dict(self) -> dict[str, Any]:
        """Return the number of tasks, importances, anchors and the path so far, by the parameters' names."""
        return {**super().state_dict(), "path": self._by_name(self._path)}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Take back what `state_dict` returned, as it is between two steps."""
        super().load_state_dict(state)
        self._restore(self._path, state["path"])
        self._in_step = False


def diagonal_fisher(
    model: nn.Module,
    x: Tensor,
    logits: Logits,
    labels: Labels = "expected",
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """Return the diagonal of the Fisher information of the model's answers to images x (n, features), by parameter.

    F_i is the mean over images of E_y (d log p(y | x) / d theta_i)^2, with y distributed as the model's own answer p,
    the softmax of the logits; labels of the data do not enter, so that this is not the empirical Fisher information.
    labels: "expected" computes the expectation over y, which takes a derivative for every output; "drawn" draws one y
    for each image with `generator` (on the CPU), which has the same expectation and a large variance where the model
    is sure. Every image is differentiated on its own: squares of gradients of a batch would let images cancel.

    logits: images (n, features) to logits (n, outputs), by a call of the model; outputs that are not allowed may be
    masked with minus infinity. The model is in evaluation mode meanwhile. Raises UserError for an unknown `labels`,
    and where the logits do not depend on the model's parameters, as under `torch.no_grad`.
    """
    if labels not in get_args(Labels):
        raise UserError(f"unknown labels '{labels}'.{did_you_mean(labels, get_args(Labels))} expected or drawn?")
    parameters = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    total = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    call, layers = _Call(model, logits), _linear_layers(model)
    with _evaluating(model):
        targets, weights = _targets(call, x, labels, generator)
        if layers is None or not _add_squares_by_layer(total, layers, logits, x, targets, weights):
            _add_squares_by_image(total, parameters, call, x, targets, weights)
    return {name: squares / len(x) for name, squares in total.items()}


def _linear_layers(model: nn.Module) -> dict[str, nn.Linear] | None:
    """Return the layers that learn where they are plain linear layers that share nothing, and None elsewhere.

    They go by the beginning of their parameters' names.
    """
    layers = {
        f"{name}." if name else "": module
        for name, module in model.named_modules()
        if type(module) is nn.Linear and _learning(module)
    }
    owned = [id(p) for layer in layers.values() for p in _learning(layer)]
    return layers if sorted(owned) == sorted(id(p) for p in _learning(model)) else None


def _learning(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def _add_squares_by_layer(
    total: dict[str, Tensor],
    layers: dict[str, nn.Linear],
    logits: Logits,
    x: Tensor,
    targets: Tensor,
    weights: Tensor,
) -> bool:
    """Add the weighted squares of derivatives to `total`; return False, with nothing added, where this does not apply.

    The derivative of one image by a weight is a product, of the derivative by the layer's output and of its input. The
    sum of its squares over images then is one product of two matrices of squares. This needs each layer to be called
    once, on one row per image, and images that do not influence each other, which evaluation mode sees to.
    """
    calls: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in layers}

    def keep(name: str, inputs: Tensor, output: Tensor) -> Tensor:
        calls[name].append((inputs.detach().square(), output))
        # What follows may change its input in place, as ReLU can; it gets a copy.
        return output.clone()

    hooks = [
        layer.register_forward_hook(lambda _, inputs, output, name=name: keep(name, inputs[0], output))
        for name, layer in layers.items()
    ]
    try:
        with torch.enable_grad():
            log_probabilities = logits(x).log_softmax(dim=-1)
    finally:
        for hook in hooks:
            hook.remove()
    if any(len(once) != 1 or once[0][0].shape[:-1] != (len(x),) for once in calls.values()):
        return False
    outputs = [once[0][1] for once in calls.values()]
    squares = [torch.zeros_like(output) for output in outputs]
    for target, weight in zip(targets.unbind(1), weights.unbind(1), strict=True):
        derivatives = torch.autograd.grad(log_probabilities, outputs, target, retain_graph=True, materialize_grads=True)
        for sums, derivative in zip(squares, derivatives, strict=True):
            sums.addcmul_(derivative.square(), weight[:, None])
    for (name, ((squared_inputs, _),)), sums in zip(calls.items(), squares, strict=True):
        if f"{name}weight" in total:
            total[f"{name}weight"] += sums.T @ squared_inputs
        if f"{name}bias" in total:
            total[f"{name}bias"] += sums.sum(dim=0)
    return True


def _add_squares_by_image(
    total: dict[str, Tensor],
    parameters: dict[str, Tensor],
    call: _Call,
    x: Tensor,
    targets: Tensor,
    weights: Tensor,
) -> None:
    """Add the weighted squares of derivatives to `total`, from the derivatives of every image, for any model."""

    def derivatives(image: Tensor, of: Tensor) -> dict[str, Tensor]:
        def log_probabilities(values: dict[str, Tensor]) -> Tensor:
            named = {f"model.{name}": value for name, value in values.items()}
            answer: Tensor = functional_call(call, named, (image[None],))
            return answer[0].log_softmax(dim=-1)

        pull_back = vjp(log_probabilities, parameters)[1]
        rows: dict[str, Tensor] = vmap(pull_back)(of)[0]
        return rows

    chunk = max(1, CHUNK // (targets.shape[1] * sum(p.numel() for p in parameters.values())))
    for images, target, weight in zip(x.split(chunk), targets.split(chunk), weights.split(chunk), strict=True):
        for name, rows in vmap(derivatives)(images, target).items():
            total[name] += torch.tensordot(weight, rows.square_(), dims=2)


class _Call(nn.Module):
    """A function that calls a model, as a module with the model's parameters, which can then be replaced."""

    def __init__(self, model: nn.Module, function: Logits) -> None:
        super().__init__()
        self.model = model
        # In a tuple, as a function that is a module (the model itself, often) would be registered: parameters that are
        # found by two names are not put back as they were.
        self.function = (function,)

    def forward(self, x: Tensor) -> Tensor:
        return self.function[0](x)


def _targets(call: _Call, x: Tensor, labels: Labels, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Return y in one-hot code for every image, (n, labels, outputs), and how much each counts, (n, labels)."""
    learning = _learning(call.model)
    with torch.enable_grad():
        answers = call(x)
        reached = torch.autograd.grad(answers.sum(), learning, allow_unused=True) if answers.requires_grad else ()
    if all(gradient is None for gradient in reached):
        raise UserError(
            "the logits do not depend on the model's parameters: compute them by the model, with gradients."
        )
    probabilities = answers.detach().softmax(dim=-1)
    every = torch.eye(answers.shape[1], dtype=answers.dtype, device=x.device)
    if labels == "expected":
        return every.expand(len(x), -1, -1), probabilities
    drawn = torch.multinomial(probabilities.cpu(), 1, generator=generator).to(x.device)
    return every[drawn], torch.ones_like(probabilities[:, :1])


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put the model into evaluation mode, where images do not influence each other, and every module back after."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _checked(name: str, value: float) -> float:
    if not 0 <= value < math.inf:
        raise UserError(f"{name} {value:g} is impossible: give a number of 0 or more.")
    return value
