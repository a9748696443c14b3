"""One step of one parameter: by the equations of `rule.py` in whole tensors, or by the compiled kernels."""

from __future__ import annotations

import functools
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from plastic_selective import rule
from plastic_selective.optimizer.state import measure_threshold, state_type, step_number


def update_parameter(parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
    """Update a parameter and its state in place. The step goes against `gradient`."""
    update = _update_sgd if group["base"] == "sgd" else _update_adam
    if not group["weight_decay"]:
        update(parameter, gradient, state, group)
        return
    # Decay and step of a 16-bit parameter are rounded together. Rounded alone, most decays would be lost.
    precise = parameter.to(state_type(parameter))
    kept = _number(1 - group["lr"] * group["weight_decay"])
    precise.mul_(kept.to(precise.device) if isinstance(kept, Tensor) else kept)
    update(precise, gradient, state, group)
    if precise is not parameter:
        parameter.copy_(precise)


def _update_sgd(parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
    eligibility = state["eligibility"]
    if _fits_kernels(group, parameter, gradient, eligibility):
        _threads().step_sgd(parameter, gradient, eligibility, state["step"].item(), group)
        return
    precise = gradient.to(state_type(parameter))
    eligibility.copy_(rule.updated_eligibility(eligibility, precise, group["trace_decay"]))
    direction = gradient if group["plasticity_k"] == 0 else gate_of(precise, state, group) * precise
    lr = _number(group["lr"])
    if isinstance(lr, Tensor):
        parameter.sub_(lr.to(parameter.device) * direction)
    else:
        parameter.add_(direction, alpha=-lr)


def _update_adam(parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
    m, v = state["exp_avg"], state["exp_avg_sq"]
    first, second = group["betas"]
    step = step_number(state["step"])
    if not isinstance(step, Tensor) and _fits_kernels(group, parameter, gradient, m, v):
        largest = _threads().update_second_moment(gradient, v, group)
        measure_threshold(state, group)
        threshold = state["threshold"].item() * _bias_growth(state, group)
        _threads().step_adam(parameter, gradient, m, v, step, threshold, largest, group)
        return
    gradient = gradient.to(state_type(parameter))
    m.lerp_(gradient, 1 - first)
    v.mul_(second).addcmul_(gradient, gradient, value=1 - second)
    measure_threshold(state, group)
    direction = m if group["plasticity_k"] == 0 else gate_of(gradient, state, group) * m
    denominator = (v.sqrt() / (1 - second**step) ** 0.5).add_(group["eps"])
    size = _number(group["lr"] / (1 - first**step))
    if isinstance(size, Tensor):
        parameter.sub_(size.to(parameter.device) * direction / denominator)
    else:
        parameter.addcdiv_(direction, denominator, value=-size)


def eligibility_of(state: dict[str, Tensor], group: dict[str, Any]) -> Tensor:
    """Return the eligibility of each synapse, in units of the gradient."""
    if group["base"] == "sgd":
        return state["eligibility"].clone()
    unbiased: Tensor = state["exp_avg_sq"] / (1 - group["betas"][1] ** max(1.0, state["step"].item()))
    return unbiased.sqrt_()


def busy_of(state: dict[str, Tensor], group: dict[str, Any]) -> Tensor:
    """Return how busy each synapse is: 0 to 1 with base "sgd", 0 or 1 with base "adam"."""
    if group["base"] == "sgd":
        return rule.share_of_largest(state["eligibility"], group["eps"])
    return rule.above_threshold(state["exp_avg_sq"], state["threshold"] * _bias_growth(state, group))


def gate_of(gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> Tensor:
    """Return the gate of each synapse for this gradient, after the warm-up factor."""
    surprise = rule.share_of_largest(gradient.abs(), group["eps"])
    gate = rule.gate(busy_of(state, group), surprise, group["plasticity_k"])
    gate = rule.warmed_up(gate, step_number(state["step"]), group["warmup_steps"])
    return gate.mean().expand_as(gate) if group["gating"] == "uniform" else gate


def dense(gradient: Tensor) -> Tensor:
    """Return a sparse gradient as a dense one; a dense one is returned unchanged."""
    return gradient if gradient.layout is torch.strided else gradient.to_dense()


def _number(value: float | Tensor) -> float | Tensor:
    """Return the number that a tensor holds; under torch.compile the tensor, since reading it would break the graph."""
    return value if torch.compiler.is_compiling() or not isinstance(value, Tensor) else value.item()


def _bias_growth(state: dict[str, Tensor], group: dict[str, Any]) -> float | Tensor:
    """Return the growth factor of v since the threshold was measured; at that step exactly 1, to keep ties."""
    now, then = step_number(state["step"]), step_number(state["threshold_step"])
    if isinstance(now, float) and now == then:  # both are 0 before the first step
        return 1.0
    return rule.bias_growth(group["betas"][1], then, now)


def _fits_kernels(group: dict[str, Any], parameter: Tensor, gradient: Tensor, *state: Tensor) -> bool:
    """Say whether the kernels can update these tensors: dense, contiguous float32 on the CPU."""
    if group["gating"] != "selective" or group["plasticity_k"] == 0 or torch.compiler.is_compiling():
        return False
    if type(gradient) is not Tensor or gradient.is_neg():
        return False
    size = parameter.numel()
    for tensor in (parameter, gradient, *state):
        if not (tensor.is_cpu and tensor.dtype is torch.float32 and tensor.is_contiguous() and tensor.numel() == size):
            return False
    return True


@functools.cache
def _threads() -> ModuleType:
    """Return the module that calls the kernels. It imports numba, which takes time, so it is imported at first use."""
    return import_module("plastic_selective.optimizer.threads")
