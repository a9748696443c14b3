"""Made-up runs and a reference of them."""

import json

from plastic_cli.plugins.discovery import find_rule
from plastic_cli.plugins.models import train_model
from plastic_cli.runs.record import RunRecord, read_record, settings_text
from plastic_cli.runs.reference import Reference, write_reference
from plastic_cli.runs.store import RunStore

CHECKSUM = "a" * 64


def record_of(rule, seed, summary, *, dataset="digits", checksum=CHECKSUM, version="0.2.0", number=0, **options):
    """Return the record of a completed run with all options of its rule."""
    model = train_model(find_rule(rule))
    config = model.from_values({"dataset": dataset, "seed": seed, **options}).model_dump(mode="json")
    time = f"2026-11-01T10:{number // 60:02d}:{number % 60:02d}.000+00:00"
    return RunRecord(
        run=f"20261101-{number:04d}", rule=rule, seed=seed, config=config, status="completed", dataset=dataset,
        created=time, started=time, finished=time, summary=dict(summary), data={"checksum": checksum},
        versions={"plastic": version, "rule": f"plastic {version}", "torch": "2.4"}, machine={"device": "cpu"},
        speed={"seconds": 1.0, "samples": 10},
    )  # fmt: skip


def write_runs(folder, records):
    """Write runs into a store, each under its own id, with a curve of two points for each result."""
    for record in records:
        path = folder / record.run
        path.mkdir(parents=True)
        record.write(path)
        lines = [
            {"stage": "train", "split": split, "metric": metric, "step": step, "value": value, "time": 0.0}
            for name, last in record.summary.items()
            for split, _, metric in [name.partition("/")]
            for step, value in ((0, 0.1), (1, last))
        ]
        (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return [read_record(folder / record.run) for record in records]


def reference_of(folder, records, recipe="made-up"):
    """Return a reference with these runs, which is written into a folder."""
    write_runs(folder / "measured", records)
    settings = {settings_text(record.rule, record.config) for record in records}
    write_reference(RunStore(folder / "measured"), folder / "reference", {recipe: settings})
    return Reference(folder / "reference")
