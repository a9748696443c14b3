"""The networks, eligibility and gates that a run stores for `eval`, `analyze` and `render`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from plastic_cli import Run, UserError
from plastic_selective.optimizer.optimizer import LOW_GATE, SelectivePlasticityOptimizer
from plastic_selective.rule import share_of_largest

SHOWN_ROWS = 64
"""Number of units of a layer whose synapses are stored. Of the other units, only the distribution is stored."""
BINS = 50
SMALLEST = 1e-12
Kind = Literal["network", "eligibility", "plasticity"]
_DIGITS: dict[Kind, int] = {"network": 3, "eligibility": 3, "plasticity": 6}


def artifact_name(kind: Kind, number: int) -> str:
    """Return the name of the artifact of a task (network, from 0, or eligibility) or of a round (plasticity)."""
    return f"{kind}-{number:0{_DIGITS[kind]}d}"


def kept_artifacts(run: Run, kind: Kind, numbers: Iterable[int]) -> list[str]:
    """Return the names of the artifacts of these tasks or rounds. Raises UserError if a file is missing."""
    names, stored = [artifact_name(kind, number) for number in numbers], set(run.stored_tensors(f"{kind}-"))
    for name in names:
        if name not in stored:
            raise UserError(f"run {run.id} has no file artifacts/{name}.pt: restore the file, or train the run again.")
    return names


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    """Return the weights by name, first layer first. Biases are not synapses between units."""
    return {name: parameter for name, parameter in network.named_parameters() if parameter.dim() > 1}


def save_plasticity(
    run: Run, network: nn.Module, optimizer: SelectivePlasticityOptimizer, number: int, task: int
) -> None:
    """Store the eligibility and the gates of each layer after round `number`, in task `task`; both count from 1.

    The eligibility is stored as a share of the largest in its layer, that of a convolution as a matrix (channels,
    weights of a filter). Call this before the gradients are cleared.
    """
    layers: list[dict[str, Any]] = []
    for name, parameter in weights_of(network).items():
        eligibility, gate = _measured(optimizer, parameter)
        layers.append(
            {
                "name": name,
                "eligibility": eligibility[:SHOWN_ROWS].to("cpu", torch.float16).clone(),
                "gate": gate[:SHOWN_ROWS].to("cpu", torch.float16).clone(),
                "eligibility_counts": _counts(eligibility),
                "gate_counts": _counts(gate),
                "eligibility_mean": float(eligibility.mean()),
                "gate_mean": float(gate.mean()),
                "gate_low_ratio": float((gate < LOW_GATE).double().mean()),
            }
        )
    run.save_tensors(artifact_name("plasticity", number), {"epoch": number, "task": task, "layers": layers})


def save_eligibility(run: Run, network: nn.Module, optimizer: SelectivePlasticityOptimizer, task: int) -> None:
    """Store the eligibility of every synapse at the end of a task (from 1)."""
    layers = {
        name: _measured(optimizer, parameter)[0].to("cpu", torch.float16).clone()
        for name, parameter in weights_of(network).items()
    }
    run.save_tensors(artifact_name("eligibility", task), {"task": task, "layers": layers})


def _measured(optimizer: SelectivePlasticityOptimizer, parameter: Tensor) -> tuple[Tensor, Tensor]:
    eligibility, gate = optimizer.get_param_eligibility(parameter), optimizer.get_param_gate(parameter)
    assert eligibility is not None
    assert gate is not None
    return share_of_largest(eligibility, SMALLEST).flatten(1), gate.flatten(1)


def _counts(share: Tensor) -> Tensor:
    """Count values from 0 to 1 in equal bins: int64 (BINS,)."""
    return torch.histc(share.detach().float().cpu(), BINS, 0.0, 1.0).to(torch.int64)
