"""What is computed without a run: results in memory, tables and figures in a folder that the user chooses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plastic_cli.errors import UserError
from plastic_cli.runs.console import Console
from plastic_cli.runs.metrics import MeasuredOn
from plastic_cli.runs.record import RunRecord
from plastic_cli.runs.run import Run

if TYPE_CHECKING:
    import torch


class UnstoredRun(Run):
    """A run that is in no store: it has no record, metrics or checkpoint on the disk.

    folder: for tables and figures; it is created. name: what is analyzed, such as the name of a network. Raises
    UserError if the folder cannot be created.
    """

    def __init__(
        self, folder: Path, name: str, *, seed: int, dataset: str, stage: str, console: Console, device: str
    ) -> None:
        record = RunRecord(run=name, rule=name, seed=seed, config={}, dataset=dataset)
        super().__init__(folder, record, stage=stage, console=console, device=device)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"cannot write to {folder}: {error.strerror or error}. Choose another folder with --output."
            ) from None

    def log(
        self,
        split: str,
        labels: Mapping[str, Any] | None = None,
        measured_on: MeasuredOn | None = None,  # noqa: ARG002
        /,
        **metrics: float | torch.Tensor,
    ) -> None:
        """Keep metrics without labels as results."""
        if not labels:
            self.results |= {f"{split}/{name}": float(value) for name, value in metrics.items()}
