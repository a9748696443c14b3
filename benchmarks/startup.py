"""Times the starts of commands, and of the runs of a sweep.

    python benchmarks/startup.py
    python benchmarks/startup.py --sweep

The first form times `plastic --help` and other first commands, relative to importing Typer and rich, interleaved in one
run. The second one times runs of one epoch on the digits as a sweep starts them on Linux, as forks of a process that
has imported torch, relative to new processes, in pairs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FLOOR = "import typer, rich"
COMMANDS = {
    "plastic --help": ["--help"],
    "plastic train --help": ["train", "--help"],
    "plastic train grlu --help": ["train", "grlu", "--help"],
    "plastic runs": ["runs"],
}


RULES = ("eglp", "backprop", "grlu")


def seconds(program: str) -> float:
    """Return the time of a fresh interpreter that runs `program`."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return time.perf_counter() - began


def seconds_of_runs(rule: str, repeats: int) -> tuple[list[float], list[float]]:
    """Return the times of runs as new processes and as forks, in turn."""
    from plastic_cli.sweeps import process

    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    fork = process.can_fork
    times: tuple[list[float], list[float]] = ([], [])
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("wb") as log:
        options = ["--dataset", "digits", "--hidden", "8", "--epochs", "1", "--runs", folder]
        for number in range(2 * (repeats + 1)):
            process.can_fork = fork if number % 2 else lambda: False
            began = time.perf_counter()
            code = process.start(["train", rule, *options], environment, log).wait()
            assert code == 0, f"{rule} ended with {code}"
            # The first pair imports and compiles.
            if number > 1:
                times[number % 2].append(time.perf_counter() - began)
    return times


def print_runs(repeats: int) -> None:
    """Print the time of a run of each rule as a new process and as a fork, and their ratio within a pair."""
    print(f"{'rule':10}{'new process, s':>16}{'fork, s':>10}{'ratio':>8}{'range':>16}")
    for rule in RULES:
        new, forked = seconds_of_runs(rule, repeats)
        ratios = [one / other for one, other in zip(new, forked, strict=True)]
        spread = f"{min(ratios):.1f} to {max(ratios):.1f}"
        print(
            f"{rule:10}{statistics.median(new):16.2f}{statistics.median(forked):10.2f}"
            f"{statistics.median(ratios):8.1f}{spread:>16}"
        )


def main() -> None:
    """Print median and range of each command in milliseconds, and its ratio to the floor."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--sweep", action="store_true", help="runs of a sweep, as new processes and as forks")
    options = parser.parse_args()
    repeats = options.repeats
    if options.sweep:
        print_runs(repeats)
        return
    programs = {f"python -c '{FLOOR}'": FLOOR} | {
        name: f"import sys; sys.argv = {['plastic', *arguments]!r}\nfrom plastic_cli.__main__ import main\nmain()"
        for name, arguments in COMMANDS.items()
    }
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(repeats):
        for name, program in programs.items():
            times[name].append(1000 * seconds(program))
    floor = statistics.median(next(iter(times.values())))
    print(f"{'command':34}{'median ms':>10}{'range ms':>16}{'x floor':>9}")
    for name, values in times.items():
        median = statistics.median(values)
        print(f"{name:34}{median:10.0f}{f'{min(values):.0f} to {max(values):.0f}':>16}{median / floor:9.2f}")


if __name__ == "__main__":
    main()
