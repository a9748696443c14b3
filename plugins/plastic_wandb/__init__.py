"""Exports runs to Weights & Biases: offline, into the run's folder, unless WANDB_MODE says otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from plastic_cli import UserError, hookimpl
from plastic_cli.distribution import install_command


@hookimpl
def plastic_export_check() -> None:
    """Look for the library."""
    try:
        import plastic_wandb.history  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"exporting to Weights & Biases needs its library ({error}): `{install_command('wandb')}`."
        ) from None


@hookimpl
def plastic_run_started(run: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Begin the run, or begin it anew with what was logged before."""
    from plastic_wandb.history import start

    start(run, rows)


@hookimpl
def plastic_metrics_logged(run: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write metrics."""
    from plastic_wandb.history import log

    log(run, rows)


@hookimpl
def plastic_run_finished(run: Mapping[str, Any]) -> None:
    """Write the status and end the run."""
    from plastic_wandb.history import finish

    finish(run)
