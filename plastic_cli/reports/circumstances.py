"""What a run was made with, in words: versions, machine, data and commit."""

from __future__ import annotations

from plastic_cli.runs.record import RunRecord

CHECKSUM, CLASSES = "checksum of the data", "classes of the images"
"""The facts that say which images a run was trained and tested on."""


def facts_of(record: RunRecord) -> dict[str, str]:
    """Return what a run was made with, in words."""
    machine = {name: str(value) for name, value in record.machine.items() if value not in (None, "")}
    facts = {f"version of {name}": str(value) for name, value in record.versions.items()}
    facts |= {name: machine[name] for name in ("device", "gpu", "processor") if name in machine}
    # Two processors of one name can have different ones, and then the last bits of results differ.
    if "instructions" in machine:
        facts["vector instructions"] = machine["instructions"]
    facts |= {name: machine[name] for name in ("cores", "threads", "system") if name in machine}
    if record.data.get("checksum"):
        facts[CHECKSUM] = str(record.data["checksum"])[:8]
    if record.classes_of_images:
        facts[CLASSES] = record.classes_of_images
    if record.project.get("commit"):
        dirty = " with changes" if record.project.get("dirty") else ""
        facts["commit"] = f"{str(record.project['commit'])[:8]}{dirty}"
    facts |= {f"{unit}s trained": str(count) for unit, count in record.steps_done.items()}
    return facts
