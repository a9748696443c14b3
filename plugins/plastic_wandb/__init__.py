"""Exports runs to Weights & Biases: offline, into the folder of the run, unless WANDB_MODE is set."""

from plastic_cli.runs.exports import exporter_hooks

plastic_export_check, plastic_run_started, plastic_metrics_logged, plastic_run_finished = exporter_hooks(
    "plastic_wandb.history", library="Weights & Biases", extra="wandb"
)
