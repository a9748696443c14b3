"""Which options the optimizer accepts: of the constructor, of a parameter group and of a saved state."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from typing import Any, Literal, get_args

from torch import Tensor

from plastic_cli.errors import did_you_mean

Base = Literal["sgd", "adam"]
Gating = Literal["selective", "uniform"]

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
_CHOICES: dict[str, tuple[str, ...]] = {"base": get_args(Base), "gating": get_args(Gating)}
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
"""Options of torch's optimizers that are accepted only when they are off, and the values that mean off."""
_NOTES = frozenset(
    ("params", "param_names", "name", "initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum", "swa_lr")
)
"""Entries of a group that are not options: notes of torch and its schedulers, and the label of the group."""
ADDED_OPTIONS: dict[str, Any] = {
    "weight_decay": 0.0,
    "maximize": False,
    "foreach": None,
    "fused": None,
    "decoupled_weight_decay": True,
}
"""Options that earlier versions did not have, at the values that switch them off."""


def check_options(options: Mapping[str, Any]) -> None:
    """Raise ValueError for the first option that does not exist or is out of range."""
    for name, value in options.items():
        check_option(name, value)
    check_weight_decay(options)


def check_option(name: str, value: Any) -> None:
    """Raise ValueError if there is no option `name`, or if it cannot have this value."""
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
        pair = value if isinstance(value, tuple | list) else ()
        if len(pair) != 2 or not all(_is_number(number, 0.0, _BELOW_ONE) for number in pair):
            raise ValueError(f"betas is {value}: it must be two numbers, each at least 0 and below 1")
    elif name in _CHOICES:
        if value not in _CHOICES[name]:
            raise ValueError(f"{name} is {value!r}: it must be {' or '.join(repr(word) for word in _CHOICES[name])}")
    elif name in _SWITCHES:
        if not isinstance(value, bool):
            raise ValueError(f"{name} is {value!r}: it must be True or False")
    elif name in _OFF:
        accepted, requirement = _OFF[name]
        if value not in accepted:
            raise ValueError(f"{name} is {value!r}: it must be {requirement}")
    elif name not in _NOTES:
        names = (*_BOUNDS, "betas", *_CHOICES, *_SWITCHES, *_OFF)
        raise ValueError(f"SelectivePlasticityOptimizer has no option {name}.{did_you_mean(str(name), names)}")


def check_weight_decay(options: Mapping[str, Any]) -> None:
    """Raise ValueError for weight decay that goes through Adam's moments. Without moments both kinds are the same."""
    if options["weight_decay"] and not options["decoupled_weight_decay"] and options["base"] == "adam":
        raise ValueError(
            f"weight_decay is {options['weight_decay']} with decoupled_weight_decay False: "
            "set it to 0, or decouple it as torch.optim.AdamW does"
        )


def check_saved_options(state_dict: dict[str, Any], groups: list[dict[str, Any]]) -> None:
    """Raise ValueError if a saved group, of this optimizer or of one of torch's, has options that do not exist here."""
    for number, (group, saved) in enumerate(zip(groups, state_dict["param_groups"], strict=False)):
        options = {**group, **saved}
        foreign = "plasticity_k" not in saved and "decoupled_weight_decay" not in saved
        try:
            check_options(options)
        except ValueError as error:
            raise ValueError(f"state_dict: parameter group {number}: {error}") from None
        if foreign and saved.get("weight_decay") and options["base"] == "adam":
            raise ValueError(
                f"state_dict: parameter group {number} has weight_decay {saved['weight_decay']} but no "
                "decoupled_weight_decay: add decoupled_weight_decay=True to the group if it comes from AdamW"
            )


def _is_number(value: Any, low: float, high: float) -> bool:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return False
    return low <= float(value) <= high and math.isfinite(value)
