"""The state of each parameter: its moments or its trace, and the threshold above which a synapse is busy.

A state is a dictionary of tensors. Base "sgd" has the keys step and eligibility. Base "adam" has step, exp_avg and
exp_avg_sq, as torch.optim.Adam, and threshold and threshold_step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from plastic_selective import rule
from plastic_selective.optimizer.options import Base

THRESHOLD_EVERY = 100
"""Steps between two measurements of a percentile. It changes slowly, and finding it costs as much as several steps."""


def state_type(parameter: Tensor) -> torch.dtype:
    """Return the type of a parameter's state: float32 for 16-bit parameters, otherwise the parameter's own type."""
    return torch.float32 if parameter.dtype in (torch.float16, torch.bfloat16) else parameter.dtype


def initial_state(parameter: Tensor, base: Base) -> dict[str, Tensor]:
    """Return the state of a parameter before its first step."""

    def zeros() -> Tensor:
        return torch.zeros_like(parameter, dtype=state_type(parameter), memory_format=torch.preserve_format)

    step = torch.zeros((), dtype=torch.float32)
    if base == "sgd":
        return {"step": step, "eligibility": zeros()}
    return {
        "step": step,
        # The names of torch.optim.Adam, so that each optimizer can load the moments of the other.
        "exp_avg": zeros(),
        "exp_avg_sq": zeros(),
        # The threshold of v, and the step at which it was measured.
        "threshold": torch.zeros((), dtype=state_type(parameter), device=parameter.device),
        "threshold_step": torch.zeros((), dtype=torch.float32),
    }


def check_state(state_dict: dict[str, Any], groups: list[dict[str, Any]]) -> None:
    """Raise ValueError if a saved state lacks what the base of its group needs, or has another shape."""
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
                        f"state_dict: the state of parameter {number} has no {name!r}, which base {base!r} needs"
                    )
            for name in names:
                if state[name].shape != parameter.shape:
                    raise ValueError(
                        f"state_dict: {name!r} of parameter {number} has shape {tuple(state[name].shape)}, "
                        f"but the parameter has shape {tuple(parameter.shape)}"
                    )


def check_state_of_base(states: list[Any], base: Base) -> None:
    """Raise ValueError if a parameter has the state of the other base."""
    needed = "eligibility" if base == "sgd" else "exp_avg"
    if any(state and needed not in state for state in states):
        raise ValueError(f"base was changed to {base!r} after the first step: make a new optimizer with that base")


@torch.no_grad()
def restored_state(saved: dict[str, Any], parameter: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
    """Return a new state with the saved numbers, in the types, on the device and in the layout of `initial_state`.

    torch casts a loaded state to the type of its parameter. In 16 bits most digits of the trace would be lost.
    """
    state = initial_state(parameter, group["base"])
    for name, value in state.items():
        if name in saved:
            value.copy_(torch.as_tensor(saved[name]))
    if "threshold_step" in state and "threshold_step" not in saved:
        state["threshold_step"].zero_()
        measure_threshold(state, group)
    return state


def full_tensor(tensor: Tensor) -> Tensor:
    """Return the whole of a tensor that is distributed over processes; other tensors are returned unchanged."""
    collect = getattr(tensor, "full_tensor", None)
    return tensor if collect is None else collect()


def step_number(steps: Tensor) -> float | Tensor:
    """Return the number of steps; under torch.compile a tensor, since a plain number would become a constant."""
    return steps.double() if torch.compiler.is_compiling() else steps.item()


def measure_threshold(state: dict[str, Tensor], group: dict[str, Any]) -> None:
    """Measure the percentile of v again if that is due at this step."""
    measure = _measure_as_one_operation if torch.compiler.is_compiling() else _measure_if_due
    measure(
        state["exp_avg_sq"],
        state["threshold"],
        state["threshold_step"],
        state["step"],
        float(group["threshold_percentile"]),
        group["adaptive_threshold"],
        int(group["warmup_steps"]),
    )


def _measure_if_due(
    v: Tensor, threshold: Tensor, threshold_step: Tensor, step: Tensor, percentage: float, adaptive: bool, warmup: int
) -> None:
    """Measure at steps 1, 2, 4, 8, ..., then every THRESHOLD_EVERY; if not adaptive, never after the warm-up."""
    now, end = int(step.item()), max(1, warmup)
    young = now < THRESHOLD_EVERY and now & (now - 1) == 0
    due = young or now % THRESHOLD_EVERY == 0
    if not adaptive and now >= end:
        due = now == end
    if due or threshold_step.item() == 0:
        threshold.copy_(rule.percentile(full_tensor(v), percentage))
        threshold_step.copy_(step)


# torch.compile cannot trace a branch that depends on the step. It calls a registered operation without tracing it.
_measure_as_one_operation = torch.library.custom_op(
    "plastic_selective::measure_threshold",
    _measure_if_due,
    mutates_args=("threshold", "threshold_step"),
    schema="(Tensor v, Tensor(a!) threshold, Tensor(b!) threshold_step, Tensor step, float percentage, bool adaptive, "
    "int warmup) -> ()",
)
