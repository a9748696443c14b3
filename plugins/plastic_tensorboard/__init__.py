"""Exports runs to TensorBoard: event files in the folder of the run, for `tensorboard --logdir runs`."""

from plastic_cli.runs.exports import exporter_hooks

plastic_export_check, plastic_run_started, plastic_metrics_logged, plastic_run_finished = exporter_hooks(
    "plastic_tensorboard.events", library="TensorBoard", extra="tensorboard"
)
