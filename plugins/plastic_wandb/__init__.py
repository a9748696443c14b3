"""Exports runs to Weights & Biases: offline, into the run's folder, unless WANDB_MODE says otherwise."""

from plastic_cli.runs.exports import exporter_hooks

plastic_export_check, plastic_run_started, plastic_metrics_logged, plastic_run_finished = exporter_hooks(
    "plastic_wandb.history", library="Weights & Biases", extra="wandb"
)
