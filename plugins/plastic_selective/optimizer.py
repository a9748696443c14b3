"""The drop-in optimizer: gated stochastic gradient descent or gated Adam, compiled where parameters lie on the CPU."""

from __future__ import annotations

import functools
import math
import numbers
from collections.abc import Callable, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any, Literal, overload

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

from plastic_cli.errors import did_you_mean
from plastic_selective import rule

Base = Literal["sgd", "adam"]
Gating = Literal["selective", "uniform"]

THRESHOLD_EVERY = 100
"""Steps between two measurements of a percentile: it moves slowly, and finding it costs as much as several steps."""
LOW_GATE = 0.5
"""Below this a gate counts as low in the diagnostics."""


class SelectivePlasticityOptimizer(Optimizer):
    """Selective plasticity for any program: gates the update of every synapse, see `rule.py` for the equations.

    lr: learning rate. plasticity_k: strength of the gate; 0 is plain SGD or Adam, 10 and more close it as far as it
    goes. warmup_steps: steps until the gate is in full force. eps: of Adam's denominator, and the gradient below which
    nothing counts as busy or surprising.

    base: "sgd", as the published code computes it, with one buffer as large as the parameters, or "adam", gated Adam
    with eligibility from its second moment and so without a buffer of its own.
    trace_decay: beta of the trace, with base "sgd"; with "adam" the second of `betas` takes its place.
    threshold_percentile: with base "adam", synapses whose eligibility is above this percentile of their tensor are
    busy. adaptive_threshold: measure the percentile again every 100 steps; otherwise it stays what it was when the
    warm-up ended. The published code computes both and uses neither, and so does base "sgd".
    gating: "uniform" is the control: every synapse of a tensor is slowed down by the tensor's mean gate.

    weight_decay: decoupled from the gradient, as in AdamW (Loshchilov & Hutter 2019): p <- p - lr weight_decay p before
    the step. The gate does not slow it down. maximize: climb instead of descend. foreach, fused: for programs that pass
    them to every optimizer; they may be None or False, as there is one implementation, chosen by device and type. Other
    options of torch's optimizers, such as amsgrad, may be named where they are off.

    Parameters may have any floating type; the state of 16-bit parameters is held in float32. Sparse gradients become
    dense, since the trace fades everywhere. All options can be given for a group of parameters. A gradient that is NaN
    makes its whole tensor NaN, one that is infinite its own entry, see `rule.py`; with k = 0 as in torch's optimizers.

    With k = 0 it is torch.optim.SGD or torch.optim.Adam, in their loops over parameters, to the last bit; but of Adam
    in 16 bits, which keeps its moments in 16 bits.

    Options of a group are checked where it is made and loaded, and again at the first step after one was changed. A
    group may also hold `name`, its label, and what torch's schedulers note in it.

    Raises ValueError, with the option's name, for a value out of range and for an option that does not exist, and
    TypeError for complex parameters. Source: see `rule.py`.
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
            # torch.optim.Adam reads it where it goes on from our state.
            "decoupled_weight_decay": True,
        }
        _check_options({**defaults, **others})
        # The options of each group as they were when they were last checked.
        self._checked: list[dict[str, Any]] = []
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with options of their own; their warm-up begins when they do."""
        if isinstance(param_group, dict):  # torch says what is wrong where it is none
            _check_options({**self.defaults, **param_group})
        super().add_param_group(param_group)
        if any(parameter.is_complex() for parameter in self.param_groups[-1]["params"]):
            self.param_groups.pop()
            raise TypeError("params: complex parameters have no sign-free order of gradients; split them into two")

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update every parameter that has a gradient; `closure` evaluates the loss again and returns it.

        Raises ValueError where an option of a group was changed to what it cannot be; nothing is updated then.
        """
        if not torch.compiler.is_compiling():
            self._check_changed_options()
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            # A parameter without entries has nothing to learn, and no largest gradient either.
            parameters = [p for p in group["params"] if p.grad is not None and p.numel()]
            if not parameters:
                continue
            states = [self.state[parameter] for parameter in parameters]
            for parameter, state in zip(parameters, states, strict=True):
                if not state:
                    state.update(_initial_state(parameter, group["base"]))
            torch._foreach_add_([state["step"] for state in states], 1)
            for parameter, state in zip(parameters, states, strict=True):
                gradient = _dense(parameter.grad)
                _update(parameter, -gradient if group["maximize"] else gradient, state, group)
        return loss

    def _check_changed_options(self) -> None:
        """Raise ValueError for an option that was changed since it was checked, to what it cannot be.

        What a tensor holds is not read again: a scheduler changes it in place, and reading it would wait for a GPU.
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
                _check_option(name, group[name])
            _check_weight_decay(group)
            if "base" in changed:
                _check_state_of_base([self.state.get(parameter) for parameter in group["params"]], group["base"])
            self._checked[number] = {name: value for name, value in group.items() if name != "params"}

    # ------------------------------------------------------------------------------------------------ looking inside

    def get_diagnostics(self) -> dict[str, float]:
        """Measure the optimizer now; nothing is measured, or costs anything, before.

        step_count: steps of the parameter that took most. eligibility_mean, eligibility_max: over all synapses, in
        units of the gradient. busy_ratio: the mean of `busy`; nan before the first step. gate_mean, gate_low_ratio:
        mean gate of the last step, and share of synapses with a gate below 0.5, see `get_param_gate`; nan where there
        are no gradients. Parameters that are distributed over processes are collected: all processes have to call this.
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
                eligibility = _whole(_eligibility(state, group))
                synapses += eligibility.numel()
                sums["eligibility"] += float(eligibility.sum(dtype=torch.float64))
                sums["busy"] += float(_whole(_busy(state, group)).sum(dtype=torch.float64))
                largest.append(float(eligibility.max()))
                gate = self.get_param_gate(parameter)
                if gate is not None:
                    gate = _whole(gate)
                    gated += gate.numel()
                    sums["gate"] += float(gate.sum(dtype=torch.float64))
                    sums["low"] += float((gate < LOW_GATE).sum())
        return {
            "step_count": steps,
            "eligibility_mean": sums["eligibility"] / synapses if synapses else 0.0,
            "eligibility_max": float(torch.tensor(largest).max()),  # of Python's max() a NaN could be hidden
            "busy_ratio": sums["busy"] / synapses if synapses else math.nan,
            "gate_mean": sums["gate"] / gated if gated else math.nan,
            "gate_low_ratio": sums["low"] / gated if gated else math.nan,
        }

    def reset_eligibility(self) -> None:
        """Forget who was busy: the eligibility is 0, and the warm-up begins anew; with base "adam", Adam itself."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if self.state.get(parameter):
                    self.state[parameter] = _initial_state(parameter, group["base"])

    @torch.no_grad()
    def get_param_eligibility(self, param: Tensor) -> Tensor | None:
        """Return the eligibility of each synapse of `param`, a tensor of its shape, or None before its first step."""
        state = self.state.get(param)
        return _eligibility(state, self._group_of(param)) if state else None

    @torch.no_grad()
    def get_param_gate(self, param: Tensor) -> Tensor | None:
        """Return the gates of the last step, a tensor of the shape of `param`.

        They are computed again from the gradient that is there: to be called after `step` and before `zero_grad`. None
        where there is no gradient, and before the first step of `param`.
        """
        state = self.state.get(param)
        if not state or param.grad is None:
            return None
        return _gate(_dense(param.grad).to(_state_type(param)), state, self._group_of(param))

    def _group_of(self, param: Tensor) -> dict[str, Any]:
        return next(group for group in self.param_groups if any(param is one for one in group["params"]))

    # ------------------------------------------------------------------------------------------------ saving

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what `state_dict` returned, or with base "adam" go on from the moments of torch.optim.Adam.

        Options that the saved groups lack stay what they are, and a threshold that is missing is measured. Nothing of
        `state_dict` is shared. Raises ValueError, and changes nothing, where a state is not that of the base, and where
        a saved group has an option that does not exist here, such as amsgrad or Adam's coupled weight decay.
        """
        groups = self.param_groups
        final = state_dict

        def look(_: Optimizer, loaded: dict[str, Any]) -> None:
            nonlocal final
            _check_state(loaded, groups)
            _check_saved_options(loaded, groups)
            final = loaded

        # Other hooks may exchange what is loaded; the last one sees what they made of it.
        hook = self.register_load_state_dict_pre_hook(look)
        try:
            super().load_state_dict(state_dict)
        finally:
            hook.remove()
        for group, before, saved in zip(self.param_groups, groups, final["param_groups"], strict=True):
            for name, value in before.items():
                group.setdefault(name, value)
            group["decoupled_weight_decay"] = True  # what was loaded means the same, see _check_weight_decay
            for parameter, number in zip(group["params"], saved["params"], strict=True):
                if final["state"].get(number):
                    self.state[parameter] = _restored(final["state"][number], parameter, group)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take back what pickle or `copy.deepcopy` kept; options that an earlier version did not have are off."""
        super().__setstate__(state)
        self._checked = []
        if "defaults" in state:  # `load_state_dict` calls this too, with groups alone
            for group in self.param_groups:
                for name, value in _OF_LATER_VERSIONS.items():
                    group.setdefault(name, value)


