"""Reads stored parameters into a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from plastic_cli import Run, UserError
from plastic_cli.errors import did_you_mean
from plastic_cli.files import read_tensors

BEST, FINAL = "best", "final"


def load_network(network: nn.Module, run: Run, name: str) -> None:
    """Load the checkpoint `name` into a network: best, final, the name of a periodic checkpoint, or a .pt file.

    Raises UserError if there is no such checkpoint or it belongs to another architecture.
    """
    if name.endswith(".pt"):
        state = _read_file(Path(name))
    else:
        known = run.stored_tensors("")
        if name not in known:
            raise UserError(
                f"--checkpoint {name}: run {run.id} has no such checkpoint.{did_you_mean(name, known)} It has:"
                f" {', '.join(known) or 'none'}."
            )
        state = run.load_tensors(name)
    try:
        network.load_state_dict(state)
    except (RuntimeError, AttributeError, TypeError):
        raise UserError(
            f"--checkpoint {name}: its architecture is not that of run {run.id}"
            f" (core {run.config.get('core')}, {run.config.get('hidden_dim')} units, {run.config.get('env')})."
            " Choose a checkpoint of a run with the same architecture."
        ) from None


def _read_file(path: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = read_tensors(path)
    except FileNotFoundError:
        raise UserError(f"--checkpoint {path}: there is no such file.") from None
    except Exception:  # noqa: BLE001  reading a damaged file can raise anything
        raise UserError(f"--checkpoint {path}: the file is damaged, or contains more than tensors.") from None
    return state
