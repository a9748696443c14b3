"""The checkpoint of a run: the state of everything that is tracked, and where its loops stopped."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from plastic_cli.errors import PlasticError, UserError
from plastic_cli.files import read_tensors, write_tensors
from plastic_cli.runs.attributes import attributes_of, restore_attributes
from plastic_cli.runs.record import CHECKPOINT_FILE


@runtime_checkable
class Stateful(Protocol):
    """An object that a run can track: a module, an optimizer, a scheduler, a learner."""

    def state_dict(self) -> dict[str, Any]:
        """Return everything that changes, as tensors, numbers, text, lists and dictionaries."""

    def load_state_dict(self, state: dict[str, Any], /) -> Any:
        """Restore what `state_dict` returned."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds.

    tracked: state by name. random: the global random states by the unit of the loop, such as "epoch". speed: samples
    and seconds of training. steps_done: by unit. metrics_bytes: the size of the metrics file at this moment. seconds:
    time spent on the run.
    """

    tracked: dict[str, Any]
    random: dict[str, Any]
    speed: dict[str, float]
    steps_done: dict[str, int]
    metrics_bytes: int
    seconds: float

    def write(self, folder: Path) -> None:
        """Replace the checkpoint of the run in `folder` in one step."""
        write_tensors(folder / CHECKPOINT_FILE, vars(self))


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read the checkpoint of the run in `folder`, tensors on the CPU; raises UserError if it is missing or damaged.

    Only tensors and plain values are read: nothing in the file can run code.
    """
    path = folder / CHECKPOINT_FILE
    try:
        content = read_tensors(path)
        return _checked(content, path)
    except FileNotFoundError:
        raise UserError(
            f"run {folder.name} has no checkpoint yet: it stopped before its first one. Train it again."
        ) from None
    except UserError as error:
        raise UserError(f"the checkpoint {error} Train the run again.") from None


def _checked(content: Any, path: Path) -> Checkpoint:
    """Return a checkpoint; raises UserError if a part is missing or a number is impossible."""
    kinds: dict[str, Any] = {"tracked": dict, "random": dict, "steps_done": dict, "speed": dict}
    kinds |= {"metrics_bytes": int, "seconds": float}
    if not isinstance(content, dict) or not all(isinstance(content.get(name), kind) for name, kind in kinds.items()):
        raise UserError(f"{path} is damaged (parts of it are missing).")
    counts = [content["metrics_bytes"], *content["steps_done"].values()]
    if not all(type(count) is int and 0 <= count < 2**63 for count in counts):
        raise UserError(f"{path} is damaged (a count is not a whole number from 0 on).")
    try:
        finite = all(math.isfinite(number) for number in (content["seconds"], *content["speed"].values()))
    except (TypeError, OverflowError):
        finite = False
    if not finite:
        raise UserError(f"{path} is damaged (a time is not a finite number).")
    return Checkpoint(**{entry.name: content[entry.name] for entry in fields(Checkpoint)})


def state_of(part: object) -> Any:
    """Return the state of a tracked part; raises UserError if a checkpoint cannot hold it."""
    import torch

    if isinstance(part, Stateful):
        return part.state_dict()
    return part.get_state() if isinstance(part, torch.Generator) else attributes_of(part)


def restore_part(part: object, name: str, tracked: Mapping[str, Any], run: str) -> None:
    """Load the state that is stored as `name` into `part`; raises UserError if it is missing or does not fit.

    run: the id of the run, for the message.
    """
    import torch

    if name not in tracked:
        raise UserError(f"the checkpoint of run {run} holds no '{name}': another version of the rule wrote it.")
    try:
        if isinstance(part, Stateful):
            part.load_state_dict(tracked[name])
        elif isinstance(part, torch.Generator):
            part.set_state(tracked[name])
        else:
            restore_attributes(part, tracked[name])
    except (MemoryError, PlasticError):
        raise
    except Exception as error:
        # For a state of another shape, parts raise errors of different types.
        raise UserError(
            f"the checkpoint of run {run} does not fit this version of the rule, or this learner. Build the learner as"
            " for training, or train the run again."
        ) from error


def random_states() -> dict[str, Any]:
    """Return the global random states of torch, CUDA, NumPy and Python as plain values and tensors."""
    import numpy as np
    import torch

    numpy_state: Any = np.random.get_state()  # noqa: NPY002  the global state is what is stored
    kind, keys, position, has_gauss, gauss = numpy_state
    version, internal, cached = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        # Only if CUDA is in use, because reading the state occupies every GPU.
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "numpy": [str(kind), torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(gauss)],
        "python": [version, list(internal), cached],
    }


def restore_random_states(states: Mapping[str, Any], run: str) -> None:
    """Restore what `random_states` returned; raises UserError if the states are damaged.

    run: the id of the run, for the message.
    """
    import numpy as np
    import torch

    try:
        torch.set_rng_state(states["torch"])
        for index, state in zip(range(torch.cuda.device_count()), states["cuda"], strict=False):
            torch.cuda.set_rng_state(state, index)
        kind, keys, position, has_gauss, gauss = states["numpy"]
        np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, gauss))  # noqa: NPY002
        version, internal, cached = states["python"]
        random.setstate((version, tuple(internal), cached))
    except (AttributeError, IndexError, KeyError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"the checkpoint of run {run} is damaged. Train the run again.") from error
