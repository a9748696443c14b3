"""MPN sequences with their gradient: compiled kernels on the CPU, one step at a time on other devices."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from plastic_mpn import rule
from plastic_mpn.kernels import sequence as compiled
from plastic_mpn.rule import Activation, Plasticity, Variant

CACHED_MODULATIONS = 2**16
"""The number of modulations that fit into a processor's cache from one step to the next."""


def mpn_sequence(
    x: Tensor,
    M: Tensor,
    starts: Tensor | None,
    W: Tensor,
    b: Tensor,
    eta: Tensor,
    lambda_: Tensor,
    variant: Variant = Variant(),  # noqa: B008  it cannot change
) -> tuple[Tensor, Tensor]:
    """Return the activities (T, B, n) of a sequence x (T, B, d), and the modulations (B, n, d) after it.

    M (B, n, d): the modulations before the sequence. starts (T, B): before which steps they are set to 0. W (n, d),
    b (n,), eta and lambda_ scalars.
    """
    if x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64) and x.shape[0]:
        begins = torch.zeros(x.shape[:2], dtype=torch.bool) if starts is None else starts
        call = _Call(begins, variant, torch.is_grad_enabled())
        outputs: tuple[Tensor, Tensor] = _Sequence.apply(x, M, W, b, eta, lambda_, call)
        return outputs
    return mpn_sequence_by_steps(x, M, starts, W, b, eta, lambda_, variant)


def mpn_sequence_by_steps(
    x: Tensor,
    M: Tensor,
    starts: Tensor | None,
    W: Tensor,
    b: Tensor,
    eta: Tensor,
    lambda_: Tensor,
    variant: Variant = Variant(),  # noqa: B008  it cannot change
) -> tuple[Tensor, Tensor]:
    """Return the same as `mpn_sequence`, computed with one `rule.step` after the other."""
    activities = []
    for t in range(x.shape[0]):
        if starts is not None:
            M = M * (~starts[t]).to(M.dtype)[:, None, None]
        h, M = rule.step(x[t], M, W, b, eta, lambda_, variant)
        activities.append(h)
    return torch.stack(activities) if activities else x.new_zeros(0, x.shape[1], W.shape[0]), M


def association_scale(plasticity: Plasticity, units: int, inputs: int) -> float:
    """Return the factor of eta in `rule.association`: 1, 1/sqrt(n) for "pre", 1/sqrt(d) for "post"."""
    return {"hebbian": 1.0, "pre": 1 / math.sqrt(units), "post": 1 / math.sqrt(inputs)}[plasticity]


class _Call(NamedTuple):
    """The arguments of a sequence that have no gradient.

    starts (T, B). learning: whether the caller records gradients.
    """

    starts: Tensor
    variant: Variant
    learning: bool


class _Constants(NamedTuple):
    """Numbers that the kernels take, in the type of the arrays."""

    gain: Any
    decay: Any
    association: int
    limit: Any
    additive: bool


class _Sequence(torch.autograd.Function):
    """The compiled sequence. The activation function is torch's, which is exact and vectorized."""

    @staticmethod
    def forward(
        context: Any, x: Tensor, M: Tensor, W: Tensor, b: Tensor, eta: Tensor, lambda_: Tensor, call: _Call
    ) -> tuple[Tensor, Tensor]:
        steps, samples, inputs = x.shape
        units = W.shape[0]
        variant = call.variant
        kind = np.float32 if x.dtype == torch.float32 else np.float64
        scale = association_scale(variant.plasticity, units, inputs)
        constants = _Constants(
            gain=kind(float(eta) * scale),
            decay=kind(float(lambda_)),
            association=get_args(Plasticity).index(variant.plasticity),
            limit=kind(variant.bound),
            additive=variant.interaction == "additive",
        )
        # Gradients are always off in `forward`, and `needs_input_grad` ignores that the caller has turned them off.
        keep = call.learning and any(context.needs_input_grad)
        # Without a gradient, the steps alternate between two slots.
        slots = x.new_empty(steps + 1 if keep else 2, samples, inputs, units)
        slots[0] = M.transpose(1, 2)
        h = x.new_empty(steps, samples, units)
        values = x.contiguous(), h, slots, call.starts.contiguous()
        weights = W.t().contiguous().numpy(), b.contiguous().numpy()
        # Block by block, so that the modulations of one step are still in the cache at the next.
        block = max(1, CACHED_MODULATIONS // (inputs * units))
        for first in range(0, samples, block):
            part = tuple(each[:, first : first + block] for each in values)
            last = _forward(part, weights, constants, variant.activation, keep=keep)
        if keep:
            context.save_for_backward(x, h, slots, W, call.starts)
            context.constants, context.scale = constants, scale
            context.activation = get_args(Activation).index(variant.activation)
        # A copy, because the caller may change it while the original is still needed for the gradient.
        return h, slots[last].transpose(1, 2).clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, dh: Tensor, dM: Tensor) -> tuple[Tensor | None, ...]:
        x, h, slots, W, starts = context.saved_tensors
        gain, decay, association, limit, additive = context.constants
        dh = dh.clone(memory_format=torch.contiguous_format)
        dM = dM.transpose(1, 2).clone(memory_format=torch.contiguous_format)
        dx, dW, db = (
            torch.zeros_like(x, memory_format=torch.contiguous_format),
            torch.zeros_like(W.t()),
            W.new_zeros(W.shape[0]),
        )
        dW = dW.contiguous()
        dscalars = np.zeros(2)
        compiled.backward(
            x.contiguous().numpy(), h.numpy(), slots.numpy(), starts.contiguous().numpy(), W.t().contiguous().numpy(),
            gain, decay, association, limit, context.activation, additive,
            dh.numpy(), dM.numpy(), dx.numpy(), dW.numpy(), db.numpy(), dscalars,
        )  # fmt: skip
        deta, dlambda = W.new_tensor(dscalars[0] * context.scale), W.new_tensor(dscalars[1])
        return dx, dM.transpose(1, 2), dW.t(), db, deta, dlambda, None


def _forward(
    values: tuple[Tensor, ...],
    weights: tuple[Any, Any],
    constants: _Constants,
    activation: Activation,
    *,
    keep: bool,
) -> int:
    """Fill h and the slots of a block of samples from x, the first slot and starts; return the last slot."""
    gain, decay, association, limit, additive = constants
    h = values[1]
    x_values, h_values, M_values, begins = (each.numpy() for each in values)
    compiled.first_sums(x_values[0], M_values[0], begins[0], *weights, additive, h_values[0])
    slot, steps = 0, len(h)
    for t in range(steps):
        activate_in_place(h[t], activation)
        following = t + 1 if keep else 1 - slot
        if t + 1 < steps:
            compiled.next_sums(
                x_values[t], h_values[t], M_values[slot], M_values[following], x_values[t + 1], begins[t + 1],
                *weights, gain, decay, association, limit, additive, h_values[t + 1],
            )  # fmt: skip
        else:
            compiled.last_modulations(
                x_values[t], h_values[t], M_values[slot], M_values[following], gain, decay, association, limit
            )
        slot = following
    return slot


def activate_in_place(h: Tensor, activation: Activation) -> None:
    """Replace h with f(h)."""
    if activation == "tanh":
        h.tanh_()
    elif activation == "relu":
        h.relu_()
    elif activation == "sigmoid":
        h.sigmoid_()
