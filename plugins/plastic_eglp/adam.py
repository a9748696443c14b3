"""Adam's step along given gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim.adam import adam


def adam_step(optimizer: torch.optim.Adam, gradients: Sequence[Tensor]) -> None:
    """Take the fused step of `optimizer` along the gradients of its parameters. It has one group of them.

    `optimizer.step()` computes the same. In a loop with large matrix products most of its time is for what it does
    around the step.
    """
    (group,) = optimizer.param_groups
    parameters = group["params"]
    if not optimizer.state:
        # The first step creates the state.
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
        optimizer.zero_grad()
        return
    states = [optimizer.state[parameter] for parameter in parameters]
    beta1, beta2 = group["betas"]
    adam(
        parameters,
        list(gradients),
        [state["exp_avg"] for state in states],
        [state["exp_avg_sq"] for state in states],
        [],
        [state["step"] for state in states],
        fused=True,
        amsgrad=False,
        beta1=beta1,
        beta2=beta2,
        lr=group["lr"],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        maximize=group["maximize"],
    )
