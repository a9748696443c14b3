"""Export to TensorBoard: each session of a run writes a new event file with the whole run and removes older ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.api_pb2 import Status
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from torch.utils.tensorboard import SummaryWriter

from plastic_cli.runs.exports import hyperparameters, metric_name, metric_value

FOLDER = "tensorboard"
FLUSH_SECONDS = 10
_STATUS = {"completed": Status.STATUS_SUCCESS, "failed": Status.STATUS_FAILURE}

_writers: dict[str, SummaryWriter] = {}


def start(run: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the whole run again: an event file can only grow, and would hold lost and repeated work twice."""
    folder = Path(run["folder"]) / FOLDER
    for old in folder.glob("events.out.tfevents.*"):
        old.unlink()
    # The first event tells an open TensorBoard to drop the points of the old files.
    writer = _writers[run["folder"]] = SummaryWriter(str(folder), purge_step=0, flush_secs=FLUSH_SECONDS)
    given = hyperparameters(run)
    began = datetime.fromisoformat(run["started"] or run["created"]).timestamp()
    _add(writer, hparams_pb(given, trial_id=run["run"], start_time_secs=began))
    table = "\n".join(f"| {key} | {value} |" for key, value in given.items())
    writer.add_text("configuration", f"| option | value |\n|---|---|\n{table}", 0)
    log(run, rows)


def log(run: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Add one scalar for each row."""
    writer = _writers[run["folder"]]
    for row in rows:
        writer.add_scalar(metric_name(row), metric_value(row), row["step"], walltime=row.get("time"))


def finish(run: Mapping[str, Any]) -> None:
    """Add the status, as text and for the table of hyperparameters, and close the file."""
    writer = _writers.pop(run["folder"], None)
    if writer is None:
        return
    error = f": {run['error']}" if run["error"] else ""
    writer.add_text("status", f"{run['status']}{error}", 0)
    ended = SessionEndInfo(
        status=_STATUS.get(run["status"], Status.STATUS_UNKNOWN),
        end_time_secs=datetime.fromisoformat(run["finished"] or run["created"]).timestamp(),
    )
    tagged = Summary()
    content = metadata.create_summary_metadata(HParamsPluginData(session_end_info=ended))
    tagged.value.add(tag=metadata.SESSION_END_INFO_TAG, metadata=content, tensor=metadata.NULL_TENSOR)
    _add(writer, tagged)
    writer.close()


def _add(writer: SummaryWriter, summary: Any) -> None:
    # The writer needs the summary class of torch, which has the same messages.
    writer.file_writer.add_summary(Summary.FromString(summary.SerializeToString()), 0)
