"""Seconds per epoch of `plastic train eglp` by kind and rate of events: what an event saves in time.

MNIST, 784-256-128-10, batches of 128, one thread. Each kind trains for a few epochs in a process of its own, one kind
after the other, and the rounds repeat this. The time is that of the training loop, as the run stores it. "Learning" is
the time beyond that of zero events, as a share of that of events always, within a round.

    PLASTIC_DATA=... python benchmarks/events.py [--json] [--rounds 4] [--epochs 4]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

KINDS = {
    "zero events": ["--events", "never"],
    "sampled, 0.01": ["--no-control", "--events", "sampled", "--event-rate", "0.01"],
    "sampled, 0.1": ["--no-control", "--events", "sampled"],
    "sampled, 1": ["--no-control", "--events", "sampled", "--event-rate", "1", "--event-budget", "0"],
    "triggered, 0.1": ["--no-control"],
    "random batches, 0.1": ["--no-control", "--events", "fixed", "--event-warmup", "0"],
    "always": ["--no-control", "--events", "always"],
}


def seconds_per_epoch(options: list[str], epochs: int, store: str) -> float:
    """Train once, and return the seconds of the training loop per epoch of MNIST's 60,000 images."""
    command = [sys.executable, "-m", "plastic_cli", "train", "eglp", "--dataset", "mnist", "--epochs", str(epochs)]
    trained = subprocess.run(
        [*command, "--json", "--runs", store, *options],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if trained.returncode:
        sys.exit(trained.stderr)
    record = json.loads((Path(json.loads(trained.stdout)["folder"]) / "run.json").read_text(encoding="utf-8"))
    return 60_000 * record["speed"]["seconds"] / record["speed"]["samples"]


def main() -> int:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=4)
    arguments = parser.parse_args()
    times: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as store:
        for _ in range(arguments.rounds):
            for kind, options in KINDS.items():
                times[kind].append(seconds_per_epoch(options, arguments.epochs, store))
    table = {}
    for kind, mine in times.items():
        rounds = list(zip(mine, times["zero events"], times["always"], strict=True))
        table[kind] = {
            "seconds_per_epoch": statistics.median(mine),
            "fastest": min(mine),
            "slowest": max(mine),
            "images_per_second": 60_000 / statistics.median(mine),
            "times_always": statistics.median(one / whole for one, _, whole in rounds),
            "learning": statistics.median((one - none) / (whole - none) for one, none, whole in rounds),
        }
    if arguments.json:
        print(json.dumps({"rounds": arguments.rounds, "epochs": arguments.epochs, "results": table}))
        return 0
    print(f"1 thread, medians of {arguments.rounds} rounds of {arguments.epochs} epochs, ranges in brackets")
    for kind, row in table.items():
        spread = f"{row['seconds_per_epoch']:6.3f} [{row['fastest']:.3f}, {row['slowest']:.3f}] s/epoch"
        print(
            f"{kind:20} {spread}  {row['images_per_second']:8,.0f} images/s"
            f"  {row['times_always']:5.2f} x always  learning {row['learning']:5.2f} of always"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
