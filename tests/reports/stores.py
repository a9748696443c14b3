"""Made-up runs on the disk, as a store has them."""

import json

from plastic_cli.reports.grouping import plain_value
from plastic_cli.runs.record import METRICS_FILE, RunRecord


def write_store(folder, runs, metrics, status="completed"):
    """Write the runs of made-up frames as a store has them."""
    folder.mkdir(exist_ok=True)
    for row in runs.to_dict("records"):
        config = {name[7:]: plain_value(value) for name, value in row.items() if name.startswith("config.")}
        record = RunRecord(
            run=row["run"], rule=row["rule"], seed=row["seed"], config=config, status=status, dataset=row["dataset"],
            created=row["created"].isoformat(), started=row["started"].isoformat(), seconds=row["seconds"],
            finished=row["finished"].isoformat(), summary={name: row[name] for name in row if "/" in name},
        )  # fmt: skip
        path = folder / record.run
        path.mkdir()
        record.write(path)
        own = metrics[metrics["run"] == record.run].drop(columns=["run", "labels"])
        (path / METRICS_FILE).write_text("".join(json.dumps(line) + "\n" for line in own.to_dict("records")))
