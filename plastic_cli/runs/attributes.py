"""The state of an object without `state_dict`: its attributes."""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from functools import partial
from types import BuiltinFunctionType, FunctionType, GenericAlias, MethodType, MethodWrapperType
from typing import Any

from plastic_cli.errors import UserError
from plastic_cli.escapes import printable_line


def attributes_of(part: object) -> dict[str, Any]:
    """Return the attributes of an object as tensors, numbers, text, lists and dictionaries.

    An attribute with a `state_dict` of its own, such as a module or an optimizer, gives this; a generator of random
    numbers of torch, NumPy or Python gives its state. Functions and classes are left out, because they do not change.
    Another object that can be called, such as a schedule that counts its calls, gives those of its attributes that a
    checkpoint can hold. Raises UserError for an attribute of another type, with what to do.
    """
    kept = {name: value for name, value in _attributes(part).items() if not _is_function(value)}
    try:
        return {name: _state_of(value, f"{type(part).__name__}.{name}") for name, value in kept.items()}
    except RecursionError:
        raise UserError(
            f"an attribute of {type(part).__name__} contains itself, which a checkpoint cannot hold."
            f" Give {type(part).__name__} the methods state_dict() and load_state_dict(state)."
        ) from None


def restore_attributes(part: object, state: Mapping[str, Any]) -> None:
    """Restore what `attributes_of` returned; tensors, which other objects may hold too, are changed in place."""
    for name, stored in state.items():
        # A frozen dataclass refuses setattr, although its checkpoint holds its attributes.
        object.__setattr__(part, name, _restored(getattr(part, name, None), stored))


def independent_copy(part: Any) -> Any:
    """Return a copy of a learner that shares no tensor with it; raises UserError if it cannot be copied."""
    import torch

    # torch refuses to copy a tensor that was computed from parameters. Its value is part of the state, its graph not.
    computed = {
        id(value): value.detach().clone()
        for value in _attributes(part).values()
        if isinstance(value, torch.Tensor) and not value.is_leaf
    }
    try:
        return copy.deepcopy(part, computed)
    except Exception as error:
        raise UserError(
            f"a {type(part).__name__} cannot be copied, which evaluate and analyze do with a learner:"
            f" {printable_line(str(error))}"
        ) from error


def _attributes(part: object) -> dict[str, Any]:
    """Return the attributes of an object by name, those of `__slots__` included."""
    slots = [name for kind in type(part).__mro__ for name in _slots_of(kind)]
    return {**{name: getattr(part, name) for name in slots if hasattr(part, name)}, **getattr(part, "__dict__", {})}


def _slots_of(kind: type) -> list[str]:
    declared = vars(kind).get("__slots__", ())
    names = [declared] if isinstance(declared, str) else list(declared)
    return [name for name in names if name not in ("__dict__", "__weakref__")]


def _is_function(value: object) -> bool:
    """Return whether a value is a class or a function: also a partial one, and one that a decorator has wrapped."""
    import numpy as np

    kinds = (type, GenericAlias, FunctionType, BuiltinFunctionType, MethodType, MethodWrapperType, partial, np.ufunc)
    # numba and functools keep the function that they wrap under these names.
    is_wrapped = callable(value) and (hasattr(value, "py_func") or hasattr(value, "__wrapped__"))
    return not hasattr(value, "state_dict") and (isinstance(value, kinds) or is_wrapped)


def _storable_attributes(part: object, name: str, inside: tuple[object, ...]) -> dict[str, Any]:
    """Return the attributes of an object that can be called, without those that a checkpoint cannot hold.

    Such an object may be a function of another library, or know the learner. inside: the objects around it.
    """
    found = {}
    for attribute, value in _attributes(part).items():
        if _is_function(value) or any(value is outer for outer in (part, *inside)):
            continue
        with suppress(UserError):
            found[attribute] = _state_of(value, f"{name}.{attribute}", (part, *inside))
    return found


def _state_of(value: Any, name: str, inside: tuple[object, ...] = ()) -> Any:
    import numpy as np
    import torch

    if isinstance(value, torch.Tensor):
        return value.detach()
    if hasattr(value, "state_dict"):
        return value.state_dict()
    if isinstance(value, torch.Generator):
        return value.get_state()
    if isinstance(value, np.random.Generator):
        return _state_of(value.bit_generator.state, name)
    if isinstance(value, random.Random):
        return _state_of(value.getstate(), name)
    if isinstance(value, np.ndarray) and value.dtype != object:
        return torch.from_numpy(value.copy())
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {key: _state_of(entry, f"{name}[{key!r}]", inside) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_state_of(entry, f"{name}[{index}]", inside) for index, entry in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str | torch.device | torch.dtype | torch.Size):
        return value
    if callable(value):
        return _storable_attributes(value, name, inside)
    raise UserError(
        f"{name} is a {type(value).__name__}, which a checkpoint cannot hold."
        f" Give {name.partition('.')[0]} the methods state_dict() and load_state_dict(state)."
    )


def _restored(present: Any, stored: Any) -> Any:
    """Return the restored value; tensors, modules and generators are changed in place and stay the same objects."""
    import numpy as np
    import torch

    if isinstance(present, torch.Tensor) and isinstance(stored, torch.Tensor) and present.shape == stored.shape:
        with torch.no_grad():
            present.copy_(stored)
        return present
    if hasattr(present, "load_state_dict"):
        present.load_state_dict(stored)
        return present
    if isinstance(present, torch.Generator):
        present.set_state(stored)
        return present
    if isinstance(present, np.random.Generator):
        present.bit_generator.state = _restored(present.bit_generator.state, stored)
        return present
    if isinstance(present, random.Random):
        version, numbers, cached = stored
        present.setstate((version, tuple(numbers), cached))
        return present
    if isinstance(present, np.ndarray) and isinstance(stored, torch.Tensor):
        return stored.numpy().astype(present.dtype)
    if isinstance(present, np.generic) and isinstance(stored, bool | int | float | complex | str):
        return present.dtype.type(stored)
    if isinstance(present, Mapping) and isinstance(stored, Mapping):
        entries = {key: _restored(present.get(key), entry) for key, entry in stored.items()}
        if not isinstance(present, MutableMapping):
            return entries
        # A dictionary of another class, such as a Counter, stays what it is.
        present.clear()
        for key, entry in entries.items():
            present[key] = entry
        return present
    if isinstance(present, list | tuple) and isinstance(stored, list):
        kept = [*present, *[None] * len(stored)]
        parts = [_restored(one, entry) for one, entry in zip(kept, stored, strict=False)]
        return type(present)(*parts) if hasattr(present, "_fields") else type(present)(parts)
    if callable(present) and isinstance(stored, Mapping):
        restore_attributes(present, stored)
        return present
    return stored
