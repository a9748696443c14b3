"""The multi-plasticity network (MPN) as equations.

Source: Aitken & Mihalas, "Neural population dynamics of computing with synaptic modulations", eLife 12:e83035 (2023).

    h_t = f(b + (W * (M_{t-1} + 1)) x_t)            Eq 1, with a bias
    M_t = lambda M_{t-1} + eta h_t x_t^T,  M_0 = 0   Hebbian ("associative") modulation
    |M_t| <= bound                                   if modulations are bounded (Methods)

`*` is the elementwise product. x (batch, d) is the input, h (batch, n) the activity, W (n, d) the weights, which change
during training only, and M (batch, n, d) the modulations, which change with every input and are the only memory of the
network. All quantities are dimensionless.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Plasticity = Literal["hebbian", "pre", "post"]
Interaction = Literal["multiplicative", "additive"]
Activation = Literal["tanh", "relu", "sigmoid", "linear"]


@dataclass(frozen=True)
class Variant:
    """The form of the network.

    activation: f. plasticity: what eta multiplies in the update of M, see `association`. interaction: whether M scales
    the weights or is added to them. bound: the largest |M|.
    """

    activation: Activation = "tanh"
    plasticity: Plasticity = "hebbian"
    interaction: Interaction = "multiplicative"
    bound: float = math.inf


def preactivation(
    x: Tensor, M: Tensor, W: Tensor, b: Tensor | None, interaction: Interaction = "multiplicative"
) -> Tensor:
    """Return the preactivation (batch, n): b + (W * (M + 1)) x, or b + (W + M) x if the modulation is additive.

    x (batch, d), M (batch, n, d), W (n, d), b (n,) or None.
    """
    modulation = W * M if interaction == "multiplicative" else M
    return functional.linear(x, W, b) + torch.matmul(modulation, x.unsqueeze(-1)).squeeze(-1)


def activate(a: Tensor, activation: Activation) -> Tensor:
    """Return f(a), elementwise."""
    if activation == "tanh":
        return torch.tanh(a)
    if activation == "relu":
        return torch.relu(a)
    if activation == "sigmoid":
        return torch.sigmoid(a)
    return a


def slope(h: Tensor, activation: Activation) -> Tensor:
    """Return the derivative f'(a) as a function of h = f(a); for relu it is 0 at 0."""
    if activation == "tanh":
        return 1 - h * h
    if activation == "relu":
        return (h > 0).to(h.dtype)
    if activation == "sigmoid":
        return h * (1 - h)
    return torch.ones_like(h)


def association(h: Tensor, x: Tensor, plasticity: Plasticity = "hebbian") -> Tensor:
    """Return what eta multiplies, (batch, n, d): h x^T, or only one of its factors.

    pre: 1 x^T / sqrt(n) (MPNpre); post: h 1^T / sqrt(d). h (batch, n), x (batch, d).
    """
    if plasticity == "pre":
        return (x / math.sqrt(h.shape[-1])).unsqueeze(-2).expand(*h.shape, x.shape[-1])
    if plasticity == "post":
        return (h / math.sqrt(x.shape[-1])).unsqueeze(-1).expand(*h.shape, x.shape[-1])
    return h.unsqueeze(-1) * x.unsqueeze(-2)


def modulation_update(
    M: Tensor,
    h: Tensor,
    x: Tensor,
    eta: Tensor | float,
    lambda_: Tensor | float,
    plasticity: Plasticity = "hebbian",
    bound: float = math.inf,
) -> Tensor:
    """Return M_t = lambda M_{t-1} + eta association(h_t, x_t), clipped to +-bound: (batch, n, d)."""
    new = lambda_ * M + eta * association(h, x, plasticity)
    return new if math.isinf(bound) else new.clamp(-bound, bound)


def step(
    x: Tensor,
    M: Tensor,
    W: Tensor,
    b: Tensor | None,
    eta: Tensor | float,
    lambda_: Tensor | float,
    variant: Variant = Variant(),
) -> tuple[Tensor, Tensor]:
    """Return (h_t, M_t) from (x_t, M_{t-1}), with the shapes (batch, n) and (batch, n, d)."""
    h = activate(preactivation(x, M, W, b, variant.interaction), variant.activation)
    return h, modulation_update(M, h, x, eta, lambda_, variant.plasticity, variant.bound)