# ------------------------------------------------------------------------------------------------ the state


def _state_type(parameter: Tensor) -> torch.dtype:
    return torch.float32 if parameter.dtype in (torch.float16, torch.bfloat16) else parameter.dtype


def _initial_state(parameter: Tensor, base: Base) -> dict[str, Tensor]:
    def zeros() -> Tensor:
        return torch.zeros_like(parameter, dtype=_state_type(parameter), memory_format=torch.preserve_format)

    step = torch.zeros((), dtype=torch.float32)
    if base == "sgd":
        return {"step": step, "eligibility": zeros()}
    return {
        "step": step,
        # The names of torch.optim.Adam, so that one can go on with the other's moments.
        "exp_avg": zeros(),
        "exp_avg_sq": zeros(),
        # Of v, and the step at which it was measured.
        "threshold": torch.zeros((), dtype=_state_type(parameter), device=parameter.device),
        "threshold_step": torch.zeros((), dtype=torch.float32),
    }


def _check_state(state_dict: dict[str, Any], groups: list[dict[str, Any]]) -> None:
    """Raise ValueError where the state of a parameter is not one that its group's base can go on from."""
    for group, saved in zip(groups, state_dict["param_groups"], strict=False):
        base = saved.get("base", group["base"])
        names = ("eligibility",) if base == "sgd" else ("exp_avg", "exp_avg_sq")
        for parameter, number in zip(group["params"], saved["params"], strict=False):
            state = state_dict["state"].get(number)
            if not state:
                continue
            for name in ("step", *names):
                if name not in state:
                    raise ValueError(
                        f"state_dict: the state of parameter {number} has no {name!r}, which base {base!r} goes on from"
                    )
            for name in names:
                if state[name].shape != parameter.shape:
                    raise ValueError(
                        f"state_dict: {name!r} of parameter {number} is {tuple(state[name].shape)}, "
                        f"and the parameter {tuple(parameter.shape)}"
                    )


