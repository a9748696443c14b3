"""Time and memory of the commands that read a store of many runs, and of one metrics file of a million rows.

    python benchmarks/store.py [--runs 10000] [--rows 1000000]

Each command runs in its own process, and the system reports its CPU time and largest memory. "cold" finds no index;
"warm" finds the index of the command before. The floor is a process that reads every run.json with Python's `json` and
does nothing else; the peer for one large file is `pandas.read_json`.
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
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "plugins")]

from plastic_cli.runs.record import METRICS_FILE, RECORD_FILE, RunRecord  # noqa: E402

SEEDS = 5
FLOOR = """
import json, os, sys
for entry in os.scandir(sys.argv[1]):
    if not entry.name.startswith("."):
        with open(f"{entry.path}/run.json", "rb") as stream:
            json.loads(stream.read())
"""
RUNS = """
import sys
from plastic_cli.runs.store import RunStore
assert len(RunStore(sys.argv[1]).runs()) == int(sys.argv[2])
"""
METRICS = """
import sys
from plastic_cli.runs.store import RunStore
assert len(RunStore(sys.argv[1]).metrics()) == int(sys.argv[2])
"""
PEER = """
import sys
import pandas as pd
assert len(pd.read_json(sys.argv[1], lines=True)) == int(sys.argv[2])
"""
PLASTIC = "from plastic_cli.app import main; main()"
RECIPE = """
title = "two thousand settings of five seeds"
why = "to look up every run of a large sweep"
rule = "backprop"
seeds = 5
[options]
hidden = [4]
[grid]
learning_rate = [{rates}]
"""


@dataclass(frozen=True)
class Cost:
    """Of one process: wall and CPU seconds, and the most memory that it held, in MB."""

    seconds: float
    cpu: float
    megabytes: float


def cost(program: str, *arguments: object) -> Cost:
    """Return what a Python program costs; raises subprocess.CalledProcessError where it fails."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "plugins")))}
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment) as child:
        _, state, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(state)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command)
    return Cost(time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def best(program: str, *arguments: object) -> Cost:
    """Return the cost of the run of three that took the least CPU time."""
    return min((cost(program, *arguments) for _ in range(3)), key=lambda found: found.cpu)


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
            "noise": 0.1,
            "final_noise": 0.0,
            "learning_rate": round(0.001 * (1 + setting // 6), 6),
            "final_learning_rate": 0.0,
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


def write_rows(folder: Path, template: Path, count: int) -> Path:
    """Write a store of one run with `count` rows of metrics, and return its metrics file."""
    run = folder / "20260101-000000-rows"
    run.mkdir(parents=True)
    shutil.copy(template / "run.json", run)
    draw = random.Random(0)
    path = run / "metrics.jsonl"
    with path.open("w", encoding="utf-8") as stream:
        for number in range(count):
            split, metric = (("train", "test")[number % 2], ("accuracy", "loss")[number // 2 % 2])
            row = {"stage": "train", "split": split, "step": number // 4 + 1, "metric": metric}
            stream.write(json.dumps({**row, "value": draw.random(), "time": 1.8e9 + number}) + "\n")
    return path


def main() -> None:
    """Write the runs, measure everything and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "runs"
        write_runs(folder, given.runs, 10)
        recipe = Path(temporary) / "large.toml"
        rates = ", ".join(f"{0.0001 * (number + 1):.4f}" for number in range(max(1, given.runs // 5)))
        recipe.write_text(RECIPE.format(rates=rates), encoding="utf-8")
        costs = {
            "read every run.json (the floor)": best(FLOOR, folder),
            "plastic --version": best(PLASTIC, "--version"),
        }
        for words in (
            ["runs"],
            ["runs", "--all"],
            ["runs", "--json"],
            ["report", "--format", "csv"],
            ["report", "--output", str(Path(temporary) / "report")],
            ["sweep", "backprop-quick", "--dry-run"],
            ["sweep", str(recipe), "--dry-run", "--format", "csv"],
        ):
            shutil.rmtree(folder / ".index", ignore_errors=True)
            name = " ".join(["plastic", *words]).replace(str(recipe), f"RECIPE of {given.runs} runs")
            name = name.replace(str(Path(temporary) / "report"), "FOLDER")
            costs[f"{name}, cold"] = cost(PLASTIC, *words, "--runs", folder)
            costs[f"{name}, warm"] = best(PLASTIC, *words, "--runs", folder)
        for name, program, count in (
            ("RunStore.runs()", RUNS, given.runs),
            ("RunStore.metrics()", METRICS, 40 * given.runs),
        ):
            shutil.rmtree(folder / ".index", ignore_errors=True)
            costs[f"{name}, cold"] = cost(program, folder, count)
            costs[f"{name}, warm"] = best(program, folder, count)
        rows = Path(temporary) / "rows"
        file = write_rows(rows, next(path for path in folder.iterdir() if path.name[0] != "."), given.rows)
        costs[f"{given.rows} rows, cold"] = cost(METRICS, rows, given.rows)
        costs[f"{given.rows} rows, warm"] = best(METRICS, rows, given.rows)
        costs[f"{given.rows} rows, pandas.read_json (the peer)"] = cost(PEER, file, given.rows)
    floor = next(iter(costs.values()))
    print(f"{given.runs} runs of 40 rows; wall seconds, CPU seconds, multiples of the floor's CPU seconds, MB")
    for name, found in costs.items():
        multiple = found.cpu / floor.cpu
        print(f"{name:<64} {found.seconds:8.2f} {found.cpu:8.2f} {multiple:8.1f} {found.megabytes:8.0f}")


if __name__ == "__main__":
    main()
