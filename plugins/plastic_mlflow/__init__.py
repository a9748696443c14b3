"""Exports runs to MLflow: to the server or store of MLFLOW_TRACKING_URI, or to MLflow's default store."""

from plastic_cli.runs.exports import exporter_hooks

plastic_export_check, plastic_run_started, plastic_metrics_logged, plastic_run_finished = exporter_hooks(
    "plastic_mlflow.tracking", library="MLflow", extra="mlflow"
)
