"""`plastic render selective`: eligibility and gates of a layer across the tasks as a film, and its end as a still."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from plastic_cli import Run, UserError
from plastic_cli.classifier.data import image_shape_of
from plastic_selective.analysis.frames import Pictures, film_frames, full_scale
from plastic_selective.continual.history import History, read_history, snapshot_names
from plastic_selective.continual.snapshots import SHOWN_ROWS, kept_artifacts

if TYPE_CHECKING:
    from plastic_selective.config import Render

MOST_FRAMES = 60
LAST_FRAMES = 5
"""The last frame stays for so many, so that the end can be seen before a film repeats."""


def render_plasticity(config: Render, run: Run) -> None:
    """Write the film and the still of one layer.

    A run with selective plasticity shows eligibility and gates after each round, a control its weights after each task.
    Raises UserError for a layer that the network does not have, and for a run that has not kept all of it.
    """
    history = read_history(run)
    if history.config.optimizer == "selective":
        steps, panels = _eligibility_and_gates(history, config.layer)
    else:
        run.message(f"{history.config.optimizer} has no eligibility and no gates: the weights are shown instead")
        steps, panels = _weights(history, config.layer)
    inputs = panels[0].matrices[0].shape[1]
    # Only the first layer sees images; another one may have as many inputs by chance.
    shape = image_shape_of(run, inputs) if config.layer == 1 else None
    frames = film_frames(history, steps, panels, shape)
    name = f"plasticity_layer_{config.layer}"
    run.save_video(name, [*frames, *[frames[-1]] * LAST_FRAMES], config.frame_seconds)
    run.save_image(name, frames[-1])


def evenly_spaced(names: Sequence[str], most: int = MOST_FRAMES) -> list[str]:
    """Return at most `most` evenly spaced names, the last among them."""
    stride = -(-len(names) // most)
    return list(names[(len(names) - 1) % stride :: stride])


def _eligibility_and_gates(history: History, number: int) -> tuple[list[int], list[Pictures]]:
    steps, eligibilities, gates = [], [], []
    names = snapshot_names(history)
    shown = evenly_spaced(names)
    if len(shown) < len(names):
        history.run.message(f"showing {len(shown)} of {len(names)} rounds")
    for name in shown:
        snapshot = history.run.load_tensors(name)
        layer = snapshot["layers"][_index(history, number, len(snapshot["layers"]))]
        steps.append(int(snapshot["epoch"]))
        eligibilities.append(_plain(layer["eligibility"]))
        gates.append(_plain(layer["gate"]))
    closed = [1 - gate for gate in gates]
    units = len(gates[0])
    return steps, [
        Pictures(f"eligibility, layer {number}, {units} units", eligibilities, full_scale(eligibilities)),
        Pictures(
            "gates (white: open)",
            closed,
            max(float(part.max()) for part in closed) or 1.0,
            words=lambda x: f"{1 - x:.3g}",
        ),
    ]


def _weights(history: History, number: int) -> tuple[list[int], list[Pictures]]:
    steps, weights = [], []
    for name in evenly_spaced(kept_artifacts(history.run, "network", range(history.learned + 1))):
        kept = history.run.load_tensors(name)
        matrices = [tensor for tensor in kept["network"].values() if tensor.dim() > 1]
        weights.append(_plain(matrices[_index(history, number, len(matrices))][:SHOWN_ROWS]))
        steps.append(int(kept["task"]) * history.rounds)
    changes = [matrix - weights[0] for matrix in weights]
    return steps, [
        Pictures(f"weights, layer {number}, {len(weights[0])} units", weights, full_scale(weights), signed=True),
        Pictures("what learning added", changes, full_scale(changes), signed=True),
    ]


def _index(history: History, number: int, layers: int) -> int:
    if number > layers:
        raise UserError(f"--layer {number}: the network of run {history.run.id} has {layers} layers.")
    return number - 1


def _plain(tensor: Tensor) -> NDArray[np.float32]:
    matrix: NDArray[np.float32] = tensor.float().numpy()
    return matrix
