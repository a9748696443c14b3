"""Reads stored parameters into a network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from plastic_cli import Run, UserError
from plastic_cli.errors import did_you_mean
from plastic_cli.files import read_tensors

BEST, FINAL = "best", "final"

PUBLISHED_WEIGHTS = "model_state_dict"
"""Where a checkpoint of the published program holds the weights, next to its optimizer."""
PUBLISHED_NAMES = {
    "mpn.mpn_layer.W": "core.W",
    "mpn.mpn_layer.b": "core.b",
    "mpn.mpn_layer.eta": "core.eta",
    "mpn.mpn_layer._lambda_raw": "core.lambda_",
    "q_head.weight": "head.weight",
    "q_head.bias": "head.bias",
}
"""Names of the weights of MPNDQN in the published program, and ours. Its first version stores no eta and lambda."""


def from_published(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state with our names: of a checkpoint or a network of the published program, or one that has them."""
    weights = state.get(PUBLISHED_WEIGHTS, state)
    return {PUBLISHED_NAMES.get(name, name): value for name, value in weights.items()}


def load_network(network: nn.Module, run: Run, name: str) -> None:
    """Load a checkpoint of `stored_state` into a network.

    Raises UserError if there is no such checkpoint or it belongs to another architecture.
    """
    load_state(network, stored_state(run, name), run, name)


def stored_state(run: Run, name: str) -> dict[str, Any]:
    """Read a checkpoint: best, final (also called last), the name of a periodic checkpoint, or a .pt file.

    Raises UserError if there is no such checkpoint.
    """
    if name.endswith(".pt"):
        return _read_file(Path(name))
    known = run.stored_tensors("")
    if name == "last":
        name = FINAL
    if name not in known:
        raise UserError(
            f"--checkpoint {name}: run {run.id} has no such checkpoint.{did_you_mean(name, known)} It has:"
            f" {', '.join(known) or 'none'}."
        )
    return run.load_tensors(name)


def load_state(network: nn.Module, state: Mapping[str, Any], run: Run, name: str) -> None:
    """Load a state into a network of `run`; raises UserError, with the name of the checkpoint, if it does not fit."""
    try:
        network.load_state_dict(state)
    except (RuntimeError, AttributeError, TypeError):
        raise _does_not_fit(run, name) from None


def sizes_of(state: Mapping[str, Any], run: Run, name: str) -> tuple[int, int]:
    """Return the size of an observation and the number of actions of the network that has this state.

    Raises UserError, with the name of the checkpoint, if it is not the state of an agent.
    """
    tensors = {
        key: value for key, value in from_published(state).items() if isinstance(value, Tensor) and value.dim() == 2
    }
    # The first matrix of every core multiplies the observation.
    first = next((value for key, value in tensors.items() if key.startswith("core.")), None)
    last = tensors.get("head.weight", tensors.get("actor.weight"))
    if first is None or last is None:
        raise _does_not_fit(run, name)
    return first.shape[1], last.shape[0]


def _does_not_fit(run: Run, name: str) -> UserError:
    return UserError(
        f"--checkpoint {name}: its architecture is not that of run {run.id}"
        f" (core {run.config.get('core')}, {run.config.get('hidden')} units, {run.config.get('env')})."
        " Choose a checkpoint of a run with the same architecture."
    )


def _read_file(path: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = read_tensors(path)
    except FileNotFoundError:
        raise UserError(f"--checkpoint {path}: there is no such file.") from None
    except Exception:  # noqa: BLE001  reading a damaged file can raise anything
        raise UserError(f"--checkpoint {path}: the file is damaged, or contains more than tensors.") from None
    return state
