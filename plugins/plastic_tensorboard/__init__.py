"""Exports runs for TensorBoard: event files in the run's folder, for `tensorboard --logdir runs`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from plastic_cli import UserError, hookimpl
from plastic_cli.distribution import install_command


@hookimpl
def plastic_export_check() -> None:
    """Look for the library."""
    try:
        import plastic_tensorboard.events  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"exporting to TensorBoard needs its library ({error}): `{install_command('tensorboard')}`."
        ) from None


@hookimpl
def plastic_run_started(run: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the configuration and what was logged before."""
    from plastic_tensorboard.events import start

    start(run, rows)


@hookimpl
def plastic_metrics_logged(run: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write metrics."""
    from plastic_tensorboard.events import log

    log(run, rows)


@hookimpl
def plastic_run_finished(run: Mapping[str, Any]) -> None:
    """Write the status and close the file."""
    from plastic_tensorboard.events import finish

    finish(run)
