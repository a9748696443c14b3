"""Whole MPN sequences with their gradient: the compiled kernels on the CPU, step by step elsewhere."""

from __future__ import annotations

import math
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from plastic_mpn import rule
from plastic_mpn.kernels import sequence as compiled
from plastic_mpn.rule import Activation, Interaction, Plasticity

CACHED_MODULATIONS = 2**16
"""So many modulations of a step stay in a processor's cache until the next step."""


def mpn_sequence(
    x: Tensor,
    M: Tensor,
    starts: Tensor | None,
    W: Tensor,
    b: Tensor,
    eta: Tensor,
    lambda_: Tensor,
    *,
    activation: Activation = "tanh",
    plasticity: Plasticity = "hebbian",
    interaction: Interaction = "multiplicative",
    bound: float = math.inf,
) -> tuple[Tensor, Tensor]:
    """Return the activities (T, B, n) of a sequence x (T, B, d), and the modulations (B, n, d) behind it.

    M (B, n, d) are the modulations before it, starts (T, B) says before which steps they are set to 0; W (n, d),
    b (n,), eta and lambda_ scalars. bound: the largest |M|.
    """
    if x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64) and x.shape[0]:
        begins = torch.zeros(x.shape[:2], dtype=torch.bool) if starts is None else starts
        outputs: tuple[Tensor, Tensor] = _Sequence.apply(
            x, M, W, b, eta, lambda_, begins, activation, plasticity, interaction, bound, torch.is_grad_enabled()
        )
        return outputs
    return mpn_sequence_by_steps(
        x,
        M,
        starts,
        W,
        b,
        eta,
        lambda_,
        activation=activation,
        plasticity=plasticity,
        interaction=interaction,
        bound=bound,
    )


def mpn_sequence_by_steps(
    x: Tensor,
    M: Tensor,
    starts: Tensor | None,
    W: Tensor,
    b: Tensor,
    eta: Tensor,
    lambda_: Tensor,
    *,
    activation: Activation = "tanh",
    plasticity: Plasticity = "hebbian",
    interaction: Interaction = "multiplicative",
    bound: float = math.inf,
) -> tuple[Tensor, Tensor]:
    """Return what `mpn_sequence` returns, one `rule.step` after the other."""
    activities = []
    for t in range(x.shape[0]):
        if starts is not None:
            M = M * (~starts[t]).to(M.dtype)[:, None, None]
        h, M = rule.step(
            x[t],
            M,
            W,
            b,
            eta,
            lambda_,
            activation=activation,
            plasticity=plasticity,
            interaction=interaction,
            bound=bound,
        )
        activities.append(h)
    return torch.stack(activities) if activities else x.new_zeros(0, x.shape[1], W.shape[0]), M


def association_scale(plasticity: Plasticity, units: int, inputs: int) -> float:
    """Return what eta is multiplied by: 1, 1/sqrt(n) for "pre", 1/sqrt(d) for "post"."""
    return {"hebbian": 1.0, "pre": 1 / math.sqrt(units), "post": 1 / math.sqrt(inputs)}[plasticity]


class _Sequence(torch.autograd.Function):
    """The compiled sequence. The activation itself is torch's, so that it is exact and vectorised."""

    @staticmethod
    def forward(
        context: Any,
        x: Tensor,
        M: Tensor,
        W: Tensor,
        b: Tensor,
        eta: Tensor,
        lambda_: Tensor,
        starts: Tensor,
        activation: Activation,
        plasticity: Plasticity,
        interaction: Interaction,
        bound: float,
        learning: bool,
    ) -> tuple[Tensor, Tensor]:
        steps, samples, inputs = x.shape
        units = W.shape[0]
        kind = np.float32 if x.dtype == torch.float32 else np.float64
        gain = kind(float(eta) * association_scale(plasticity, units, inputs))
        decay, limit = kind(float(lambda_)), kind(bound)
        # In here gradients are always off, and a parameter wants one even where the caller has turned them off.
        keep = learning and any(context.needs_input_grad)
        # Without a gradient two slots take turns.
        slots = x.new_empty(steps + 1 if keep else 2, samples, inputs, units)
        slots[0] = M.transpose(1, 2)
        h = x.new_empty(steps, samples, units)
        association, additive = get_args(Plasticity).index(plasticity), interaction == "additive"
        values = x.contiguous(), h, slots, starts.contiguous()
        weights = W.t().contiguous().numpy(), b.contiguous().numpy()
        # Block by block, so that the modulations of one step are still in the cache at the next.
        block = max(1, CACHED_MODULATIONS // (inputs * units))
        for first in range(0, samples, block):
            part = tuple(each[:, first : first + block] for each in values)
            last = _forward(part, weights, gain, decay, activation, association, limit, additive, keep=keep)
        if keep:
            context.save_for_backward(x, h, slots, W, starts)
            context.settings = gain, decay, association, limit, get_args(Activation).index(activation), additive
            context.scale = association_scale(plasticity, units, inputs)
        # A copy: the caller may change it, and what is kept for the gradient may go when the gradient is taken.
        return h, slots[last].transpose(1, 2).clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, dh: Tensor, dM: Tensor) -> tuple[Tensor | None, ...]:
        x, h, slots, W, starts = context.saved_tensors
        gain, decay, association, limit, activation, additive = context.settings
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
            gain, decay, association, limit, activation, additive,
            dh.numpy(), dM.numpy(), dx.numpy(), dW.numpy(), db.numpy(), dscalars,
        )  # fmt: skip
        deta, dlambda = W.new_tensor(dscalars[0] * context.scale), W.new_tensor(dscalars[1])
        return dx, dM.transpose(1, 2), dW.t(), db, deta, dlambda, None, None, None, None, None, None


def _forward(
    values: tuple[Tensor, ...],
    weights: tuple[Any, Any],
    gain: Any,
    decay: Any,
    activation: Activation,
    association: int,
    limit: Any,
    additive: bool,
    *,
    keep: bool,
) -> int:
    """Fill h and the slots of a block of samples from x, the first slot and starts; return the last slot."""
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
    """Put f(h) in the place of h."""
    if activation == "tanh":
        h.tanh_()
    elif activation == "relu":
        h.relu_()
    elif activation == "sigmoid":
        h.sigmoid_()
