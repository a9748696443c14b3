"""Exports runs to MLflow: the server or store of MLFLOW_TRACKING_URI, or MLflow's default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from plastic_cli import UserError, hookimpl
from plastic_cli.distribution import install_command


@hookimpl
def plastic_export_check() -> None:
    """Look for the library, and for what its store needs."""
    try:
        from plastic_mlflow.tracking import check_store

        check_store()
    except ImportError as error:
        raise UserError(f"exporting to MLflow needs its library ({error}): `{install_command('mlflow')}`.") from None


@hookimpl
def plastic_run_started(run: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Make the run, or find it where it was made before."""
    from plastic_mlflow.tracking import start

    start(run, rows)


@hookimpl
def plastic_metrics_logged(run: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write metrics."""
    from plastic_mlflow.tracking import log

    log(run, rows)


@hookimpl
def plastic_run_finished(run: Mapping[str, Any]) -> None:
    """Write what is left and the status."""
    from plastic_mlflow.tracking import finish

    finish(run)
