"""The drop-in optimizer: gated SGD or gated Adam, with compiled kernels for parameters on the CPU."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

from plastic_selective.optimizer.options import (
    ADDED_OPTIONS,
    Base,
    Gating,
    check_option,
    check_options,
    check_saved_options,
    check_weight_decay,
)
from plastic_selective.optimizer.state import (
    check_state,
    check_state_of_base,
    full_tensor,
    initial_state,
    restored_state,
    state_type,
)
from plastic_selective.optimizer.update import busy_of, dense, eligibility_of, gate_of, update_parameter

LOW_GATE = 0.5
"""A gate below this value counts as low in the diagnostics."""


class SelectivePlasticityOptimizer(Optimizer):
    """SGD or Adam with a gate on the update of every synapse; `rule.py` has the equations.

    It replaces any optimizer of `torch.optim`. A synapse is one entry of a parameter tensor.

    Args:
        params: parameters, or groups of parameters. Every option can be set for a group.
        lr: learning rate.
        trace_decay: decay rate beta of the eligibility, with base "sgd". Base "adam" uses the second of `betas`.
        plasticity_k: strength k of the gate. With 0 all gates are 1. With 10 the gate can reach its lowest value, 0.1.
        threshold_percentile: with base "adam", synapses with an eligibility above this percentile of their tensor are
            busy. Base "sgd" does not use it, and neither does the published code.
        warmup_steps: number of steps until the gate has its full effect.
        adaptive_threshold: compute the percentile again every 100 steps. If False, it is fixed when the warm-up ends.
        eps: is added to Adam's denominator. The gates divide by eps if the maximum of a tensor is smaller than eps.
        base: "sgd" is gated SGD, as in the published code. It stores one additional number per parameter. "adam" is
            gated Adam. It computes the eligibility from Adam's second moment and needs no more memory than Adam.
        betas: decay rates of Adam's moments.
        gating: "uniform" is a control: each synapse of a tensor gets the same gate, the mean of the selective gates.
        weight_decay: decoupled from the gradient, as in AdamW (Loshchilov & Hutter 2019): p <- p - lr weight_decay p
            before the step. The gate does not act on it.
        maximize: maximize the objective instead of minimizing it.
        foreach: None or False. There is one implementation, which chooses its fast path by device and type.
        fused: None or False, as `foreach`.
        others: other options of torch's optimizers, such as amsgrad. They are accepted only if they are off.

    Parameters may have any real floating type. The state of 16-bit parameters is float32. Sparse gradients become
    dense, because the trace decays in all synapses. NaN in a gradient makes the whole tensor NaN; infinity makes only
    its own entry NaN. With k = 0, NaN and infinity act as in torch's optimizers.

    With k = 0 the results are bit-identical to the loops over parameters (foreach=False) of torch.optim.SGD and
    torch.optim.Adam. The exception is Adam in 16 bits, whose moments torch stores in 16 bits.

    Options are checked when a group is added or loaded, and at the first step after an option has changed.

    Raises:
        ValueError: an option does not exist or is out of range. The message names the option.
        TypeError: a parameter is complex.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        trace_decay: float = 0.99,
        plasticity_k: float = 5.0,
        threshold_percentile: float = 75,
        warmup_steps: int = 1000,
        adaptive_threshold: bool = True,
        eps: float = 1e-8,
        *,
        base: Base = "adam",
        betas: tuple[float, float] = (0.9, 0.999),
        gating: Gating = "selective",
        weight_decay: float = 0.0,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        **others: Any,
    ) -> None:
        defaults = {
            "lr": lr,
            "trace_decay": trace_decay,
            "plasticity_k": plasticity_k,
            "threshold_percentile": threshold_percentile,
            "warmup_steps": warmup_steps,
            "adaptive_threshold": adaptive_threshold,
            "eps": eps,
            "base": base,
            "betas": betas,
            "gating": gating,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "fused": fused,
            # torch.optim.Adam reads this entry when it loads a state of this optimizer.
            "decoupled_weight_decay": True,
        }
        check_options({**defaults, **others})
        # The options of each group when they were last checked.
        self._checked: list[dict[str, Any]] = []
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters. Its warm-up starts with its first step."""
        if isinstance(param_group, dict):  # otherwise torch raises the error
            check_options({**self.defaults, **param_group})
        super().add_param_group(param_group)
        if any(parameter.is_complex() for parameter in self.param_groups[-1]["params"]):
            self.param_groups.pop()
            raise TypeError("params: complex gradients have no order; use two real parameters instead")

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update every parameter that has a gradient. `closure` computes the loss again and returns it.

        Raises ValueError, and updates nothing, if an option of a group was set to a value that it cannot have.
        """
        if not torch.compiler.is_compiling():
            self._check_changed_options()
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            # An empty parameter has no largest gradient.
            parameters = [p for p in group["params"] if p.grad is not None and p.numel()]
            if not parameters:
                continue
            states = [self.state[parameter] for parameter in parameters]
            for parameter, state in zip(parameters, states, strict=True):
                if not state:
                    state.update(initial_state(parameter, group["base"]))
            torch._foreach_add_([state["step"] for state in states], 1)
            for parameter, state in zip(parameters, states, strict=True):
                gradient = dense(parameter.grad)
                update_parameter(parameter, -gradient if group["maximize"] else gradient, state, group)
        return loss

    def _check_changed_options(self) -> None:
        """Raise ValueError if an option has changed since it was checked and cannot have its new value.

        A tensor that was changed in place, as schedulers do, is not read again: reading would wait for a GPU.
        """
        if len(self._checked) != len(self.param_groups):
            self._checked = [{} for _ in self.param_groups]
        for number, (group, before) in enumerate(zip(self.param_groups, self._checked, strict=True)):
            changed = [
                name
                for name, value in group.items()
                if name != "params" and (name not in before or before[name] is not value)
            ]
            if not changed:
                continue
            for name in changed:
                check_option(name, group[name])
            check_weight_decay(group)
            if "base" in changed:
                check_state_of_base([self.state.get(parameter) for parameter in group["params"]], group["base"])
            self._checked[number] = {name: value for name, value in group.items() if name != "params"}

    # ------------------------------------------------------------------------------------------------ diagnostics

    def get_diagnostics(self) -> dict[str, float]:
        """Measure eligibility and gates. The cost arises in this call only, not during training.

        step_count: largest number of steps of a parameter. eligibility_mean, eligibility_max: over all synapses, in
        units of the gradient. busy_ratio: mean of `busy`; nan before the first step. gate_mean, gate_low_ratio: mean
        gate of the last step, and share of synapses with a gate below 0.5; nan without gradients (`get_param_gate`).
        If parameters are distributed over processes, all processes have to call this method.
        """
        steps, synapses, gated = 0.0, 0, 0
        sums = dict.fromkeys(("eligibility", "busy", "gate", "low"), 0.0)
        largest = [0.0]
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state.get(parameter)
                if not state:
                    continue
                steps = max(steps, state["step"].item())
                eligibility = full_tensor(eligibility_of(state, group))
                synapses += eligibility.numel()
                sums["eligibility"] += float(eligibility.sum(dtype=torch.float64))
                sums["busy"] += float(full_tensor(busy_of(state, group)).sum(dtype=torch.float64))
                largest.append(float(eligibility.max()))
                gate = self.get_param_gate(parameter)
                if gate is not None:
                    gate = full_tensor(gate)
                    gated += gate.numel()
                    sums["gate"] += float(gate.sum(dtype=torch.float64))
                    sums["low"] += float((gate < LOW_GATE).sum())
        return {
            "step_count": steps,
            "eligibility_mean": sums["eligibility"] / synapses if synapses else 0.0,
            "eligibility_max": float(torch.tensor(largest).max()),  # Python's max() can hide a NaN
            "busy_ratio": sums["busy"] / synapses if synapses else math.nan,
            "gate_mean": sums["gate"] / gated if gated else math.nan,
            "gate_low_ratio": sums["low"] / gated if gated else math.nan,
        }

    def reset_eligibility(self) -> None:
        """Set the eligibility to 0 and restart the warm-up. With base "adam" the moments of Adam are reset too."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if self.state.get(parameter):
                    self.state[parameter] = initial_state(parameter, group["base"])

    @torch.no_grad()
    def get_param_eligibility(self, param: Tensor) -> Tensor | None:
        """Return the eligibility of each synapse of `param`, in its shape, or None before its first step."""
        state = self.state.get(param)
        return eligibility_of(state, self._group_of(param)) if state else None

    @torch.no_grad()
    def get_param_gate(self, param: Tensor) -> Tensor | None:
        """Return the gates of the last step, in the shape of `param`.

        They are computed from the gradient that `param` still has: call this after `step` and before `zero_grad`.
        Returns None if there is no gradient, and before the first step of `param`.
        """
        state = self.state.get(param)
        if not state or param.grad is None:
            return None
        return gate_of(dense(param.grad).to(state_type(param)), state, self._group_of(param))

    def _group_of(self, param: Tensor) -> dict[str, Any]:
        return next(group for group in self.param_groups if any(param is one for one in group["params"]))

    # ------------------------------------------------------------------------------------------------ saving

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state of this optimizer, or with base "adam" a state of torch.optim.Adam or AdamW.

        Options that the saved groups lack keep their values. A missing threshold is measured. All tensors are copied.
        Raises ValueError, and changes nothing, if a state belongs to another base, or if a saved group has an option
        that is not implemented here, such as amsgrad or coupled weight decay.
        """
        groups = self.param_groups
        final = state_dict

        def check(_: Optimizer, loaded: dict[str, Any]) -> None:
            nonlocal final
            check_state(loaded, groups)
            check_saved_options(loaded, groups)
            final = loaded

        # Other hooks may replace the state. A hook that is registered last sees the final one.
        hook = self.register_load_state_dict_pre_hook(check)
        try:
            super().load_state_dict(state_dict)
        finally:
            hook.remove()
        for group, before, saved in zip(self.param_groups, groups, final["param_groups"], strict=True):
            for name, value in before.items():
                group.setdefault(name, value)
            group["decoupled_weight_decay"] = True  # the only kind that check_weight_decay accepts
            for parameter, number in zip(group["params"], saved["params"], strict=True):
                if final["state"].get(number):
                    self.state[parameter] = restored_state(final["state"][number], parameter, group)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a pickle or a deep copy. Options that an earlier version did not have are off."""
        super().__setstate__(state)
        self._checked = []
        if "defaults" in state:  # `load_state_dict` calls this method too, with the groups only
            for group in self.param_groups:
                for name, value in ADDED_OPTIONS.items():
                    group.setdefault(name, value)