@torch.no_grad()
def _restored(saved: dict[str, Any], parameter: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
    """Return a state of its own with the saved numbers: types, device and layout are those of a fresh state.

    torch casts a state to its parameter's type, and what a trace has beyond 16 bits would be lost.
    """
    state = _initial_state(parameter, group["base"])
    for name, value in state.items():
        if name in saved:
            value.copy_(torch.as_tensor(saved[name]))
    if "threshold_step" in state and "threshold_step" not in saved:
        state["threshold_step"].zero_()
        _measure_threshold(state, group)
    return state


# -------------------------------------------------------------------------------------- one parameter, in whole tensors


def _update(parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
    """Update one parameter and its state; the gradient points to where the loss rises."""
    update = _update_sgd if group["base"] == "sgd" else _update_adam
    if not group["weight_decay"]:
        update(parameter, gradient, state, group)
        return
    # Of 16 bits, decay and step are rounded together, once: most decays alone are lost in so few digits.
    precise = parameter.to(_state_type(parameter))
    kept = _number(1 - group["lr"] * group["weight_decay"])
    precise.mul_(kept.to(precise.device) if isinstance(kept, Tensor) else kept)
    update(precise, gradient, state, group)
    if precise is not parameter:
        parameter.copy_(precise)


def _update_sgd(parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
    eligibility = state["eligibility"]
    if _can_be_compiled(group, parameter, gradient, eligibility):
        _steps().step_sgd(parameter, gradient, eligibility, state["step"].item(), group)
        return
    precise = gradient.to(_state_type(parameter))
    eligibility.copy_(rule.updated_eligibility(eligibility, precise, group["trace_decay"]))
    direction = gradient if group["plasticity_k"] == 0 else _gate(precise, state, group) * precise
    lr = _number(group["lr"])
    if isinstance(lr, Tensor):
        parameter.sub_(lr.to(parameter.device) * direction)
    else:
        parameter.add_(direction, alpha=-lr)


def _update_adam(parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
    m, v = state["exp_avg"], state["exp_avg_sq"]
    first, second = group["betas"]
    step = _count(state["step"])
    if not isinstance(step, Tensor) and _can_be_compiled(group, parameter, gradient, m, v):
        largest = _steps().follow_second_moment(gradient, v, group)
        _measure_threshold(state, group)
        threshold = state["threshold"].item() * _bias_growth(state, group)
        _steps().step_adam(parameter, gradient, m, v, step, threshold, largest, group)
        return
    gradient = gradient.to(_state_type(parameter))
    m.lerp_(gradient, 1 - first)
    v.mul_(second).addcmul_(gradient, gradient, value=1 - second)
    _measure_threshold(state, group)
    direction = m if group["plasticity_k"] == 0 else _gate(gradient, state, group) * m
    denominator = (v.sqrt() / (1 - second**step) ** 0.5).add_(group["eps"])
    size = _number(group["lr"] / (1 - first**step))
    if isinstance(size, Tensor):
        parameter.sub_(size.to(parameter.device) * direction / denominator)
    else:
        parameter.addcdiv_(direction, denominator, value=-size)


def _dense(gradient: Tensor) -> Tensor:
    return gradient if gradient.layout is torch.strided else gradient.to_dense()


def _whole(tensor: Tensor) -> Tensor:
    """Return a tensor as one piece; one that is distributed over processes is collected."""
    collect = getattr(tensor, "full_tensor", None)
    return tensor if collect is None else collect()


def _number(value: float | Tensor) -> float | Tensor:
    """Return the number that a tensor holds; under torch.compile the tensor, since reading it would stop the graph."""
    return value if torch.compiler.is_compiling() or not isinstance(value, Tensor) else value.item()


def _count(steps: Tensor) -> float | Tensor:
    """Return a number, or under torch.compile a tensor, as numbers are compiled into the code and this one changes."""
    return steps.double() if torch.compiler.is_compiling() else steps.item()


def _measure_threshold(state: dict[str, Tensor], group: dict[str, Any]) -> None:
    """Measure the percentile of v anew where it is due."""
    measure = _measure_as_one_operation if torch.compiler.is_compiling() else _measure_where_due
    measure(
        state["exp_avg_sq"],
        state["threshold"],
        state["threshold_step"],
        state["step"],
        float(group["threshold_percentile"]),
        group["adaptive_threshold"],
        int(group["warmup_steps"]),
    )


def _measure_where_due(
    v: Tensor, threshold: Tensor, threshold_step: Tensor, step: Tensor, percentage: float, adaptive: bool, warmup: int
) -> None:
    """Measure at the first steps often, later every THRESHOLD_EVERY; unless adaptive, no more after the warm-up."""
    now, end = int(step.item()), max(1, warmup)
    young = now < THRESHOLD_EVERY and now & (now - 1) == 0
    due = young or now % THRESHOLD_EVERY == 0
    if not adaptive and now >= end:
        due = now == end
    if due or threshold_step.item() == 0:
        threshold.copy_(rule.percentile(_whole(v), percentage))
        threshold_step.copy_(step)


# torch.compile would stop at a decision that depends on the step; an operation of our own it takes as it is.
_measure_as_one_operation = torch.library.custom_op(
    "plastic_selective::measure_threshold",
    _measure_where_due,
    mutates_args=("threshold", "threshold_step"),
    schema="(Tensor v, Tensor(a!) threshold, Tensor(b!) threshold_step, Tensor step, float percentage, bool adaptive, "
    "int warmup) -> ()",
)


def _bias_growth(state: dict[str, Tensor], group: dict[str, Any]) -> float | Tensor:
    """Return by what a threshold of v has grown since it was measured; exactly 1 at once, so that ties stay ties."""
    now, then = _count(state["step"]), _count(state["threshold_step"])
    if isinstance(now, float) and now == then:  # both are 0 before the first step
        return 1.0
    return rule.bias_growth(group["betas"][1], then, now)


def _eligibility(state: dict[str, Tensor], group: dict[str, Any]) -> Tensor:
    if group["base"] == "sgd":
        return state["eligibility"].clone()
    unbiased: Tensor = state["exp_avg_sq"] / (1 - group["betas"][1] ** max(1.0, state["step"].item()))
    return unbiased.sqrt_()


def _busy(state: dict[str, Tensor], group: dict[str, Any]) -> Tensor:
    if group["base"] == "sgd":
        return rule.share_of_largest(state["eligibility"], group["eps"])
    return rule.above_threshold(state["exp_avg_sq"], state["threshold"] * _bias_growth(state, group))


def _gate(gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> Tensor:
    surprise = rule.share_of_largest(gradient.abs(), group["eps"])
    gate = rule.gate(_busy(state, group), surprise, group["plasticity_k"])
    gate = rule.warmed_up(gate, _count(state["step"]), group["warmup_steps"])
    return gate.mean().expand_as(gate) if group["gating"] == "uniform" else gate


# ------------------------------------------------------------------------------------------------ the compiled path


def _can_be_compiled(group: dict[str, Any], parameter: Tensor, gradient: Tensor, *state: Tensor) -> bool:
    """Say whether the kernels take these tensors: dense float32 on the CPU, one number after the other."""
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
def _steps() -> ModuleType:
    """Return the module of compiled steps; numba is imported by who needs it."""
    return import_module("plastic_selective.steps")


# ------------------------------------------------------------------------------------------------ what is acceptable

_BELOW_ONE = math.nextafter(1.0, 0.0)
_BOUNDS: dict[str, tuple[float, float, str]] = {
    "lr": (0.0, math.inf, "at least 0"),
    "plasticity_k": (0.0, 1e6, "from 0 to 1000000"),
    "trace_decay": (0.0, _BELOW_ONE, "at least 0 and below 1"),
    "threshold_percentile": (0.0, 100.0, "from 0 to 100"),
    "warmup_steps": (0, math.inf, "at least 0"),
    "eps": (0.0, math.inf, "at least 0"),
    "weight_decay": (0.0, math.inf, "at least 0"),
}
_WORDS: dict[str, tuple[str, ...]] = {"base": ("sgd", "adam"), "gating": ("selective", "uniform")}
_SWITCHES = ("adaptive_threshold", "maximize", "decoupled_weight_decay")
_OFF: dict[str, tuple[tuple[Any, ...], str]] = {
    "foreach": ((None, False), "None or False: the fast path is chosen by device and type"),
    "fused": ((None, False), "None or False: the fast path is chosen by device and type"),
    "amsgrad": ((False,), "False: it is not implemented here"),
    "capturable": ((False,), "False: it is not implemented here"),
    "differentiable": ((False,), "False: it is not implemented here"),
    "momentum": ((0,), "0: it is not implemented here"),
    "dampening": ((0,), "0: it is not implemented here"),
    "nesterov": ((False,), "False: it is not implemented here"),
}
"""Options of torch's optimizers that exist here only at these values."""
_NOTES = frozenset(
    ("params", "param_names", "name", "initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum", "swa_lr")
)
"""What torch and its schedulers note in a group, and the group's label: no options."""
_OF_LATER_VERSIONS: dict[str, Any] = {
    "weight_decay": 0.0,
    "maximize": False,
    "foreach": None,
    "fused": None,
    "decoupled_weight_decay": True,
}


def _check_options(options: Mapping[str, Any]) -> None:
    """Raise ValueError, with the option's name, for the first that does not exist or is out of range."""
    for name, value in options.items():
        _check_option(name, value)
    _check_weight_decay(options)


def _check_option(name: str, value: Any) -> None:
    if name in _BOUNDS:
        low, high, allowed = _BOUNDS[name]
        number = value
        if name == "lr" and isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex():
            number = value.item()
        if not _is_number(number, low, high):
            raise ValueError(f"{name} is {value}: it must be a number {allowed}")
        if name == "warmup_steps" and value != int(value):
            raise ValueError(f"{name} is {value}: it must be a whole number")
    elif name == "betas":
        numbers_ = value if isinstance(value, tuple | list) else ()
        if len(numbers_) != 2 or not all(_is_number(number, 0.0, _BELOW_ONE) for number in numbers_):
            raise ValueError(f"betas is {value}: it must be two numbers of at least 0 and below 1")
    elif name in _WORDS:
        if value not in _WORDS[name]:
            raise ValueError(f"{name} is {value!r}: it must be {' or '.join(repr(word) for word in _WORDS[name])}")
    elif name in _SWITCHES:
        if not isinstance(value, bool):
            raise ValueError(f"{name} is {value!r}: it must be True or False")
    elif name in _OFF:
        accepted, said = _OFF[name]
        if value not in accepted:
            raise ValueError(f"{name} is {value!r}: it must be {said}")
    elif name not in _NOTES:
        names = (*_BOUNDS, "betas", *_WORDS, *_SWITCHES, *_OFF)
        raise ValueError(f"{name} is no option of SelectivePlasticityOptimizer.{did_you_mean(str(name), names)}")


def _check_weight_decay(options: Mapping[str, Any]) -> None:
    """Raise ValueError for a weight decay that goes through Adam's moments; through plain descent it is the same."""
    if options["weight_decay"] and not options["decoupled_weight_decay"] and options["base"] == "adam":
        raise ValueError(
            f"weight_decay is {options['weight_decay']} with decoupled_weight_decay False: "
            "it must be 0, or decoupled as in torch.optim.AdamW"
        )


def _check_saved_options(state_dict: dict[str, Any], groups: list[dict[str, Any]]) -> None:
    """Raise ValueError where saved groups, of this optimizer or of one of torch's, have options that are not ours."""
    for number, (group, saved) in enumerate(zip(groups, state_dict["param_groups"], strict=False)):
        options = {**group, **saved}
        foreign = "plasticity_k" not in saved and "decoupled_weight_decay" not in saved
        try:
            _check_options(options)
        except ValueError as error:
            raise ValueError(f"state_dict: parameter group {number}: {error}") from None
        if foreign and saved.get("weight_decay") and options["base"] == "adam":
            raise ValueError(
                f"state_dict: parameter group {number}: weight_decay is {saved['weight_decay']}, and whether it is "
                "AdamW's is not said: add decoupled_weight_decay=True to the group if it is"
            )


def _check_state_of_base(states: list[Any], base: Base) -> None:
    """Raise ValueError where a parameter has the state of the other base."""
    needed = "eligibility" if base == "sgd" else "exp_avg"
    if any(state and needed not in state for state in states):
        raise ValueError(f"base was changed to {base!r} after the first step: make a new optimizer with that base")


def _is_number(value: Any, low: float, high: float) -> bool:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return False
    return low <= float(value) <= high and math.isfinite(value)
