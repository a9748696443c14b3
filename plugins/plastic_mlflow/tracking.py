"""Export to MLflow: parameters, metrics with their history, and status. Points are sent in batches."""

from __future__ import annotations

import logging
import math
import os
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from filelock import FileLock

# Set before the import, which reads it: there are no usage reports unless the environment switches them on.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient, get_tracking_uri

from plastic_cli.runs.exports import hyperparameters, metric_name, metric_value

EXPERIMENT = "plastic"
"""The experiment, unless MLFLOW_EXPERIMENT_NAME is set."""
RUN_TAG = "plastic.run"
BATCH = 500
SECONDS = 5.0
"""Points are sent when there are BATCH of them or after this time, because each request takes milliseconds."""
LONGEST_VALUE = 6000
LONGEST_WAIT = 120.0
_STATUS = {"completed": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}


@dataclass
class _Export:
    client: MlflowClient
    id: str
    known: Counter[tuple[Any, ...]] = field(default_factory=Counter)
    waiting: list[Metric] = field(default_factory=list)
    sent: float = field(default_factory=time.monotonic)


_open: dict[str, _Export] = {}


def check() -> None:
    """Raise ImportError if the store is a database, as the default store is, and its libraries are missing."""
    if get_tracking_uri().partition(":")[0].partition("+")[0] in ("sqlite", "postgresql", "mysql", "mssql"):
        import alembic  # noqa: F401
        import sqlalchemy  # noqa: F401


def start(run: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Find the run by its tag and add missing points, or create it; MLflow cannot delete points."""
    # Messages about a new database are not shown.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    with _alone():
        client = MlflowClient()
        experiment = _experiment(client)
    found = client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{run['run']}'")
    if found:
        identity = found[0].info.run_id
        client.update_run(identity, status="RUNNING")
    else:
        began = datetime.fromisoformat(run["started"] or run["created"]).timestamp()
        tags = {RUN_TAG: run["run"], "plastic.rule": run["rule"], "plastic.folder": run["folder"]}
        name = run["name"] or f"{run['rule']} {run['run']}"
        identity = client.create_run(experiment, int(1000 * began), tags, name).info.run_id
        params = [Param(key, str(value)[:LONGEST_VALUE]) for key, value in hyperparameters(run).items()]
        client.log_batch(identity, params=params)
    export = _open[run["folder"]] = _Export(client, identity)
    if found:
        export.known = _points(client, identity)
    _take(export, rows)
    _send(export)


def log(run: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Collect rows, and send them in batches."""
    export = _open[run["folder"]]
    _take(export, rows)
    if len(export.waiting) >= BATCH or time.monotonic() - export.sent > SECONDS:
        _send(export)


def finish(run: Mapping[str, Any]) -> None:
    """Send the remaining points and the status."""
    export = _open.pop(run["folder"], None)
    if export is None:
        return
    _send(export)
    if run["error"]:
        export.client.log_batch(export.id, tags=[RunTag("plastic.error", run["error"][:LONGEST_VALUE])])
    ended = int(1000 * datetime.fromisoformat(run["finished"] or run["created"]).timestamp())
    export.client.set_terminated(export.id, _STATUS.get(run["status"], "FAILED"), ended)


def _alone() -> AbstractContextManager[Any]:
    """Lock a new SQLite file while MLflow creates its tables, because that fails for two runs at once."""
    scheme, _, path = get_tracking_uri().partition(":///")
    if scheme.partition("+")[0] != "sqlite" or not path:
        return nullcontext()
    return FileLock(f"{path}.lock", timeout=LONGEST_WAIT)


def _experiment(client: MlflowClient) -> str:
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
    found = client.get_experiment_by_name(name)
    if found is None:
        # Another run may create it at this moment.
        with suppress(MlflowException):
            return str(client.create_experiment(name))
        found = client.get_experiment_by_name(name)
    if found is None:
        raise RuntimeError(f"MLflow has no experiment '{name}' and does not create it")
    return str(found.experiment_id)


def _metric(row: Mapping[str, Any]) -> Metric:
    # Characters that MLflow does not allow in a name become underscores.
    name = re.sub(r"[^\w./ -]", "_", metric_name(row))
    return Metric(name, metric_value(row), int(1000 * (row.get("time") or 0)), row["step"])


def _key(point: Metric) -> tuple[Any, ...]:
    return (point.key, point.step, None if math.isnan(point.value) else point.value)


def _points(client: MlflowClient, identity: str) -> Counter[tuple[Any, ...]]:
    """Count the points that are there; a resumed run logs those of lost work again, equal but for the time."""
    keys = client.get_run(identity).data.metrics
    return Counter(_key(point) for key in keys for point in client.get_metric_history(identity, key))


def _take(export: _Export, rows: Sequence[Mapping[str, Any]]) -> None:
    for point in map(_metric, rows):
        if export.known[_key(point)] > 0:
            export.known[_key(point)] -= 1
        else:
            export.waiting.append(point)


def _send(export: _Export) -> None:
    for first in range(0, len(export.waiting), BATCH):
        export.client.log_batch(export.id, metrics=export.waiting[first : first + BATCH])
    export.waiting = []
    export.sent = time.monotonic()
