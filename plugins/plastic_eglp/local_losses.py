"""Local losses: each layer descends a loss of its own activity and of the labels (equation 2 of rule.py).

A layer has heads, which only serve its loss: a linear map before the similarity, and a linear classifier. The layer and
its heads learn by the gradient of this loss, and no gradient passes from one layer to another. Sizes and initial
weights are those of the published program (github.com/anokland/local-loss).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from plastic_eglp import rule
from plastic_eglp.change import LocalLoss
from plastic_eglp.windows import windows

SIMILARITY_WEIGHT = 0.99
"""beta of equation (2)."""
HEAD_RATE = 0.0005
"""Learning rate of the heads (Adam)."""

Heads = dict[str, nn.Parameter]
"""classifier (outputs, inputs) and bias (outputs,) of the prediction; similarity, the map before the similarity."""


@dataclass(frozen=True)
class Targets:
    """What the losses of a batch of n samples need in addition to the activity.

    losses: logits (n, ...) in the shape of the module's output to the losses (n,). labels: (n,), None if no similarity
    is computed. samples: n. outputs: shape of the output of one sample.
    """

    losses: Callable[[Tensor], Tensor]
    labels: Tensor | None
    samples: int
    outputs: Sequence[int]


class LocalLosses:
    """The local losses of the layers of a module, and the heads that they need.

    kind: "predsim" both losses, "pred" the prediction loss, "sim" the similarity loss. beta: of equation (2). rate:
    learning rate of the heads, which may change at any time. generator: random generator (CPU) of initial weights.
    heads: by layer; complete after the first event.
    """

    def __init__(self, kind: LocalLoss, beta: float, rate: float, generator: torch.Generator) -> None:
        self.kind, self.beta, self.rate, self.generator = kind, beta, rate, generator
        self.heads: dict[str, Heads] = {}
        self._optimizer: torch.optim.Adam | None = None

    def gradients(
        self,
        name: str,
        y: Tensor,
        learning: Sequence[nn.Parameter],
        targets: Targets,
        event: float | Tensor,
    ) -> tuple[Tensor | None, ...]:
        """Return the gradients of the loss of a layer with respect to `learning`; keep those of its heads for `step`.

        y: activity with a graph, (n, units), or maps (n, channels, height, width). event: its strength, one number or
        (n,).
        """
        heads = self.heads.get(name)
        if heads is None:
            heads = self._made(y, prod(targets.outputs))
            self._add(name, heads)
        loss = self._loss(heads, y, targets, event)
        own = list(heads.values())
        # Several layers can share a nonlinearity, such as those that meet at the end of a residual block.
        found = torch.autograd.grad(loss, [*learning, *own], allow_unused=True, retain_graph=True)
        for parameter, gradient in zip(own, found[len(learning) :], strict=True):
            parameter.grad = gradient
        return found[: len(learning)]

    def step(self) -> None:
        """Let the heads whose gradients are kept learn (Adam)."""
        if self._optimizer is not None:
            for group in self._optimizer.param_groups:
                group["lr"] = self.rate
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)

    def _loss(self, heads: Heads, y: Tensor, targets: Targets, event: float | Tensor) -> Tensor:
        """Return equation (2)."""
        parts = []
        if self.kind != "sim":
            inputs = _windows(y).flatten(1) if y.ndim == 4 else y
            logits = functional.linear(inputs, heads["classifier"], heads["bias"]).unflatten(1, tuple(targets.outputs))
            predicted = rule.prediction_loss(targets.losses(logits).to(y.dtype), event)
            parts.append(predicted if self.kind == "pred" else (1 - self.beta) * predicted)
        if self.kind != "pred":
            similar = self._similarity_loss(heads, y, targets, event)
            parts.append(similar if self.kind == "sim" else self.beta * similar)
        return torch.stack(parts).sum()

    def _similarity_loss(self, heads: Heads, y: Tensor, targets: Targets, event: float | Tensor) -> Tensor:
        assert targets.labels is not None
        labels, share = targets.labels, 1.0
        if isinstance(event, Tensor):
            chosen = event.nonzero()[:, 0]
            share = len(chosen) / len(y)
            y, labels, event = y[chosen], labels[chosen], event[chosen]
        if y.ndim == 4:
            maps = functional.conv2d(y, heads["similarity"], padding=1)
            # As published: the spread over the positions of each channel.
            varies = maps.shape[1] > 3 and maps.shape[2] > 1
            h = maps.flatten(2).std(2) if varies else maps.flatten(1)
        else:
            h = functional.linear(y, heads["similarity"])
        target = rule.label_similarity(labels, prod(targets.outputs), h.dtype)
        return share * rule.similarity_loss(rule.similarity(h), target, event)

    def _made(self, y: Tensor, outputs: int) -> Heads:
        """Return new heads: the classifier is zero apart from its bias, the map is uniform within 1 / sqrt(inputs)."""
        units = y.shape[1]
        heads: dict[str, Tensor] = {}
        if self.kind != "sim":
            inputs = _windows(y).flatten(1).shape[1] if y.ndim == 4 else units
            heads["classifier"] = torch.zeros(outputs, inputs)
            heads["bias"] = self._uniform(outputs, fan_in=inputs)
        if self.kind != "pred":
            kernel = (3, 3) if y.ndim == 4 else ()
            heads["similarity"] = self._uniform(units, units, *kernel, fan_in=units * prod(kernel))
        return {key: nn.Parameter(value.to(y)) for key, value in heads.items()}

    def _uniform(self, *shape: int, fan_in: int) -> Tensor:
        return (2 * torch.rand(shape, generator=self.generator) - 1) / math.sqrt(fan_in)

    def _add(self, name: str, heads: Heads) -> None:
        self.heads[name] = heads
        group = {"params": list(heads.values())}
        if self._optimizer is None:
            self._optimizer = torch.optim.Adam([group], lr=self.rate, fused=True)
        else:
            self._optimizer.add_param_group(group)

    def state_dict(self) -> dict[str, Any]:
        """Return the heads and the state of their optimizer."""
        heads = {name: {key: value.detach() for key, value in of.items()} for name, of in self.heads.items()}
        return {"heads": heads, "optimizer": None if self._optimizer is None else self._optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any], /, device: torch.device) -> None:
        """Restore what `state_dict` returned, on the device of the module."""
        self.heads, self._optimizer = {}, None
        for name, stored in state["heads"].items():
            self._add(name, {key: nn.Parameter(value.to(device, copy=True)) for key, value in stored.items()})
        if self._optimizer is not None:
            self._optimizer.load_state_dict(state["optimizer"])


def _windows(maps: Tensor) -> Tensor:
    """Return maps (n, channels, height, width) averaged over windows of positions, see `windows`."""
    size = maps.shape[2:]
    fewer = windows(maps.shape[1], *size)
    return maps if fewer == tuple(size) else functional.adaptive_avg_pool2d(maps, fewer)
