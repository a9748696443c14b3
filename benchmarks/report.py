"""How long a report over many stored runs takes, beside the floor: asking the disk for the state of each run.json.

    python benchmarks/report.py [--runs 10000] [--epochs 10]

"cold" reads every folder, as the first report after a sweep does; "warm" finds the index that the cold read left.
Each time is that of one read in this process, or of the whole command in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "plugins")]

from plastic_cli.runs.record import METRICS_FILE, RECORD_FILE, RunRecord  # noqa: E402
from plastic_cli.runs.store import RunStore  # noqa: E402

SEEDS = 5


def write_runs(folder: Path, count: int, epochs: int) -> None:
    """Write `count` completed runs, five seeds of each of many settings, with four metrics an epoch."""
    draw = random.Random(0)
    folder.mkdir()
    for number in range(count):
        setting, seed = divmod(number, SEEDS)
        config = {
            "seed": seed,
            "device": "auto",
            "dataset": ("digits", "mnist")[setting % 2],
            "validation": 0,
            "perturbations": (1, 16, 128)[setting % 3],
            "hidden": [256],
            "skip": False,
            "activation": "top-k",
            "k": 0.5,
            "batch_size": 1,
            "epochs": epochs,
            "noise_max": 0.1,
            "noise_min": 0.0,
            "lr_max": round(0.001 * (1 + setting // 6), 6),
            "lr_min": 0.0,
            "credit": "output",
            "update": "grlu",
            "backbone": "none",
        }
        lines = []
        summary: dict[str, float | None] = {}
        for epoch in range(1, epochs + 1):
            for split in ("train", "test"):
                for metric in ("accuracy", "loss"):
                    value = draw.random()
                    summary[f"{split}/{metric}"] = value
                    row = {
                        "stage": "train",
                        "split": split,
                        "step": epoch,
                        "metric": metric,
                        "value": value,
                        "time": 1.8e9,
                    }
                    lines.append(json.dumps(row) + "\n")
        stamp = "2026-01-01T00:00:00.000+00:00"
        record = RunRecord(
            run=f"20260101-000000-{number:06d}",
            rule="grlu",
            seed=seed,
            config=config,
            dataset=str(config["dataset"]),
            status="completed",
            created=stamp,
            started=stamp,
            finished=stamp,
            seconds=draw.random(),
            summary=summary,
            machine={"system": "Linux", "processor": "unknown", "cores": 2},
            versions={"plastic": "0.1.0", "python": "3.11", "torch": "2.6"},
        )
        run = folder / record.run
        run.mkdir()
        (run / RECORD_FILE).write_text(json.dumps(asdict(record), indent=1) + "\n", encoding="utf-8")
        (run / METRICS_FILE).write_text("".join(lines), encoding="utf-8")


def seconds(work: Callable[[], object]) -> float:
    """Return how long `work` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def state_of_all(folder: Path) -> None:
    """Ask for the state of every run.json, and nothing else."""
    for entry in os.scandir(folder):
        if not entry.name.startswith("."):
            os.stat(f"{entry.path}/{RECORD_FILE}")  # noqa: PTH116  the bare system call is the floor


def command(folder: Path, *options: str) -> None:
    """Run `plastic report` in a process of its own."""
    subprocess.run(
        [sys.executable, "-c", "from plastic_cli.app import main; main()", "report", "--runs", str(folder), *options],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path[:2])},
    )


def main() -> None:
    """Write the runs, time everything and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=10)
    given = parser.parse_args()

    import pandas as pd  # noqa: F401  imported before the clock starts: the reads below are timed, not the import

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "runs"
        write_runs(folder, given.runs, given.epochs)
        index = folder / ".index"
        floor = min(seconds(lambda: state_of_all(folder)) for _ in range(5))
        timings = [("state of every run.json (the floor)", floor)]
        for name, read in (
            ("RunStore.runs()", lambda: RunStore(folder).runs()),
            ("RunStore.metrics()", lambda: RunStore(folder).metrics()),
            ("plastic report --format csv", lambda: command(folder, "--format", "csv")),
            ("plastic report --output FOLDER", lambda: command(folder, "--output", str(Path(temporary) / "report"))),
        ):
            shutil.rmtree(index, ignore_errors=True)
            timings.append((f"{name}, cold", seconds(read)))
            timings.append((f"{name}, warm", min(seconds(read) for _ in range(3))))
    print(f"{given.runs} runs, {4 * given.epochs} metric rows each; seconds, and multiples of the floor")
    for name, taken in timings:
        print(f"{name:<42} {taken:8.3f} s {taken / floor:8.1f}")


if __name__ == "__main__":
    main()
